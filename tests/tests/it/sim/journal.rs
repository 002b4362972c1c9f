//! What a journal costs on a slow line: most of it lies elsewhere, too.

use std::sync::{Arc, Mutex};

use e2wire::remote::session::Session;
use e2wire::stop::Stop;
use e2wire_tests::shared_file::SharedFile;
use e2wire_tests::sim::{Conditions, Faults, SimLine, World};

use super::{Case, PATIENCE, cases, image_by, nature, spool};

const BAUD: u32 = 115_200;

/// The image over a clean line, and the bytes that the agent sent for it.
fn over_a_line(case: &Case, journal_last: bool) -> (Vec<u8>, u64) {
    let conditions = Conditions {
        bytes: Arc::clone(&case.bytes),
        bad: Vec::new(),
        disk_slow: 1000,
        baud: BAUD,
        latency: 50,
        faults: Faults::default(),
        reboot_every: 0,
        trip: None,
    };
    let world = Arc::new(Mutex::new(World::new(1, &conditions)));
    let nature = nature(&world.lock().unwrap(), BAUD);
    let line = SimLine::new(Arc::clone(&world), nature, None);
    let session = Session::new(Box::new(line), [7; 32], PATIENCE, Stop::new());
    let (data, map) = (SharedFile::default(), SharedFile::default());
    let spool = spool(session, &data, &map).unwrap();
    let image = image_by(&spool, &Stop::new(), journal_last).unwrap();
    let sent = world.lock().unwrap().tally().from_agent;
    (image, sent)
}

#[test]
fn what_a_journal_holds_twice_crosses_the_line_once() {
    let case = cases().last().unwrap();
    let (whole, whole_bytes) = over_a_line(case, false);
    let (image, bytes) = over_a_line(case, true);
    assert!(whole == case.image && image == case.image);
    assert!(bytes * 4 < whole_bytes * 3, "{bytes} and {whole_bytes} bytes");
}
