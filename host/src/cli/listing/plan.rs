//! A plan as people and scripts see it.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::cli::listing::tree::content_facts;
use crate::commands::plan::{Cost, JournalCost, Plan};
use crate::text;

/// A table of what there is of each kind, with what it would cost.
pub(in crate::cli) fn table(plan: &Plan) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", text::escape(text));
    };
    let facts = content_facts(&plan.filesystem).join(", ");
    line(&format!("{}: {facts}", plan.source.name));
    let whole = plan.block_size.bytes_of(plan.filesystem_blocks);
    line(&format!(
        "{} blocks of {} bytes{}",
        plan.filesystem_blocks,
        plan.block_size,
        whole.map_or(String::new(), |whole| {
            format!(", {}", text::bytes(whole))
        })
    ));
    if plan.superblock_at.0 > 1 {
        line(&format!(
            "The superblock in block {} was used.",
            plan.superblock_at
        ));
    }
    line("");
    for Cost { kind, blocks, bytes } in &plan.kinds {
        line(&row(kind.name(), blocks.0, &text::bytes(*bytes)));
    }
    line(&row("in all", plan.blocks.0, &text::bytes(plan.bytes)));
    line("");
    if let Some(journal) = &plan.journal {
        line(&journal_line(journal));
    }
    if plan.blocks_beyond_end.0 > 0 {
        line(&format!(
            "{} of these blocks lie beyond the end of the device.",
            plan.blocks_beyond_end
        ));
    }
    if plan.findings > 0 {
        line(&format!(
            "{}: the filesystem is damaged, an image holds what can be \
             reached.",
            text::count(plan.findings, "finding")
        ));
    }
    line(&format!(
        "Read {} in {}; an image may take {}.",
        text::bytes(plan.read),
        rounded(plan.took),
        rounded(plan.estimate)
    ));
    out
}

/// What `--journal live` is good for here.
fn journal_line(journal: &JournalCost) -> String {
    let (all, live) = (text::bytes(journal.bytes), text::bytes(journal.live));
    if journal.saves().0 == 0 {
        return format!("The journal ({all}) is needed whole for a replay.");
    }
    format!(
        "Of the journal ({all}) a replay needs {live}: --journal live saves \
         {}, {} % of an image with all of it.",
        text::bytes(journal.saves()),
        journal.saves_percent()
    )
}

pub(super) fn rounded(time: Duration) -> String {
    match time.as_secs() {
        0 => "less than a second".to_owned(),
        seconds => text::duration(seconds),
    }
}

pub(super) fn row(name: &str, blocks: u64, size: &str) -> String {
    format!("  {name:<22} {blocks:>12} {size:>11}")
}

/// What stands in the `plan` event; the names are the schema.
#[derive(Serialize)]
pub(in crate::cli) struct PlanEvent<'a> {
    op: &'static str,
    device: &'a str,
    fs: &'static str,
    uuid: Option<&'a str>,
    label: Option<&'a str>,
    block_size: u64,
    filesystem_blocks: u64,
    superblock_at: u64,
    blocks: u64,
    bytes: u64,
    kinds: Vec<KindCost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journal_live_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_saves_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_saves_percent: Option<u64>,
    blocks_beyond_end: u64,
    findings: u64,
    read_bytes: u64,
    seconds_est: f64,
}

#[derive(Serialize)]
pub(super) struct KindCost {
    pub(super) kind: &'static str,
    pub(super) blocks: u64,
    pub(super) bytes: u64,
}

impl<'a> PlanEvent<'a> {
    pub(in crate::cli) fn new(plan: &'a Plan) -> Self {
        Self {
            op: "image",
            device: &plan.source.name,
            fs: plan.filesystem.kind.name(),
            uuid: plan.filesystem.uuid.as_deref(),
            label: plan.filesystem.label.as_deref(),
            block_size: plan.block_size.bytes_u64(),
            filesystem_blocks: plan.filesystem_blocks.0,
            superblock_at: plan.superblock_at.0,
            blocks: plan.blocks.0,
            bytes: plan.bytes.0,
            kinds: plan
                .kinds
                .iter()
                .map(|cost| KindCost {
                    kind: cost.kind.name(),
                    blocks: cost.blocks.0,
                    bytes: cost.bytes.0,
                })
                .collect(),
            journal_bytes: plan.journal.map(|it| it.bytes.0),
            journal_live_bytes: plan.journal.map(|it| it.live.0),
            live_saves_bytes: plan.journal.map(|it| it.saves().0),
            live_saves_percent: plan.journal.map(|it| it.saves_percent()),
            blocks_beyond_end: plan.blocks_beyond_end.0,
            findings: plan.findings,
            read_bytes: plan.read.0,
            seconds_est: plan.estimate.as_secs_f64(),
        }
    }
}
