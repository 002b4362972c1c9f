//! The guards against a device that somebody uses, on devices of the real
//! kernel: each fails without its guard.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use e2wire_tests::agents::Build;
use e2wire_tests::rescue::{Ended, Rescue};
use e2wire_tests::tools::LoopDevice;
use e2wire_tests::{oracle, tools};

/// A filesystem on a block device, an image of it, and some damage.
struct Scene {
    rescue: Rescue,
    device: LoopDevice,
    image: String,
}

impl Scene {
    fn new() -> Self {
        let rescue = Rescue::new("ext4-1k-full");
        let image = rescue.image("a.qcow2", &["--journal", "full"]);
        let image = image.to_str().unwrap().to_owned();
        let device = LoopDevice::new(&rescue.disk);
        Self { rescue, device, image }
    }

    fn spoil(&self) {
        self.rescue.poke(2048 + 10, &[1; 4]);
    }

    fn run(&self, target: &str, options: &[&str]) -> Ended {
        let words = [&["install", &self.image, target], options].concat();
        self.rescue.run(&words)
    }

    /// Refused with these words before there is a token, and nothing was
    /// written.
    fn refused(&self, target: &str, words: &str) {
        let before = self.rescue.bytes();
        let ended = self.run(target, &[]);
        assert_eq!(ended.code, 5, "{}", ended.said);
        assert_eq!(ended.event("result")["status"], "refused");
        assert!(ended.said.contains(words), "{words}: {}", ended.said);
        assert!(!ended.said.contains("\"confirm\":\""), "{}", ended.said);
        assert!(self.rescue.bytes() == before, "written all the same");
    }

    /// A plan was made while nobody used it; now somebody does: the same
    /// words refuse it.
    fn refused_late(&self, target: &str, token: &str, words: &str) {
        let before = self.rescue.bytes();
        let ended = self.run(target, &["--confirm", token]);
        assert_eq!(ended.code, 5, "{}", ended.said);
        assert!(ended.said.contains(words), "{words}: {}", ended.said);
        assert!(self.rescue.bytes() == before, "written all the same");
    }
}

fn root(program: &str, words: &[&str]) {
    let output = oracle::run(tools::command(program).args(words));
    oracle::assert_success(program, &output);
}

/// Mounted as long as this lives.
struct Mounted(String);

impl Mounted {
    fn new(device: &str, options: &str, at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let at = at.to_str().unwrap();
        // Nothing of its own accord; and what mounting wrote is on the disk
        // before anybody looks.
        let options = format!("{options},noinit_itable,noatime");
        root("mount", &["-t", "ext4", "-o", &options, device, at]);
        root("sync", &["--file-system", at]);
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = tools::command("umount").arg(&self.0).status();
    }
}

#[test]
fn what_is_mounted_here_is_refused() {
    let scene = Scene::new();
    let device = scene.device.path();
    for options in ["rw", "ro"] {
        let at = scene.rescue.path("mounted");
        let mounted = Mounted::new(device, options, &at);
        scene.refused(device, "is mounted at");
        // The file that the device is made of is the same filesystem.
        scene.refused("disk", "attached as");
        drop(mounted);
    }
}

/// The first page of a swap area, which is never swapped to.
const SWAP_HEADER_BYTES: usize = 4096;

#[test]
fn swap_is_refused() {
    let scene = Scene::new();
    let device = scene.device.path();
    root("mkswap", &["--quiet", device]);
    root("swapon", &[device]);
    // Its header, where the superblock would go. Behind it the kernel puts
    // cold pages whenever it likes.
    let header = || scene.rescue.bytes()[..SWAP_HEADER_BYTES].to_vec();
    let before = header();
    let ended = scene.run(device, &[]);
    root("swapoff", &[device]);
    assert_eq!(ended.code, 5, "{}", ended.said);
    assert!(ended.said.contains("is swap space"), "{}", ended.said);
    assert!(header() == before, "written all the same");
}

/// `device`, opened so that nobody else can have it for itself.
fn held_alone(device: &str) -> File {
    let exclusive = rustix::fs::OFlags::EXCL.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(exclusive).open(device).unwrap()
}

#[test]
fn what_another_program_holds_is_refused_when_it_is_to_be_written() {
    let scene = Scene::new();
    scene.spoil();
    let device = scene.device.path();
    let token = scene.run(device, &[]).token();
    let held = held_alone(device);
    scene.refused_late(device, &token, "the system or another process");
    drop(held);
    let done = scene.run(device, &["--confirm", &token]);
    assert_eq!(done.code, 0, "{}", done.said);
}

#[test]
fn what_takes_no_writes_is_refused() {
    let scene = Scene::new();
    let device = scene.device.path();
    root("blockdev", &["--setro", device]);
    scene.refused(device, "is read-only");
    root("blockdev", &["--setrw", device]);
}

#[test]
fn what_another_device_is_made_of_is_refused() {
    let scene = Scene::new();
    let above = LoopDevice::new(Path::new(scene.device.path()));
    let words = format!("attached as {}", above.path());
    scene.refused(scene.device.path(), &words);
}

/// A program that is ended with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_disk_of_a_running_machine_is_refused() {
    let rescue = Rescue::new("ext4-1k-full");
    let image = rescue.image("a.qcow2", &[]);
    let image = image.to_str().unwrap();
    rescue.poke(2048 + 10, &[1; 4]);
    let words = ["install", image, "disk"];
    let token = rescue.run(&words).token();
    let confirmed = [&words[..], &["--confirm", &token]].concat();
    // What QEMU does to the disk of a machine.
    let mut qemu = tools::command("qemu-io");
    qemu.args(["-f", "raw"]).arg(&rescue.disk);
    qemu.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = Running(qemu.spawn().unwrap());
    let mut input = running.0.stdin.take().unwrap();
    let mut output = BufReader::new(running.0.stdout.take().unwrap());
    writeln!(input, "length").unwrap();
    input.flush().unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let before = rescue.bytes();
    let ended = rescue.run(&confirmed);
    assert_eq!(ended.code, 5, "{line}: {}", ended.said);
    assert!(ended.said.contains("is in use"), "{}", ended.said);
    assert!(rescue.bytes() == before);
    drop(running);
    let done = rescue.run(&confirmed);
    assert_eq!(done.code, 0, "{}", done.said);
}

/// The agent looks for itself, whatever its host believes: each plan is made
/// while nobody uses the device.
#[test]
fn the_agent_refuses_what_is_used_over_there() {
    let scene = Scene::new();
    scene.spoil();
    let device = scene.device.path();
    let program = Build::Hosted.path();
    let target = format!(
        "pipe:{} --stdio --insecure --rw --device {device}",
        program.display()
    );
    let line = ["-t", &target, "install", &scene.image, device];
    let planned = scene.rescue.run(&line);
    assert_eq!(planned.code, 5, "{}", planned.said);
    let token = planned.token();
    let confirm = [&line[..], &["--confirm", &token]].concat();
    let before = scene.rescue.bytes();
    let refused = |words: &str| {
        let ended = scene.rescue.run(&confirm);
        assert_eq!(ended.code, 5, "{}", ended.said);
        assert!(ended.said.contains(words), "{words}: {}", ended.said);
        assert!(scene.rescue.bytes() == before, "written all the same");
    };
    let held = held_alone(device);
    refused("opened it for itself alone");
    drop(held);
    root("blockdev", &["--setro", device]);
    refused("read-only");
    root("blockdev", &["--setrw", device]);
    let done = scene.rescue.run(&confirm);
    assert_eq!(done.code, 0, "{}", done.said);
}

/// Somebody who mounts it behind a plan's back.
#[test]
fn a_mount_over_there_is_refused() {
    let scene = Scene::new();
    let device = scene.device.path();
    let at = scene.rescue.path("mounted");
    let mounted = Mounted::new(device, "rw", &at);
    let target = format!(
        "pipe:{} --stdio --insecure --rw --device {device}",
        Build::Hosted.path().display()
    );
    let before = scene.rescue.bytes();
    let line = ["-t", &target, "install", &scene.image, device];
    let ended = scene.rescue.run(&line);
    assert_eq!(ended.code, 5, "{}", ended.said);
    assert!(ended.said.contains("mounted read/write"), "{}", ended.said);
    assert!(!ended.said.contains("\"confirm\":\""), "{}", ended.said);
    assert!(scene.rescue.bytes() == before);
    drop(mounted);
}

/// The number moves faster than an agent's memory of it.
#[test]
fn another_host_is_noticed_over_a_line() {
    let rescue = Rescue::new("mmp");
    let image = rescue.image("a.qcow2", &[]);
    let said = oracle::dumpe2fs(&["-h"], &rescue.disk);
    let number = |key: &str| -> u64 {
        let (_, rest) = said.split_once(key).expect(key);
        rest.trim_start().lines().next().unwrap().trim().parse().unwrap()
    };
    let at = number("MMP block number:") * number("Block size:");
    rescue.poke(number("Block size:") + 10, &[1; 4]);
    // s_mmp_interval and mmp_check_interval: a second.
    rescue.poke(1024 + 0x166, &[1, 0]);
    rescue.poke(at + 112, &[1, 0]);
    let disk = rescue.disk.clone();
    let over = std::sync::atomic::AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seq = 1_u32;
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                seq += 1;
                let seq = seq.to_le_bytes();
                e2wire_tests::rescue::poke(&disk, at + 4, &seq);
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        });
        let target = format!(
            "pipe:{} --stdio --insecure --rw --device {}",
            Build::Hosted.path().display(),
            disk.display()
        );
        let image = image.to_str().unwrap();
        let disk = disk.to_str().unwrap();
        let line = ["-t", &target, "install", "--allow-changed", image, disk];
        let ended = rescue.run(&line);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        ended
    });
    assert_eq!(ended.code, 5, "{}", ended.said);
    assert!(ended.said.contains("another host"), "{}", ended.said);
}
