use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use e2wire_agent::device::DeviceKind;
use e2wire_protocol::units::{ByteCount, ByteOffset, ByteRange};

use super::*;

fn range(start: u64, length: u64) -> ByteRange {
    ByteRange::new(ByteOffset(start), ByteCount(length)).unwrap()
}

fn wait(disks: &Disks, slot: Slot) -> State<'_> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match disks.poll(slot) {
            State::Pending { .. } if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            state => return state,
        }
    }
}

// One test, since there is one pool in a process.
#[test]
fn files_and_disks_are_listed_and_read() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8, 20_000> =
        (0..20_000_u32).map(|i| (i / 512) as u8).collect();
    file.write_all(&content).unwrap();
    let path = file.path().as_os_str().as_bytes();
    let gone = tempfile::NamedTempFile::new().unwrap();
    gone.as_file().set_len(4096).unwrap();
    let gone_path = gone.path().as_os_str().as_bytes().to_vec();
    let named = [path, &gone_path, b"/nonexistent"]
        .map(|path| Path::from_parts(&[path]).unwrap());

    let mut disks = Disks::take(Vec::from_slice(&named).unwrap()).unwrap();
    disks.rescan();
    let facts = disks.facts(DeviceIndex(0)).unwrap();
    assert_eq!(facts.kind, DeviceKind::File);
    assert_eq!(facts.size, 19_968, "39 whole sectors");
    assert!(!facts.flags.has(DeviceFlags::DIRECT));
    assert_eq!(facts.path.as_bytes(), path);
    assert!(disks.facts(DeviceIndex(2)).is_none());

    // Two jobs on one file and one on another, at once.
    drop(gone);
    let ranges = [range(1024, 512), range(512, 1024), range(19_456, 512)];
    disks.submit(Slot(3), DeviceIndex(0), Job::Read(&ranges)).unwrap();
    disks.submit(Slot(0), DeviceIndex(0), Job::Flush).unwrap();
    let one = [range(0, 512)];
    disks.submit(Slot(5), DeviceIndex(1), Job::Read(&one)).unwrap();
    assert_eq!(
        disks.submit(Slot(3), DeviceIndex(0), Job::Flush),
        Err(DeviceFault::NoWorker),
        "the slot is in use"
    );
    let State::Read(read) = wait(&disks, Slot(3)) else {
        panic!("not read: {:?}", disks.poll(Slot(3)));
    };
    assert!(read.unreadable.is_empty());
    let numbers: std::vec::Vec<u8> =
        read.bytes.chunks(512).map(|sector| sector[0]).collect();
    assert_eq!(numbers, [2, 1, 2, 38]);
    assert!(matches!(wait(&disks, Slot(0)), State::Done));
    assert!(matches!(wait(&disks, Slot(5)), State::Failed(DeviceFault::Gone)));
    for slot in [0, 3, 5] {
        disks.release(Slot(slot));
    }

    // Slots are used again, also for a place that is empty.
    disks.submit(Slot(3), DeviceIndex(0), Job::Flush).unwrap();
    assert!(matches!(wait(&disks, Slot(3)), State::Done));
    disks.release(Slot(3));
    disks.rescan();
    assert!(disks.facts(DeviceIndex(1)).is_none(), "it is gone");
    assert_eq!(
        disks.submit(Slot(3), DeviceIndex(1), Job::Flush),
        Err(DeviceFault::Gone)
    );
}

#[test]
fn every_disk_of_this_machine_has_a_size_and_a_name() {
    // No pool: only what /sys says.
    let mut count = 0;
    sysfs::for_each_device(|name| {
        let device = Device::by_name(name).unwrap();
        let Some(mut facts) = device.present_facts() else {
            panic!("{name:?} tells nothing");
        };
        device.find_identity(&mut facts);
        assert_eq!(facts.name.as_bytes(), name.to_bytes());
        assert_eq!(facts.size % 512, 0);
        assert!(facts.physical_sector >= facts.logical_sector);
        assert!(!facts.path.is_empty());
        assert_eq!(facts.partition == 0, facts.parent.is_empty());
        count += 1;
    });
    assert!(count > 0, "this machine has no block device at all");
}

#[test]
fn names_become_nodes() {
    for (name, node) in
        [("sda1", c"/dev/sda1"), ("cciss!c0d0p1", c"/dev/cciss/c0d0p1")]
    {
        assert_eq!(device_path(name.as_bytes()).unwrap().as_c_str(), node);
    }
}
