//! The walker selects what e2image selects, block by block.

use std::ops::ControlFlow;

use e2wire::error::Result;
use e2wire::ext::walk::{Scope, Selection, Step, Walk, WalkOptions};
use e2wire::ext::{BlockKind, Findings, Walker};
use e2wire::local::source::LocalSource;
use e2wire::source::BlockSource;
use e2wire::stop::Stop;
use e2wire::transfer::Sweep;
use e2wire::units::{BlockNumber, BlockRun, ByteOffset};
use e2wire_tests::fixtures::{self, Fixture, in_parallel};
use e2wire_tests::oracle;

fn walk(fixture: &Fixture, options: WalkOptions) -> Result<Walk> {
    let offset = ByteOffset(fixture.offset());
    let source = LocalSource::open(&fixture.path, offset)?;
    let device_length = Some(source.facts().length);
    let mut walker = Walker::new(WalkOptions { device_length, ..options });
    let stop = Stop::new();
    let mut findings = Findings::default();
    loop {
        match walker.next_step()? {
            Step::Read(level) => {
                source.read(&level.ranges, &mut |piece| {
                    walker.supply(piece);
                    ControlFlow::Continue(())
                })?;
                if let Some(geometry) = walker.geometry() {
                    let sweep = Sweep {
                        source: &source,
                        stop: &stop,
                        blocks: Some(geometry.block_size),
                        checks: Some(&level.checks),
                    };
                    let found = sweep.run(&level.payload, &mut |_| Ok(()))?;
                    findings.join(found);
                }
            }
            Step::Restart => findings = Findings::default(),
            Step::Waiting => walker.resume(true),
            Step::Done => {
                let mut walk = walker.finish()?;
                walk.add_findings(findings);
                return Ok(walk);
            }
        }
    }
}

fn blocks(walk: &Walk) -> Vec<u64> {
    let each = |run: BlockRun| run.first().0..run.end().0;
    walk.selected.runs().flat_map(each).collect()
}

/// What only one of the two selects, in a few words.
fn difference(ours: &[u64], theirs: &[u64], walk: &Walk) -> String {
    let only = |left: &[u64], right: &[u64]| {
        let all: Vec<u64> = left
            .iter()
            .filter(|block| right.binary_search(block).is_err())
            .copied()
            .collect();
        let first: Vec<String> = all
            .iter()
            .take(12)
            .map(|block| match walk.kind_of(BlockNumber(*block)) {
                Some(kind) => format!("{block} ({kind})"),
                None => block.to_string(),
            })
            .collect();
        format!("{} blocks, {}", all.len(), first.join(" "))
    };
    format!(
        "only e2wire: {}\n  only e2image: {}",
        only(ours, theirs),
        only(theirs, ours)
    )
}

fn the_same_blocks(scope: Scope, option: &[&str]) {
    let fixtures = fixtures::build_all().unwrap();
    let results = in_parallel(&fixtures, |fixture| {
        let theirs =
            oracle::block_list(&fixture.path, fixture.offset(), option);
        let options = WalkOptions {
            selection: Selection::E2image,
            scope,
            ..WalkOptions::default()
        };
        let walk = walk(fixture, options).map_err(|e| e.to_string())?;
        // What e2image refuses, compat.rs lists; it can still be walked.
        let Ok(theirs) = theirs else { return Ok(false) };
        let ours = blocks(&walk);
        if ours == theirs {
            Ok(true)
        } else {
            Err(difference(&ours, &theirs, &walk))
        }
    });
    let mut compared = 0;
    let mut wrong = vec![];
    for (fixture, result) in fixtures.iter().zip(results) {
        match result {
            Ok(same) => compared += usize::from(same),
            Err(what) => wrong.push(format!("{}: {what}", fixture.recipe.name)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared >= 70, "compared only {compared} fixtures");
}

#[test]
fn the_blocks_of_e2image_are_selected() {
    the_same_blocks(Scope::Metadata, &[]);
}

#[test]
fn the_blocks_of_e2image_with_data_are_selected() {
    the_same_blocks(Scope::Data, &["-a"]);
}

/// Undamaged filesystems give no findings, and the default selection has
/// everything that e2image selects and what it forgets.
#[test]
fn nothing_is_found_wrong_with_sound_filesystems() {
    let fixtures = fixtures::build_all().unwrap();
    let mut wrong = vec![];
    for fixture in &fixtures {
        if oracle::e2fsck(&fixture.path).status != 0 {
            continue;
        }
        for scope in [Scope::Tables, Scope::Metadata, Scope::Data] {
            let name = fixture.recipe.name;
            let options = WalkOptions { scope, ..WalkOptions::default() };
            match walk(fixture, options) {
                Ok(walk) => wrong.extend(
                    walk.findings
                        .iter()
                        .map(|f| format!("{name}, {scope:?}: {f}")),
                ),
                Err(e) => wrong.push(format!("{name}: {e}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn complete_adds_what_hangs_on_orphans_and_in_attributes() {
    let added = |name: &str, kind: BlockKind| {
        let fixture = fixtures::fixture(name);
        let count = |selection| {
            let options = WalkOptions { selection, ..WalkOptions::default() };
            let walk = walk(&fixture, options).unwrap();
            walk.kind(kind).map_or(0, |set| set.count().0)
        };
        let complete = count(Selection::Complete);
        let e2image = count(Selection::E2image);
        assert!(complete > e2image, "{name}: {kind}: {complete} {e2image}");
    };
    added("orphans-indirect", BlockKind::Map);
    added("orphans-indirect", BlockKind::Directory);
    added("orphans-extents", BlockKind::Symlink);
    added("ea-inode", BlockKind::XattrInode);
}
