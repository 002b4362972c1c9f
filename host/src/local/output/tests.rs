use super::*;
use crate::units::{ByteOffset, ByteRange};

fn options(overwrite: bool) -> OutputOptions<'static> {
    OutputOptions { overwrite, sync: false, sources: &[] }
}

#[test]
fn an_earlier_file_is_intact_until_the_new_one_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.raw");
    fs::write(&path, b"old").unwrap();
    let refused = LocalOutput::create(&path, options(false)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);

    let mut output = LocalOutput::create(&path, options(true)).unwrap();
    output.file().write_at(ByteOffset(0), b"new!").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    drop(output);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let mut output = LocalOutput::create(&path, options(true)).unwrap();
    output.file().write_at(ByteOffset(0), b"new!").unwrap();
    output.publish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new!");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_file_that_appears_meanwhile_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.raw");
    let output = LocalOutput::create(&path, options(false)).unwrap();
    fs::write(&path, b"somebody else's").unwrap();
    let refused = output.publish().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
}

#[test]
fn only_one_writes_and_the_source_is_never_the_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.raw");
    let mut first = LocalOutput::create(&path, options(false)).unwrap();
    let second = LocalOutput::create(&path, options(false)).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Refused);
    let sources = [first.file().identity().unwrap()];
    first.publish().unwrap();
    let link = folder.path().join("link");
    fs::hard_link(&path, &link).unwrap();
    let same =
        OutputOptions { overwrite: true, sync: false, sources: &sources };
    let refused = LocalOutput::create(&link, same).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
}

/// A manifest must be that of the image, or not be there.
#[test]
fn an_image_never_stands_beside_the_manifest_of_another() {
    for sync in [false, true] {
        let mut cut = 0;
        loop {
            let folder = tempfile::tempdir().unwrap();
            let image = folder.path().join("a.raw");
            let manifest = folder.path().join("a.raw.manifest.json");
            fs::write(&image, b"old").unwrap();
            fs::write(&manifest, b"old").unwrap();
            let options = OutputOptions { sync, ..options(true) };
            let outputs = [&image, &manifest].map(|path| {
                let mut output = LocalOutput::create(path, options).unwrap();
                output.file().write_at(ByteOffset(0), b"new").unwrap();
                output
            });
            let stale = [manifest.clone(), folder.path().join("a.digests")];
            let mut steps = steps(outputs.into(), &stale);
            let over = cut > steps.len();
            steps.truncate(cut);
            steps.into_iter().try_for_each(Step::run).unwrap();
            let held = fs::read(&image).unwrap();
            if let Ok(told) = fs::read(&manifest) {
                assert_eq!(told, held, "cut at {cut}");
            }
            if over {
                assert_eq!(fs::read(&manifest).unwrap(), b"new");
                break;
            }
            cut += 1;
        }
    }
}

#[test]
fn what_an_unfinished_run_left_is_not_emptied_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.raw");
    let mut output = LocalOutput::resume(&path, options(false)).unwrap();
    output.file().write_at(ByteOffset(0), b"half").unwrap();
    drop(output);
    fs::write(beside(&path, MAP_SUFFIX), b"map").unwrap();
    let refused = LocalOutput::create(&path, options(true)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    let mut output = LocalOutput::resume(&path, options(false)).unwrap();
    assert_eq!(output.file().length().unwrap(), ByteCount(4));
    output.abandon();
    assert!(!beside(&path, PART_SUFFIX).exists());
}

#[test]
fn a_discarded_range_reads_as_zeros_and_the_length_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.raw");
    let mut output = LocalOutput::create(&path, options(false)).unwrap();
    let file = output.file();
    file.write_at(ByteOffset(0), &[7; 20_000]).unwrap();
    let range = ByteRange::new(ByteOffset(100), ByteCount(15_000)).unwrap();
    file.discard(range).unwrap();
    let beyond = ByteRange::new(ByteOffset(19_000), ByteCount(9000)).unwrap();
    file.discard(beyond).unwrap();
    let mut bytes = [1; 20_000];
    file.read_at(ByteOffset(0), &mut bytes).unwrap();
    let expected = |at| match at {
        0..100 | 15_100..19_000 => 7,
        _ => 0,
    };
    assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == expected(at)));
}
