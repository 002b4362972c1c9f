//! Writing through both builds of the agent.

use e2wire_protocol::chunk::SectorRange;
use e2wire_protocol::digest::{DeviceId, PlanId, RangeDigest};
use e2wire_protocol::limits::PATCH_BYTES_MAX;
use e2wire_protocol::message::{
    Arm, ArmedRange, Failure, InUse, Put, ReplyBody, RequestBody, Rights,
    Upload, Write, put_armed_range,
};
use e2wire_protocol::patch;

use crate::client::Client;
use crate::programs::{Agent, BUILDS, Disk};

const PLAN: PlanId = PlanId([3; 16]);

/// An answer in words.
fn ask(client: &mut Client, body: RequestBody, tail: &[u8]) -> String {
    client.ask_with(&body, tail, |body, _| match body {
        ReplyBody::Busy(_) => None,
        ReplyBody::Failed(failure) => Some(format!("{failure:?}")),
        other => Some(format!("{other:?}")),
    })
}

fn arm(client: &mut Client, device: DeviceId, first: u64, n: u64) -> String {
    let mut list = [0; 20];
    let range = ArmedRange { first, count: n };
    let length = put_armed_range(range, 0, &mut list).unwrap();
    let list = &list[..length];
    let ranges = Upload::of(list).unwrap();
    let arm = Arm { device, plan: PLAN, bytes: 1 << 30, ranges };
    ask(client, RequestBody::Arm(arm), list)
}

fn write(
    client: &mut Client,
    device: DeviceId,
    first: u64,
    (old, new): (&[u8], &[u8]),
) -> String {
    let mut bytes = vec![0; PATCH_BYTES_MAX];
    let length = patch::write(old, new, &mut bytes).unwrap();
    let bytes = &bytes[..length];
    let upload = Upload::of(bytes).unwrap();
    let count = u32::try_from(new.len() / 512).unwrap();
    let body = RequestBody::Write(Write {
        device,
        plan: PLAN,
        range: SectorRange::new(first, count).unwrap(),
        old: RangeDigest::of(old),
        new: RangeDigest::of(new),
        patch: upload,
    });
    if length <= 8192 {
        return ask(client, body, bytes);
    }
    for (at, slice) in (0..).step_by(8192).zip(bytes.chunks(8192)) {
        let put = RequestBody::Put(Put { upload, at });
        assert_eq!(ask(client, put, slice), "Done");
    }
    ask(client, body, &[])
}

#[test]
fn an_armed_session_writes_and_nobody_else() {
    for build in BUILDS {
        let disk = Disk::new(1 << 20);
        let before = disk.bytes.clone();
        let mut new = before.clone();
        new[64 * 512 + 9..64 * 512 + 99].fill(1);
        new[256 * 512..768 * 512].iter_mut().for_each(|byte| *byte ^= 0x5a);
        let on_disk = || std::fs::read(disk.path()).unwrap();

        let arguments = ["--device", disk.path()];
        let (_agent, mut client) = Agent::over_pipes(build, &arguments);
        assert!(!client.hello().rights.has(Rights::WRITE));
        let id = client.devices()[0].id;
        let refused = format!("{:?}", Failure::Rights(Rights::WRITE));
        assert_eq!(arm(&mut client, id, 0, 2048), refused);

        let arguments = ["--rw", "--device", disk.path()];
        let (_agent, mut client) = Agent::over_pipes(build, &arguments);
        assert!(client.hello().rights.has(Rights::WRITE));
        assert_eq!(client.devices()[0].id, id);
        let sides = |first: usize, count: usize| {
            let bytes = first * 512..(first + count) * 512;
            (&before[bytes.clone()], &new[bytes])
        };
        let small = sides(64, 8);
        assert_eq!(write(&mut client, id, 64, small), "NotArmed");
        assert_eq!(arm(&mut client, id, 64, 704), "Done");
        assert_eq!(write(&mut client, id, 0, sides(0, 8)), "Outside");
        assert!(on_disk() == before);
        assert_eq!(write(&mut client, id, 64, small), "Written");
        assert_eq!(write(&mut client, id, 64, small), "AlreadyThere");
        let conflict = write(&mut client, id, 64, (&[1; 512], &[2; 512]));
        assert!(conflict.starts_with("Conflict"), "{conflict}");
        assert_eq!(write(&mut client, id, 256, sides(256, 512)), "Written");
        assert_eq!(ask(&mut client, RequestBody::Flush(id), &[]), "Done");
        assert!(on_disk() == new, "{build:?}");
        assert_eq!(ask(&mut client, RequestBody::Disarm(id), &[]), "Done");
        assert_eq!(write(&mut client, id, 64, small), "NotArmed");
    }
}

fn root(program: &str, words: &[&str]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = std::process::Command::new(program)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .args(words)
        .output()
        .unwrap_or_else(|e| panic!("{program} (Debian: mount): {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}, as root: {said}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A loop device, and what is undone when it goes.
struct Loop {
    device: String,
    used: Option<(&'static str, String)>,
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Some((program, place)) = self.used.take() {
            root(program, &[&place]);
        }
        root("losetup", &["--detach", &self.device]);
    }
}

#[test]
fn a_device_that_this_machine_uses_is_not_armed() {
    for build in BUILDS {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len(4 << 20).unwrap();
        let file = file.to_str().unwrap();
        let device = root("losetup", &["--find", "--show", file]);
        let mut looped = Loop { device, used: None };
        let device = looped.device.clone();
        // A number that was used before remembers that it was read-only.
        root("blockdev", &["--setrw", &device]);
        let arguments = ["--rw", "--device", &device];
        let (_agent, mut client) = Agent::over_pipes(build, &arguments);
        assert!(client.hello().rights.has(Rights::WRITE));
        let id = client.devices()[0].id;
        let refused = |how: InUse| format!("{:?}", Failure::InUse(how));

        root("mkswap", &["--quiet", &device]);
        root("swapon", &[&device]);
        looped.used = Some(("swapoff", device.clone()));
        assert_eq!(arm(&mut client, id, 0, 8), refused(InUse::Swap));
        root("swapoff", &[&device]);
        looped.used = None;

        root("mke2fs", &["-q", "-F", &device]);
        let place = folder.path().join("mounted");
        std::fs::create_dir(&place).unwrap();
        let place = place.to_str().unwrap();
        root("mount", &["-t", "ext4", "-o", "ro", &device, place]);
        looped.used = Some(("umount", place.to_owned()));
        assert_eq!(arm(&mut client, id, 0, 8), refused(InUse::Mounted));
        root("umount", &[place]);
        looped.used = None;

        let held = rustix::fs::open(
            device.as_str(),
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::EXCL,
            rustix::fs::Mode::empty(),
        );
        let held = held.unwrap();
        assert_eq!(arm(&mut client, id, 0, 8), refused(InUse::Exclusive));
        drop(held);
        assert_eq!(arm(&mut client, id, 0, 8), "Done");
    }
}
