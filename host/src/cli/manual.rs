//! Completions and manual pages, made from the same definitions as the help.

use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::args::Args;
use crate::cli::examples::EXAMPLES;
use crate::cli::exit::ExitCode;
use crate::cli::speaker::Speaker;
use crate::commands::{Outcome, Report};
use crate::error::{Error, ErrorKind, Result};

/// Prints the completion script for `shell`.
pub(super) fn completions(shell: Shell, speaker: &Speaker) -> Result<Report> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), NAME, &mut script);
    speaker.answer(&script)?;
    Ok(Report::default())
}

/// Prints the page about a verb (or about all), or writes every page.
pub(super) fn man(
    page: Option<&str>,
    into: Option<&Path>,
    speaker: &Speaker,
) -> Result<Report> {
    let pages = pages()?;
    let Some(directory) = into else {
        let wanted = match page {
            None => NAME.to_owned(),
            Some(verb) => format!("{NAME}-{verb}"),
        };
        let Some(page) = pages.into_iter().find(|page| page.name == wanted)
        else {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("there is no command `{}`", page.unwrap_or_default()),
            )
            .hint("e2wire --help lists the commands"));
        };
        speaker.answer(&page.roff)?;
        return Ok(Report::default());
    };
    let mut report = Report::new(Outcome::Done)
        .fact("pages", pages.len())
        .fact("directory", directory.display().to_string());
    for page in pages {
        let path = directory.join(format!("{}.1", page.name));
        std::fs::write(&path, page.roff).map_err(|error| {
            Error::io(format!("cannot write {}", path.display()), error)
                .hint("name a directory that exists and that you may write to")
        })?;
        report = report.line(format!("wrote {}", path.display()));
    }
    Ok(report)
}

const NAME: &str = "e2wire";

struct Page {
    name: String,
    roff: Vec<u8>,
}

fn pages() -> Result<Vec<Page>> {
    let mut whole = Args::command();
    whole.build();
    let mut pages = vec![page(whole.clone(), None)?];
    for verb in whole.get_subcommands() {
        pages.push(page(verb.clone(), Some(verb.get_name().to_owned()))?);
    }
    Ok(pages)
}

/// One page: what clap_mangen makes of the options, then our own sections.
fn page(command: Command, verb: Option<String>) -> Result<Page> {
    let name = match &verb {
        None => NAME.to_owned(),
        Some(verb) => format!("{NAME}-{verb}"),
    };
    // The examples have a section of their own below.
    let command = command
        .display_name(name.clone())
        .after_help(None::<&str>)
        .after_long_help(None::<&str>);
    let has_verbs = command.has_subcommands();
    let man = Man::new(command)
        .title(name.to_uppercase())
        .source("e2wire")
        .manual("User Commands");
    let mut roff = Vec::new();
    let written = man
        .render_title(&mut roff)
        .and_then(|()| man.render_name_section(&mut roff))
        .and_then(|()| man.render_synopsis_section(&mut roff))
        .and_then(|()| man.render_description_section(&mut roff))
        .and_then(|()| man.render_options_section(&mut roff))
        .and_then(|()| {
            if has_verbs {
                man.render_subcommands_section(&mut roff)?;
            }
            own_sections(verb.as_deref()).to_writer(&mut roff)
        });
    written.map_err(|error| {
        Error::new(ErrorKind::Internal, "cannot make the manual page")
            .because(error)
    })?;
    Ok(Page { name, roff })
}

fn own_sections(verb: Option<&str>) -> Roff {
    let mut roff = Roff::default();
    roff.control("SH", ["EXIT STATUS"]);
    for code in ExitCode::ALL {
        roff.control("TP", ["4"]);
        roff.text([bold(code.number().to_string())]);
        roff.text([roman(code.meaning())]);
    }
    if verb.is_none() {
        roff.control("SH", ["ENVIRONMENT"]);
        roff.control("TP", ["4"]);
        roff.text([bold("E2WIRE_TARGET")]);
        roff.text([roman("The target where --target is not given.")]);
    }
    let mut examples = EXAMPLES
        .iter()
        .filter(|example| verb.is_none_or(|verb| verb == example.verb))
        .peekable();
    if examples.peek().is_some() {
        roff.control("SH", ["EXAMPLES"]);
    }
    for example in examples {
        roff.control("PP", []);
        roff.text([roman(format!("{}:", example.what))]);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        roff.text([bold(example.line)]);
        roff.control("fi", []);
        roff.control("RE", []);
    }
    roff
}
