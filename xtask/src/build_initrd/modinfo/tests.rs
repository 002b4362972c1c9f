//! Modules good and bad. The good ones are made here: a minimal relocatable
//! ELF file that holds one `.modinfo`.

use std::io::Write as _;

use super::*;
use crate::build_initrd::tests::made::module_elf;

#[test]
fn a_module_tells_its_needs() {
    let elf = module_elf(&[
        "license=GPL v2",
        "depends=virtio-ring,virtio",
        "softdep=pre: crc32c foo post: bar",
        "alias=pci:v00001AF4d*sv*sd*bc*sc*i*",
        "firmware=tigon/tg3.bin",
        "firmware=tigon/tg3_tso.bin",
        "vermagic=6.1.0-56-amd64 SMP preempt mod_unload modversions ",
        "noise",
    ]);
    let info = parse(&elf).unwrap();
    assert_eq!(info.depends, ["virtio_ring", "virtio"]);
    assert_eq!(info.soft_before, ["crc32c", "foo"]);
    assert_eq!(info.soft_after, ["bar"]);
    assert_eq!(info.firmware, ["tigon/tg3.bin", "tigon/tg3_tso.bin"]);
    assert_eq!(info.license, "GPL v2");
    assert_eq!(info.release, "6.1.0-56-amd64");
    assert_eq!(info.aliases.len(), 1);
}

#[test]
fn every_form_in_which_modules_are_shipped_is_read() {
    let elf = module_elf(&["license=GPL"]);
    let directory = tempfile::tempdir().unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
    xz.write_all(&elf).unwrap();
    let level = flate2::Compression::fast();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), level);
    gz.write_all(&elf).unwrap();
    for (name, bytes) in [
        ("m.ko", elf.clone()),
        ("m.ko.xz", xz.finish().unwrap()),
        ("m.ko.gz", gz.finish().unwrap()),
        ("m.ko.zst", zstd::encode_all(elf.as_slice(), 3).unwrap()),
    ] {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read_module(&path).unwrap(), elf, "{name}");
        assert_eq!(name_of_file(name).as_deref(), Some("m"), "{name}");
    }
    assert_eq!(name_of_file("m.o"), None);
    assert_eq!(name_of_file(".ko"), None);
}

#[test]
fn a_module_that_unpacks_without_end_is_refused() {
    let path = tempfile::NamedTempFile::with_suffix(".ko.zst").unwrap();
    let zeros = std::io::repeat(0).take(MODULE_SIZE_MAX + 1);
    zstd::stream::copy_encode(zeros, path.as_file(), 1).unwrap();
    let error = read_module(path.path()).unwrap_err();
    assert!(error.to_string().contains("256 MiB"), "{error}");
}

#[test]
fn a_broken_module_is_an_error_and_never_a_panic() {
    let elf = module_elf(&["license=GPL", "depends=a,b"]);
    for cut in 0..elf.len() {
        // Behind the section headers lies nothing that could be missed.
        drop(parse(&elf[..cut]));
    }
    for at in 0..elf.len() {
        for value in [0x00, 0x7f, 0x80, 0xff] {
            let mut broken = elf.clone();
            broken[at] = value;
            drop(parse(&broken));
        }
    }
    for (name, bytes) in [
        ("nothing", b"".as_slice()),
        ("a text", b"#!/bin/sh\n"),
        ("zeros", &[0; 4096]),
        ("half a header", &elf[..40]),
    ] {
        assert!(parse(bytes).is_err(), "{name}");
    }
}

#[test]
fn a_module_for_another_machine_is_named_so() {
    let mut elf = module_elf(&["license=GPL"]);
    elf[18] = 183; // e_machine: EM_AARCH64
    let error = parse(&elf).unwrap_err().to_string();
    assert!(error.contains("Aarch64"), "{error}");
}

#[test]
fn control_characters_never_leave_a_module() {
    let elf = module_elf(&["license=GPL\u{1b}[2J", "depends=a\nb"]);
    let info = parse(&elf).unwrap();
    assert_eq!(info.license, "GPL[2J");
    assert_eq!(info.depends, ["ab"]);
}
