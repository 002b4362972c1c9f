//! Sectors that are hard to read, at the other end of a line.

use std::sync::{Arc, Mutex};

use e2wire::ext::BlockKind;
use e2wire::range_set::RangeSet;
use e2wire::remote::session::Session;
use e2wire::remote::source::RemoteDevice;
use e2wire::rescue::Rescue;
use e2wire::spool::{Identity, Spool, Store, StoreOptions};
use e2wire::stop::Stop;
use e2wire::units::ByteOffset;
use e2wire_tests::shared_file::SharedFile;
use e2wire_tests::sim::{Conditions, Faults, SimLine, World};

use super::{PATIENCE, cases, nature};
use crate::holes::image;

#[test]
fn over_a_line_the_most_important_is_tried_again_first_too() {
    let case = &cases()[0];
    let conditions = Conditions {
        bytes: Arc::clone(&case.bytes),
        bad: Vec::new(),
        disk_slow: 1000,
        baud: 921_600,
        latency: 5000,
        faults: Faults::default(),
        reboot_every: 0,
        trip: None,
    };
    let world = Arc::new(Mutex::new(World::new(7, &conditions)));
    let nature = nature(&world.lock().unwrap(), conditions.baud);
    let line = SimLine::new(Arc::clone(&world), nature, None);
    let mut session =
        Session::new(Box::new(line), [7; 32], PATIENCE, Stop::new());
    session.connect().unwrap();
    let device = session.devices(true).unwrap().remove(0);
    let session = Arc::new(Mutex::new(session));
    let device = RemoteDevice::new(session, device, ByteOffset(0)).unwrap();
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let identity = Identity::new().with("device", "sda3");
    let options = StoreOptions::new(ByteOffset(0), true);
    let store = Store::open(Box::new(data), Box::new(map), &identity, options);
    let spool = Spool::open(device, store.unwrap()).unwrap();

    // Where things are: an image of the same disk.
    let path = e2wire_tests::fixtures::fixture("ext4-1k-full").path;
    let disk = e2wire::local::LocalSource::open(&path, ByteOffset(0)).unwrap();
    let (right, walk, _) = image(&disk);
    let kinds = [
        BlockKind::InodeTable,
        BlockKind::Map,
        BlockKind::Directory,
        BlockKind::Journal,
        BlockKind::BlockBitmap,
    ];
    let weak: Vec<usize> = kinds
        .iter()
        .map(|kind| {
            let of_kind = walk.kind(*kind).unwrap();
            // None of them leads to another, or is read again in the end.
            let block = match kind {
                BlockKind::InodeTable | BlockKind::Journal => {
                    of_kind.last().unwrap()
                }
                _ => of_kind.runs().next().unwrap().first(),
            };
            block.0 as usize * 2
        })
        .collect();
    world.lock().unwrap().medium().weaken(weak.iter().copied(), 2);

    let rescue = Rescue::new(&spool, RangeSet::new());
    let (made, now, captured) = image(&rescue);
    assert!(captured.losses.is_empty(), "{:?}", captured.holes);
    assert!(made == right && now.selected == walk.selected);
    let attempts = world.lock().unwrap().medium().attempts().to_vec();
    let (first, again) = attempts.split_at(weak.len());
    let sorted = |of: &[usize]| {
        let mut all = of.to_vec();
        all.sort_unstable();
        all
    };
    // Each once, then each alone and each in the pass at the end.
    assert_eq!(sorted(first), sorted(&weak));
    assert_eq!(again, [&weak[..], &weak[..]].concat());
}
