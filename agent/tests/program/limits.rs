//! The bounds of the agent, under load and under attack.

use std::time::Duration;

use e2wire_protocol::chunk::Codec;
use e2wire_protocol::coding::Coding;
use e2wire_protocol::frame::{self, Kind};
use e2wire_protocol::limits::LINE_BYTES_MAX;
use e2wire_protocol::message::{ListDevices, RequestBody};

use crate::programs::{Agent, BUILDS, Build, Disk};

/// All memory that an agent may ever use.
const MEMORY_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// xorshift: fast, and the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn reading_everything_at_every_level_stays_within_the_memory() {
    for build in BUILDS {
        let disks = [Disk::new(4 << 20), Disk::new(4 << 20)];
        let (agent, mut client) = Agent::over_pipes(
            build,
            &["--device", disks[0].path(), "--device", disks[1].path()],
        );
        client.hello();
        let devices = client.devices();
        for level in 0..=9 {
            let codec =
                if level == 0 { Codec::Stored } else { Codec::Zstd(level) };
            for (device, disk) in devices.iter().zip(&disks) {
                for first in (0..disk.bytes.len() / 512).step_by(512) {
                    let place = first.try_into().unwrap();
                    let body = client.fetch(device.id, place, 512, codec);
                    let bytes = &disk.bytes[first * 512..][..512 * 512];
                    assert!(body.ends_with(bytes), "{level} {first}");
                }
            }
        }
        let used = agent.high_water_bytes();
        println!("{build:?}: {used} bytes");
        assert!(used <= MEMORY_BYTES_MAX, "{build:?}: {used} bytes");
    }
}

/// Bytes at the lower end of the main stack, next to its guard page, that
/// must never have been touched; of a thread's, whose stack is small and
/// whose calls are few, a page.
const MAIN_MARGIN_BYTES: u64 = 48 * 1024;
const THREAD_MARGIN_BYTES: u64 = 4096;

/// Of everything that the agent does here no stack comes near its end. What
/// overflows dies at the guard page, and only where the deepest calls are
/// made: on a machine with real disks.
#[test]
fn stacks_have_room_left() {
    let build = Build::Freestanding;
    let disk = Disk::new(4 << 20);
    let (offered, mut client) =
        Agent::over_pipes(build, &["--rw", "--device", disk.path()]);
    client.hello();
    let device = client.devices()[0].id;
    for codec in [Codec::Stored, Codec::Zstd(1), Codec::Zstd(9)] {
        client.fetch(device, 0, 512, codec);
    }
    // Whatever block devices this machine has, looked into one by one.
    let (found, mut client) = Agent::over_pipes(build, &[]);
    client.hello();
    client.devices();
    for agent in [&offered, &found] {
        let (main, threads) = agent.unused_stack_bytes();
        println!("unused: {main} bytes of the main stack, {threads:?}");
        assert!(main >= MAIN_MARGIN_BYTES, "{main} bytes are left");
        assert!(main < 256 * 1024, "nothing ever ran on it");
        let least = threads.iter().min().unwrap();
        assert!(*least >= THREAD_MARGIN_BYTES, "{threads:?}");
    }
}

/// Frames that are well made and hold nonsense, and some that are neither.
fn hostile_frames(random: &mut Random, honest: &[Vec<u8>]) -> Vec<u8> {
    let mut all = Vec::new();
    for i in 0..1000 {
        let mut frame = match i % 4 {
            0 | 1 => {
                let length =
                    random.next() % if i % 40 == 0 { 16_000 } else { 60 };
                let message: Vec<u8> =
                    (0..length).map(|_| random.next() as u8).collect();
                let mut out = vec![0; LINE_BYTES_MAX];
                let n = frame::encode(
                    if i % 8 == 0 { Coding::Printable } else { Coding::Binary },
                    Kind::PlainRequest,
                    &[&message],
                    &mut out,
                )
                .unwrap();
                out.truncate(n);
                out
            }
            _ => honest[random.next() as usize % honest.len()].clone(),
        };
        if i % 4 == 3 {
            let at = random.next() as usize % frame.len();
            frame[at] ^= 1 << (random.next() % 8);
        }
        all.extend(frame);
    }
    all
}

#[test]
fn a_million_hostile_frames_change_nothing_for_the_next_honest_host() {
    for build in BUILDS {
        let disk = Disk::new(1 << 20);
        let (agent, mut client) =
            Agent::over_pipes(build, &["--device", disk.path()]);
        let facts = client.hello();
        let device = client.devices()[0].id;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let honest: Vec<Vec<u8>> = (0..64)
            .map(|i| {
                let body = match i % 3 {
                    0 => RequestBody::Cancel,
                    1 => RequestBody::Flush(device),
                    _ => RequestBody::Devices(ListDevices {
                        rescan: false,
                        first: i,
                        count: 4,
                    }),
                };
                client.frame_of(random.next() as u32, &body)
            })
            .collect();
        let frames = hostile_frames(&mut random, &honest);
        for _ in 0..1000 {
            client.send_raw(&frames);
        }
        // An end to whatever was left half said.
        client.send_raw(&[0, 0]);
        client.listen(Duration::from_millis(200));
        assert_eq!(client.hello().boot, facts.boot, "it was never restarted");
        let body = client.fetch(device, 0, 64, Codec::Zstd(3));
        assert!(body.ends_with(&disk.bytes[..64 * 512]));
        let used = agent.high_water_bytes();
        assert!(used <= MEMORY_BYTES_MAX, "{build:?}: {used} bytes");
    }
}
