use super::*;
use clap::CommandFactory as _;

#[test]
fn the_definitions_do_not_contradict_each_other() {
    Args::command().debug_assert();
}

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(line.split_whitespace())
}

#[test]
fn short_help_fits_a_terminal_of_80_columns() {
    let mut command = Args::command().term_width(80);
    command.build();
    let mut commands = vec![command.clone()];
    commands.extend(command.get_subcommands().cloned());
    for command in commands {
        let help = command.clone().render_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}

#[test]
fn every_option_has_a_help_text() {
    let mut command = Args::command();
    command.build();
    for verb in command.get_subcommands() {
        assert!(verb.get_about().is_some(), "{}", verb.get_name());
        for argument in verb.get_arguments() {
            let help = argument.get_help();
            assert!(
                help.is_some(),
                "{} {}",
                verb.get_name(),
                argument.get_id()
            );
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let bad = [
        "e2wire",
        "e2wire frobnicate",
        "e2wire image",
        "e2wire image x",
        "e2wire image x y z",
        "e2wire image x y.img --format tar",
        "e2wire image x y.img -b 1",
        "e2wire image x y.img -b -1 -B 4096",
        "e2wire image x y.img -b 0x10 -B 4096",
        "e2wire image x y.img -B 1000",
        "e2wire image x y.img -B 128K",
        "e2wire image x y.img --source-offset -5",
        "e2wire image x y.img --source-offset 99999999T",
        "e2wire image x y.img --select all",
        "e2wire image x y.img -q -v",
        "e2wire -t gopher: image x y.img",
        "e2wire -t local:x image x y.img",
        "e2wire -t= image x y.img",
        "e2wire image x y.img --format raw --format raw",
        "e2wire completions tcsh",
        "e2wire man image --into .",
    ];
    for line in bad {
        assert!(parse(line).is_err(), "{line}");
    }
}

#[test]
fn global_options_may_stand_on_either_side_of_the_verb() {
    for line in [
        "e2wire -t local: --json -v --non-interactive verify x",
        "e2wire verify -t local: --json -v --non-interactive x",
        "e2wire verify x --target=local: --json --verbose --non-interactive",
    ] {
        let globals = parse(line).unwrap().globals;
        assert_eq!(globals.target, Some(Target::Local), "{line}");
        assert!(globals.json && globals.verbose && !globals.quiet, "{line}");
    }
}
