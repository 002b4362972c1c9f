use super::*;
use crate::ext::JournalMode;
use clap::Parser as _;

use crate::units::{BlockNumber, BlockSize};

fn job(line: &str) -> Result<Job> {
    let typed = line.split_whitespace();
    from_args(Args::try_parse_from(typed).expect(line))
}

fn image_request(line: &str) -> ImageRequest {
    match job(line).expect(line).task {
        Task::Image(request) => request,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn what_is_not_said_has_a_safe_meaning() {
    assert_eq!(
        image_request("e2wire image /dev/sda3 a.qcow2"),
        ImageRequest {
            device: "/dev/sda3".into(),
            output: Output::File("a.qcow2".into()),
            format: Some(Format::Qcow2),
            selection: Selection::Complete,
            journal: JournalMode::Full,
            scope: Scope::Metadata,
            superblock: None,
            block_size: None,
            full_tables: false,
            layout: Qcow2Layout::Compact,
            compression: Qcow2Compression::None,
            force: false,
            dry_run: false,
            overwrite: false,
            no_manifest: false,
            no_sync: false,
            map: None,
            retries: None,
            source_offset: ByteOffset(0),
            dest_offset: ByteOffset(0),
        }
    );
}

#[test]
fn the_old_part_of_a_journal_stays_behind_a_line() {
    let journal = |line| image_request(line).journal;
    assert_eq!(
        journal("e2wire -t tcp:h:1 image sda3 a.raw"),
        JournalMode::Live
    );
    assert_eq!(
        journal("e2wire -t tcp:h:1 image --journal full sda3 a.raw"),
        JournalMode::Full
    );
}

#[test]
fn every_option_of_image_arrives_in_the_request() {
    assert_eq!(
        image_request(
            "e2wire image -a -b 32768 -B 4k -f -n --overwrite --format raw \
             --select e2image --journal live --source-offset 2048s --dest-offset 1M \
             --no-manifest --no-sync --map m --retries 3 d o"
        ),
        ImageRequest {
            device: "d".into(),
            output: Output::File("o".into()),
            format: Some(Format::Raw),
            selection: Selection::E2image,
            journal: JournalMode::Live,
            scope: Scope::Data,
            superblock: Some(BlockNumber(32768)),
            block_size: BlockSize::from_bytes(4096),
            full_tables: false,
            layout: Qcow2Layout::Compact,
            compression: Qcow2Compression::None,
            force: true,
            dry_run: true,
            overwrite: true,
            no_manifest: true,
            no_sync: true,
            map: Some("m".into()),
            retries: Some(3),
            source_offset: ByteOffset(1 << 20),
            dest_offset: ByteOffset(1 << 20),
        }
    );
    let request = image_request("e2wire image --qcow2-compress zstd d o.qcow2");
    assert_eq!(request.compression, Qcow2Compression::Zstd);
    let request =
        image_request("e2wire image --qcow2-layout classic d o.qcow2");
    assert_eq!(request.layout, Qcow2Layout::Classic);
    assert!(image_request("e2wire image d o.img --full-tables").full_tables);
    let normal = image_request("e2wire image d o.e2i --select e2image");
    assert!(normal.full_tables);
    assert_eq!(image_request("e2wire image d o.e2i").scope, Scope::Tables);
}

#[test]
fn contradictions_are_usage_errors_that_say_what_to_try() {
    for line in [
        "e2wire image d o",
        "e2wire image d o.tar",
        "e2wire image d -",
        "e2wire image --data d o.e2i",
        "e2wire image -b 8193 -B 1024 d o.e2i",
        "e2wire image --dest-offset 1M d o.qcow2",
        "e2wire image --qcow2-layout classic d o.img",
        "e2wire image --qcow2-compress zstd d o.img",
        "e2wire image --qcow2-layout classic --qcow2-compress zstd d o.qcow2",
        "e2wire convert a o",
        "e2wire convert a -",
        "e2wire convert a o.raw --qcow2-layout compact",
        "e2wire -t tcp:h:1 verify i",
        "e2wire -t serial:/dev/ttyS0 convert a o.img",
    ] {
        let error = job(line).expect_err(line);
        assert_eq!(error.kind(), ErrorKind::Usage, "{line}");
        assert!(error.what_to_try().is_some(), "{line}");
    }
}

#[test]
fn text_keeps_out_of_the_way_of_an_image() {
    let stream = |line: &str| job(line).expect(line).manner.text;
    assert_eq!(stream("e2wire image d - --format raw"), Stream::Stderr);
    assert_eq!(stream("e2wire convert a - --format raw"), Stream::Stderr);
    assert_eq!(stream("e2wire image d ./- --format raw"), Stream::Stdout);
    assert_eq!(stream("e2wire verify -"), Stream::Stdout);
}

#[test]
fn an_empty_name_is_no_output() {
    let typed = ["e2wire", "image", "d", "", "--format", "raw"];
    let args = Args::try_parse_from(typed).unwrap();
    assert_eq!(from_args(args).unwrap_err().kind(), ErrorKind::Usage);
}
