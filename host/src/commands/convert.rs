//! `convert`: makes an image of another format out of an image.

use serde_json::Map;

use crate::commands::capture::Capture;
use crate::commands::destination::Destination;
use crate::commands::image::report_capture;
use crate::commands::{ConvertRequest, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::{Scope, Selection, Walk, WalkOptions, Walker};
use crate::image::format::Format;
use crate::image::{self, OpenImage};
use crate::observer::Observer;
use crate::source::SourceFacts;
use crate::stop::Stop;
use crate::units::{BlockNumber, BlockRun, ByteOffset};

/// Makes an image as `request` says. What the input holds is what the output
/// will hold; a normal image takes its tables out of it.
///
/// # Errors
///
/// [`ErrorKind::Refused`] when the input does not hold what the output
/// needs; else as for `image`.
pub fn convert(
    request: &ConvertRequest,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Report> {
    let format = request.output.format(request.format)?;
    let input = image::open(&request.input, None)?;
    let source = input.source();
    let mut capture = Capture::new(source, observer, stop);
    let walk = capture.walk(walker(format, source.facts()), None)?;
    let mut walk = hold(walk, format, &input)?;
    let destination = Destination {
        output: &request.output,
        format,
        dest_offset: ByteOffset(0),
        layout: request.layout,
        compression: request.compression,
        device: &request.input,
        source: source.facts(),
        overwrite: request.overwrite,
        no_sync: request.no_sync,
        no_manifest: request.no_manifest,
    };
    let (walk, captured) =
        destination.write(observer, &Map::new(), |sink| {
            capture.copy(&mut walk, sink)?;
            sink.finish()?;
            let captured = capture.finish(&walk)?;
            Ok((walk, captured))
        })?;
    Ok(report_capture(&walk, &captured, &destination.name(), format))
}

fn walker(format: Format, facts: &SourceFacts) -> Walker {
    Walker::new(WalkOptions {
        // The layout of a classic qcow2 file depends on what e2image counts.
        selection: Selection::E2image,
        scope: match format {
            Format::Normal => Scope::Tables,
            Format::Raw | Format::Qcow2 => Scope::Metadata,
        },
        device_length: Some(facts.length),
        ..WalkOptions::default()
    })
}

/// The walk with the selection that the output shall hold.
fn hold(mut walk: Walk, format: Format, input: &OpenImage) -> Result<Walk> {
    let size = walk.geometry.block_size;
    if format == Format::Normal {
        return Ok(walk);
    }
    let whole = BlockRun::new(BlockNumber(0), walk.geometry.blocks);
    let Some(whole) = whole else {
        return Err(Error::new(
            ErrorKind::NoFilesystem,
            "the filesystem in the image claims more blocks than there are",
        ));
    };
    walk.selected = input.stored.touched(size).runs_in(whole).collect();
    walk.marks = walk.marks.max(walk.selected.count().0);
    Ok(walk)
}
