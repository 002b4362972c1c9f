//! What goes wrong on the way: kernel messages inside of frames, a restart in
//! mid-image, disks that hang or are broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use e2wire_tests::desk::{Desk, Job, PATIENCE};
use e2wire_tests::kernels::Flavour;
use e2wire_tests::oracle;
use e2wire_tests::qemu::{Bus, Disk, Machine, NbdServer, Port, Qmp};
use e2wire_tests::scene::Scene;
use e2wire_tests::tools;

use super::{disk, nvme, type_at};

/// Makes the kernel say something, again and again: an interrupt that nobody
/// can explain is told of at the highest level.
struct Noise {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u32>>,
}

impl Noise {
    fn start(mut monitor: Qmp) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                monitor.execute("inject-nmi", &serde_json::json!({}))?;
                count += 1;
                std::thread::sleep(Duration::from_millis(40));
            }
            Ok(count)
        });
        Self { stop, thread }
    }

    /// How many messages were forced.
    fn stop(self) -> Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the thread does not panic")
    }
}

#[test]
fn kernel_messages_inside_of_frames_cost_only_those_frames() {
    let disk = disk("ext4-4k-full");
    let scene = Scene::new(Flavour::Cloud).unwrap().noisy();
    let (mut machine, desk, device) = nvme(scene.builder(), disk.path());
    let noise = Noise::start(machine.monitor().unwrap());
    let data = ["--data"];
    let said = desk.image(&data, &device, disk.path(), "noisy.raw").unwrap();
    let messages = noise.stop().unwrap();
    assert!(messages > 5, "only {messages} messages were forced");
    // It was the line itself that was shared, and nothing of it is lost.
    assert!(said.console().contains("NMI received"), "{said:#?}");

    // A BREAK and the letter that would restart the machine, if the agent
    // had left that open.
    machine.send_break(0).unwrap();
    type_at(&machine, 0, b"b");
    let said = desk.run(&["probe"]).unwrap().expect(0).unwrap();
    assert!(!said.console().contains("sysrq: Resetting"), "{said:#?}");
    assert!(machine.runs().unwrap());
    assert!(!machine.console(0).contains("sysrq: Resetting"));
}

/// A filesystem whose image takes a serial port some seconds, since nothing
/// makes it shorter.
fn incompressible() -> tempfile::NamedTempFile {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = vec![0; 4 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    std::fs::write(folder.path().join("file"), bytes).unwrap();
    let disk = tempfile::NamedTempFile::new().unwrap();
    let output = tools::command("mke2fs")
        .args(["-q", "-F", "-d"])
        .arg(folder.path())
        .arg(disk.path())
        .arg("8M")
        .output()
        .unwrap();
    oracle::assert_success("mke2fs", &output);
    disk
}

/// Waits until some, but not all of an image has come over the line.
fn wait_for_middle(job: &mut Job, machine: &Machine) {
    job.wait_for("the middle of the image", |event| {
        let done = event["done_bytes"].as_u64().unwrap_or(0);
        let total = event["total_bytes"].as_u64().unwrap_or(0);
        event["type"] == "progress" && done > 0 && done < total
    })
    .unwrap();
    // Nothing more comes from now on, however slow we are.
    machine.pause().unwrap();
}

#[test]
fn after_a_restart_in_mid_image_the_same_command_finishes_it() {
    let disk = incompressible();
    let builder = Scene::new(Flavour::Cloud).unwrap().builder().restarts();
    let (mut machine, desk, device) = nvme(builder, disk.path());
    let image = ["image", "--data", &device, "image.raw"];
    let again = |machine: &Machine| {
        machine.reset().unwrap();
        machine.go_on().unwrap();
    };

    // The agent stays away for longer than the person wants to wait.
    let mut job =
        desk.start(&[&image[..], &["--wait", "1s"]].concat()).unwrap();
    wait_for_middle(&mut job, &machine);
    job.finish().unwrap().expect(8).unwrap();
    again(&machine);
    // The same command goes on; another restart does not even end it.
    let mut job = desk.start(&image).unwrap();
    wait_for_middle(&mut job, &machine);
    again(&machine);
    let said = job.finish().unwrap().expect(0).unwrap();
    assert!(said.warned_of("resumed"), "{said:#?}");
    desk.compare(&["--data"], disk.path(), "image.raw").unwrap();
    // What would only restart it would not be its end.
    desk.run(&["reboot", "--poweroff"]).unwrap().expect(0).unwrap();
    machine.wait_for_end(PATIENCE).unwrap();
}

#[test]
fn a_disk_that_stalls_leaves_the_line_alive() {
    let (slow, good) = (disk("ext4-1k"), disk("ext3-1k"));
    let server = NbdServer::start(slow.path()).unwrap();
    let machine = Scene::new(Flavour::Cloud)
        .unwrap()
        .builder()
        .port(Port::Socket)
        .port(Port::Socket)
        .disk(Disk::nbd(Bus::Virtio, &server, "SLOW"))
        .disk(Disk::file(Bus::Virtio, good.path(), "GOOD"))
        .start()
        .unwrap();
    let desk = Desk::at_port(&machine, 0).unwrap();
    let stalled = desk.disk("SLOW").unwrap();
    let healthy = desk.disk("GOOD").unwrap();
    server.stall().unwrap();
    // Whoever has no time is told what to do.
    let hasty = ["image", "--deadline", "4s", &stalled, "slow.raw"];
    let said = desk.run(&hasty).unwrap().expect(8).unwrap();
    assert!(said.warned_of("disk_slow"), "{said:#?}");
    let mut job = desk.start(&["image", &stalled, "slow.raw"]).unwrap();
    job.wait_for("a slow disk", |event| event["code"] == "disk_slow").unwrap();
    // The same agent reads the other disk for somebody else meanwhile.
    let other = Desk::at_port(&machine, 1).unwrap();
    other.image(&[], &healthy, good.path(), "good.raw").unwrap();
    server.resume().unwrap();
    job.finish().unwrap().expect(0).unwrap();
    desk.compare(&[], slow.path(), "slow.raw").unwrap();
}

#[test]
fn bad_sectors_are_holes_and_their_neighbours_are_read() {
    let disk = disk("ext4-4k-full");
    // One in a file, one in a directory; 8 sectors are a block.
    let sectors = ["/punched", "/crowd"].map(|path| {
        let list = oracle::debugfs(&[], &format!("blocks {path}"), disk.path());
        let blocks: Vec<&str> = list.split_whitespace().collect();
        blocks[3].parse::<u64>().unwrap() * 8 + 3
    });
    let machine = Scene::new(Flavour::Cloud)
        .unwrap()
        .builder()
        .port(Port::Socket)
        .disk(
            Disk::file(Bus::Nvme, disk.path(), "NVME0")
                .with_bad_sectors(&sectors),
        )
        .start()
        .unwrap();
    let desk = Desk::at_port(&machine, 0).unwrap();
    let device = desk.disk("NVME0").unwrap();
    let image = ["image", "--data", &device, "holes.raw"];
    let said = desk.run(&image).unwrap().expect(3).unwrap();
    assert_eq!(said.result()["lost_bytes"], 1024, "{said:#?}");
    let local = desk.local(&["--data"], disk.path(), "holes.raw").unwrap();
    let mut expected = std::fs::read(local).unwrap();
    for sector in sectors {
        let at = usize::try_from(sector).unwrap() * 512;
        assert!(expected[at..at + 512].iter().any(|byte| *byte != 0));
        expected[at..at + 512].fill(0);
    }
    let image = std::fs::read(desk.path("holes.raw")).unwrap();
    assert!(image == expected, "more or less than the bad sectors is lost");
}
