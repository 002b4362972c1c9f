//! What would be written to a device, as people and scripts see it.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::listing::plan::{KindCost, rounded, row};
use crate::commands::writing::{KindWrites, WritePlan};
use crate::text;

/// So many stretches of groups are named.
const GROUPS_SHOWN_MAX: usize = 12;

/// A table of what would be written, and what confirms it.
pub(in crate::cli) fn write_table(plan: &WritePlan) -> String {
    let mut out = String::new();
    let mut line = |text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}", text::escape(text));
    };
    line(&format!("{} of {} to {}", plan.op, plan.image, plan.device));
    for remark in &plan.remarks {
        line(remark);
    }
    if plan.kinds.is_empty() {
        return out;
    }
    line("");
    for KindWrites { kind, blocks, bytes } in &plan.kinds {
        line(&row(kind.name(), *blocks, &text::bytes(*bytes)));
    }
    line(&row("in all", plan.blocks, &text::bytes(plan.bytes)));
    line("");
    if !plan.groups.is_empty() {
        line(&format!("Groups: {}.", groups(&plan.groups)));
    }
    line(&format!("It may take {}.", rounded(plan.estimate)));
    if let Some(token) = &plan.confirm {
        line(&format!(
            "What lies there now will be kept in {}",
            plan.undo.display()
        ));
        line("Nothing was written. To carry this out, add");
        line(&format!("  --confirm {token}"));
    } else {
        line("Nothing was written.");
    }
    out
}

/// Ascending numbers as stretches: `0, 3-7`.
fn groups(list: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for &group in list {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(group) => {
                *last = group;
            }
            _ => runs.push((group, group)),
        }
    }
    let shown = runs.iter().take(GROUPS_SHOWN_MAX);
    let mut words: Vec<String> = shown
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    if runs.len() > GROUPS_SHOWN_MAX {
        words.push(format!("... {} in all", list.len()));
    }
    words.join(", ")
}

/// What stands in the `plan` event; the names are the schema.
#[derive(Serialize)]
pub(in crate::cli) struct WritePlanEvent<'a> {
    op: &'static str,
    device: &'a str,
    image: &'a str,
    uuid: Option<&'a str>,
    blocks: u64,
    bytes: u64,
    kinds: Vec<KindCost>,
    groups: &'a [u32],
    seconds_est: f64,
    undo: String,
    plan: &'a str,
    remarks: &'a [String],
    confirm: Option<&'a str>,
}

impl<'a> WritePlanEvent<'a> {
    pub(in crate::cli) fn new(plan: &'a WritePlan) -> Self {
        Self {
            op: plan.op,
            device: &plan.device,
            image: &plan.image,
            uuid: plan.uuid.as_deref(),
            blocks: plan.blocks,
            bytes: plan.bytes.0,
            kinds: plan
                .kinds
                .iter()
                .map(|writes| KindCost {
                    kind: writes.kind.name(),
                    blocks: writes.blocks,
                    bytes: writes.bytes.0,
                })
                .collect(),
            groups: &plan.groups,
            seconds_est: plan.estimate.as_secs_f64(),
            undo: plan.undo.display().to_string(),
            plan: &plan.plan,
            remarks: &plan.remarks,
            confirm: plan.confirm.as_deref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn groups_are_told_as_stretches() {
        assert_eq!(groups(&[0, 3, 4, 5, 9]), "0, 3-5, 9");
        let odd: Vec<u32> = (0..100).map(|n| n * 2).collect();
        assert!(groups(&odd).ends_with("22, ... 100 in all"));
    }
}
