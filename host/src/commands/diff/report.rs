//! The comparison, for people and for scripts.

use serde_json::{Value, json};

use crate::commands::diff::Sides;
use crate::commands::diff::compare::{Counts, Found, GroupChange};
use crate::commands::diff::fields::{self, FieldChange};
use crate::commands::diff::side::Side;
use crate::commands::{Outcome, Report};
use crate::ext::BlockKind;
use crate::text;
use crate::units::ByteOffset;

/// People are shown so many groups, and so many inodes.
const LINES_MAX: usize = 40;

/// Says what was found.
pub(super) fn report(
    found: &Found,
    sides: &Sides<'_>,
    shapes: &[(&'static str, [u64; 2])],
) -> Report {
    let outcome = match found.differs() || !shapes.is_empty() {
        true => Outcome::Differs,
        false => Outcome::Done,
    };
    let [left, right] = sides;
    let remarks = remarks(found, sides, shapes);
    let mut lines = vec![match outcome {
        Outcome::Done => format!(
            "{} and {} hold the same, as far as both hold it.",
            left.name, right.name
        ),
        _ => format!("{} -> {}", left.name, right.name),
    }];
    lines.extend(remarks.iter().cloned());
    differences(found, &mut lines);
    lines.extend(not_compared(found, sides));
    let mut report = Report::new(outcome);
    for line in lines {
        report = report.line(line);
    }
    let groups = found.groups.iter();
    let inodes = found.inodes.iter();
    report
        .fact("left", side_fact(left))
        .fact("right", side_fact(right))
        .fact("same_shape", shapes.is_empty())
        .fact("remarks", remarks)
        .fact("superblock", facts(&found.superblock))
        .fact("differing_blocks", found.blocks())
        .fact("kinds", kinds_fact(found))
        .fact("differing_groups", found.groups_total)
        .fact(
            "groups",
            groups.map(|(n, group)| group_fact(*n, group)).collect::<Vec<_>>(),
        )
        .fact("differing_inodes", found.inodes.count())
        .fact(
            "inodes",
            inodes.map(|(n, inode)| inode.fact(n)).collect::<Vec<_>>(),
        )
}

fn side_fact(side: &Side<'_>) -> Value {
    json!({ "name": side.name, "format": side.opened.what() })
}

fn facts(changes: &[FieldChange]) -> Vec<Value> {
    changes.iter().map(FieldChange::fact).collect()
}

fn kinds_fact(found: &Found) -> Vec<Value> {
    let kinds = found.kinds.iter();
    kinds
        .map(|(kind, counts)| {
            json!({
                "kind": kind.name(), "differing": counts.differing,
                "only_left": counts.only[0], "only_right": counts.only[1],
                "unreadable_left": counts.unreadable[0],
                "unreadable_right": counts.unreadable[1],
            })
        })
        .collect()
}

fn group_fact(number: u32, group: &GroupChange) -> Value {
    json!({
        "group": number, "fields": facts(&group.fields),
        "clusters_used_now": group.blocks[0],
        "clusters_free_now": group.blocks[1],
        "inodes_used_now": group.inodes[0],
        "inodes_free_now": group.inodes[1],
    })
}

/// What to know before the differences.
fn remarks(
    found: &Found,
    sides: &Sides<'_>,
    shapes: &[(&'static str, [u64; 2])],
) -> Vec<String> {
    let mut remarks = Vec::new();
    for side in sides {
        let name = &side.name;
        if side.opened.is_normal() {
            remarks.push(format!(
                "{name} is a normal image: only superblock, descriptors, \
                 bitmaps and inode tables were compared."
            ));
        }
        if side.walk.superblock_at != side.size().block_of(ByteOffset(1024)) {
            remarks.push(format!(
                "The first superblock of {name} is lost; its copy in block {} \
                 was followed.",
                side.walk.superblock_at
            ));
        }
        if side.walk.findings_total > 0 {
            remarks.push(format!(
                "{name} is damaged: {}.",
                text::count(side.walk.findings_total, "finding")
            ));
        }
    }
    if found.no_superblock {
        remarks.push("The superblocks cannot be compared.".to_owned());
    }
    let [left, right] = sides.each_ref().map(|side| &side.walk.geometry);
    if !shapes.is_empty() {
        let told: Vec<String> = shapes
            .iter()
            .map(|(name, [left, right])| format!("{name} {left} -> {right}"))
            .collect();
        remarks.push(format!(
            "The filesystems have different shapes ({}): beyond the \
             superblock nothing can be compared.",
            told.join(", ")
        ));
    } else if left.blocks != right.blocks {
        remarks.push(format!(
            "The filesystems have different sizes ({} and {} blocks).",
            left.blocks, right.blocks
        ));
    }
    remarks
}

fn differences(found: &Found, lines: &mut Vec<String>) {
    if !found.superblock.is_empty() {
        lines.push("superblock:".to_owned());
        let changes = found.superblock.iter();
        lines.extend(changes.map(|change| format!("  {}", change.sentence())));
    }
    let differing: Vec<_> =
        found.kinds.iter().filter(|(_, c)| c.differing > 0).collect();
    if !differing.is_empty() {
        lines.push("blocks that differ:".to_owned());
    }
    for (kind, counts) in differing {
        let count = counts.differing;
        lines.push(format!("  {:<22} {count:>8}", name_of(*kind)));
    }
    for (number, group) in found.groups.iter().take(LINES_MAX) {
        let told = group_sentence(group);
        if !told.is_empty() {
            lines.push(format!("group {number}: {told}"));
        }
    }
    more(lines, found.groups_total, "group");
    for (inode, change) in found.inodes.iter().take(LINES_MAX) {
        let name = change.name();
        let space = if name.is_empty() { "" } else { " " };
        lines.push(format!("inode {inode}{space}{name}:"));
        let told = change.lines().into_iter();
        lines.extend(told.map(|line| format!("  {line}")));
    }
    more(lines, found.inodes.count(), "inode");
}

/// What could not be compared: what only one side holds, or could be read
/// of.
fn not_compared(found: &Found, sides: &Sides<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut tell = |what: String, count: &dyn Fn(&Counts) -> u64| {
        let kinds = found.kinds.iter();
        let told: Vec<String> = kinds
            .filter(|(_, counts)| count(counts) > 0)
            .map(|(kind, c)| format!("{} {}", count(c), name_of(*kind)))
            .collect();
        if !told.is_empty() {
            lines.push(format!("{what}: {} (blocks).", told.join(", ")));
        }
    };
    for (index, side) in sides.iter().enumerate() {
        let name = &side.name;
        tell(format!("Not compared, since only {name} holds them"), &|c| {
            c.only[index]
        });
        tell(format!("Not compared, since {name} is unreadable there"), &|c| {
            c.unreadable[index]
        });
    }
    lines
}

const fn name_of(kind: BlockKind) -> &'static str {
    match kind {
        BlockKind::Data => "contents of files",
        kind => kind.name(),
    }
}

fn group_sentence(group: &GroupChange) -> String {
    let mut told = Vec::new();
    for (what, [used, free]) in
        [("block", group.blocks), ("inode", group.inodes)]
    {
        let counts = [(used, "used now"), (free, "free now")];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> =
            counts.map(|(count, now)| format!("{count} {now}")).collect();
        if !counts.is_empty() {
            told.push(format!("{what} bitmap: {}", counts.join(", ")));
        }
    }
    // The checksum of a bitmap follows from the bitmap.
    if told.is_empty() || group.fields.iter().any(|c| !c.is_checksum()) {
        told.insert(0, fields::sentence(&group.fields));
    }
    told.retain(|part| !part.is_empty());
    told.join("; ")
}

fn more(lines: &mut Vec<String>, total: u64, noun: &str) {
    let shown = LINES_MAX as u64;
    if total > shown {
        lines.push(format!(
            "... {} in all; --json lists the first 10,000",
            text::count(total, noun)
        ));
    }
}
