//! The undo file on a bad place, and the power gone at any step: nothing is
//! written to the device before the undo file is safe, and nothing is lost
//! after.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use e2wire::commands::Outcome;
use e2wire::commands::install::{
    Ended, InstallRequest, UndoRequest, install_to,
};
use e2wire::commands::undo::undo_on;
use e2wire::error::{ErrorKind, Result};
use e2wire::observer::Silent;
use e2wire::stop::Stop;
use e2wire_tests::fixtures::in_parallel;
use e2wire_tests::power::{Fault, Machine};
use e2wire_tests::rescue::Rescue;
use e2wire_tests::sim::Random;
use e2wire_tests::{oracle, tools};

/// A damaged disk with its image, in a machine of its own.
struct Scene {
    rescue: Rescue,
    image: PathBuf,
    good: Vec<u8>,
    bad: Arc<Vec<u8>>,
}

impl Scene {
    fn new() -> Self {
        let rescue = Rescue::new("ext4-1k-full");
        let image = rescue.image("a.qcow2", &[]);
        let good = rescue.bytes();
        // The superblock, descriptors, and what else lies in front.
        for at in [1024 + 0x78, 2048 + 100, 40 << 10, 200 << 10] {
            rescue.poke(at, &[0xA5; 8]);
        }
        rescue.poke(60 << 10, &[0x5A; 3000]);
        rescue.poke(150 << 10, &[0x5A; 30_000]);
        let bad = Arc::new(rescue.bytes());
        Self { rescue, image, good, bad }
    }

    /// What the undo file of this machine is called.
    fn undo(&self, name: &str) -> PathBuf {
        self.rescue.path(&format!("{name}.undo"))
    }

    fn install(
        &self,
        machine: &Machine,
        undo: &Path,
        confirm: Option<&str>,
    ) -> Result<Ended> {
        let request = InstallRequest {
            image: self.image.clone(),
            undo: Some(undo.to_owned()),
            audit: Some(self.rescue.path("audit")),
            confirm: confirm.map(ToOwned::to_owned),
            ..InstallRequest::default()
        };
        let (reached, stop) = (machine.reached(), Stop::new());
        install_to(&request, &reached, machine, &Silent, &stop)
    }

    fn token(&self) -> String {
        let machine = Machine::new(&self.bad, 0);
        let planned = self.install(&machine, &self.undo("token"), None);
        planned.unwrap().1.unwrap().confirm.unwrap()
    }

    /// Goes back to what lay there before, whatever lies there now.
    fn go_back(&self, machine: &Machine, undo: &Path, name: &str) {
        let run = |confirm: Option<String>| {
            let request = UndoRequest {
                file: undo.to_owned(),
                device: Some(PathBuf::from("/dev/simulated")),
                undo: Some(self.undo(&format!("{name}.back"))),
                audit: Some(self.rescue.path("audit")),
                confirm,
                ..UndoRequest::default()
            };
            let (reached, stop) = (machine.reached(), Stop::new());
            undo_on(&request, &reached, machine, &Silent, &stop).unwrap()
        };
        let (report, plan) = run(None);
        if report.outcome == Outcome::Unconfirmed {
            let (report, _) = run(plan.unwrap().confirm);
            assert_eq!(report.outcome, Outcome::Done, "{name}");
        }
        assert!(machine.bytes() == *self.bad, "{name}: not undone");
    }

    /// Cuts the power after `cut` steps; then goes on or back, where the
    /// power may fail once more.
    fn cut(&self, token: &str, cut: u64) -> [bool; 2] {
        let name = format!("cut {cut}");
        let undo = self.undo(&name);
        let mut random = Random::new(cut);
        let machine = Machine::new(&self.bad, cut);
        machine.switch_on(Some(cut));
        let ended = self.install(&machine, &undo, Some(token));
        ended.map(drop).unwrap_err();
        let now = machine.bytes();
        for (at, byte) in now.iter().enumerate() {
            let legal = [self.bad[at], self.good[at]].contains(byte)
                || (1024..2048).contains(&at);
            assert!(legal, "{name}: byte {at}");
        }
        let is_there = undo.exists();
        let lost = machine.lost() > 0;
        if !is_there {
            assert!(now == *self.bad && !lost, "{name}: written too early");
        }
        if is_there && random.below(2) == 0 {
            machine.switch_on(None);
            self.go_back(&machine, &undo, &name);
        } else {
            machine.switch_on(Some(1 + random.below(40)));
            let again = self.install(&machine, &undo, Some(token));
            if again.is_err() {
                machine.switch_on(None);
                let last = self.install(&machine, &undo, Some(token));
                let (report, _) =
                    last.unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(report.outcome, Outcome::Done, "{name}");
            }
            assert!(machine.bytes() == self.good, "{name}: not gone on with");
        }
        assert_eq!(machine.lost(), 0, "{name}: sectors stay unreadable");
        [is_there, lost]
    }
}

#[test]
fn a_power_cut_at_any_step_of_undo_file_and_device_loses_nothing() {
    let scene = Scene::new();
    let token = scene.token();
    let whole = Machine::new(&scene.bad, 0);
    let undo = scene.undo("whole");
    scene.install(&whole, &undo, Some(&token)).unwrap();
    assert!(whole.bytes() == scene.good);
    let steps = whole.steps();
    assert!((30..200).contains(&steps), "{steps} steps");
    scene.go_back(&whole, &undo, "whole");
    let cuts: Vec<u64> = (1..steps).collect();
    let seen = in_parallel(&cuts, |cut| scene.cut(&token, *cut));
    // All that can happen did.
    assert!(seen.iter().any(|[published, _]| !published));
    assert!(seen.iter().any(|[_, lost]| *lost));
}

#[test]
fn without_a_safe_undo_file_nothing_is_written() {
    let scene = Scene::new();
    let token = scene.token();
    let full = [0, 1, 2, 5, 9].map(Fault::Full);
    for fault in full.into_iter().chain([Fault::Sync]) {
        let machine = Machine::new(&scene.bad, 1);
        machine.set_fault(Some(fault));
        let undo = scene.undo("faulty");
        let ended = scene.install(&machine, &undo, Some(&token));
        let error = ended.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LocalIo, "{fault:?}: {error}");
        let intact = error.what_is_intact().unwrap_or_default();
        assert!(intact.contains("nothing was written"), "{fault:?}: {intact}");
        assert!(error.what_to_try().is_some_and(|s| s.contains("--undo")));
        assert_eq!(machine.disk_jobs(), 0, "{fault:?}");
        assert!(machine.bytes() == *scene.bad, "{fault:?}");
        let part = scene.rescue.path("faulty.undo.part");
        assert!(!undo.exists() && !part.exists(), "{fault:?}");
        // With room again, the same command does it.
        machine.set_fault(None);
        scene.install(&machine, &undo, Some(&token)).unwrap();
        assert!(machine.bytes() == scene.good, "{fault:?}");
        std::fs::remove_file(undo).unwrap();
    }
}

/// The program itself, with a place for the undo file that takes little or
/// nothing.
#[test]
fn an_undo_file_without_room_or_folder_is_exit_10() {
    let scene = Scene::new();
    let image = scene.image.to_str().unwrap();
    let words = ["install", image, "disk"];
    let token = scene.rescue.run(&words).token();
    let confirmed = [&words[..], &["--confirm", &token]].concat();
    let undo = format!("{image}.{token}.undo");
    let mut limited = tools::command("bash");
    let program = scene.rescue.e2wire(&[]);
    limited
        .current_dir(scene.rescue.path(""))
        .env("XDG_STATE_HOME", scene.rescue.path(""))
        // Two units of 1 KiB: less than the undo file has.
        .args(["-c", "ulimit -f 2; exec \"$@\"", "bash"])
        .arg(program.get_program())
        .args(&confirmed);
    let output = oracle::run(&mut limited);
    let said = oracle::text(&output);
    assert_eq!(output.status.code(), Some(10), "{said}");
    assert!(said.contains("undo file") && said.contains("--undo"), "{said}");
    assert!(scene.rescue.bytes() == *scene.bad);
    assert!(!Path::new(&undo).exists());
    // A folder that takes no files, and one that is not there.
    for place in ["/proc/a.undo", "nowhere/a.undo"] {
        let words = [&confirmed[..], &["--undo", place]].concat();
        let ended = scene.rescue.run(&words);
        assert_eq!(ended.code, 10, "{place}: {}", ended.said);
        assert!(scene.rescue.bytes() == *scene.bad, "{place}");
    }
    let done = scene.rescue.run(&confirmed);
    assert_eq!(done.code, 0, "{}", done.said);
    assert!(scene.rescue.bytes() == scene.good);
}
