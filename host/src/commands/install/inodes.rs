//! `--inodes`: what belongs to some inodes, and what else would be touched.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::block_set::BlockSet;
use crate::commands::install::InstallRequest;
use crate::commands::install::content::Content;
use crate::commands::install::identity::refused;
use crate::commands::install::request::InodeChoice;
use crate::commands::install::select::contains;
use crate::commands::paths;
use crate::error::Result;
use crate::ext::BlockKind;
use crate::ext::claims::{CLAIMS_MAX, Claim, is_owned};
use crate::observer::Observer;
use crate::stop::Stop;
use crate::text;

/// So many other inodes are named.
const NAMED_MAX: usize = 10;

/// The inodes that were chosen.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    /// Their numbers.
    pub(super) inodes: Vec<RangeInclusive<u32>>,
    /// The blocks that are theirs, but for those of inode tables.
    pub(super) blocks: BlockSet,
    /// What to know before confirming.
    pub(super) remarks: Vec<String>,
}

impl Chosen {
    /// What `request` chooses; `None` when it chooses no inodes.
    ///
    /// # Errors
    ///
    /// [`crate::error::ErrorKind::Refused`] when the image does not know
    /// them; else as walking the image.
    pub(super) fn of(
        request: &InstallRequest,
        content: &Content,
        observer: &dyn Observer,
        stop: &Stop,
    ) -> Result<Option<Self>> {
        let Some(list) = &request.inodes else { return Ok(None) };
        let mut owned = BlockSet::new();
        for (kind, blocks) in &content.walk.kinds {
            if is_owned(*kind) && (request.data || *kind != BlockKind::Data) {
                owned.union_with(blocks);
            }
        }
        let claims = content.claims(owned, observer, stop)?;
        if claims.len() >= CLAIMS_MAX {
            return Err(refused(
                "the filesystem has too much structure to tell what of it \
                 belongs to single inodes"
                    .to_owned(),
            )
            .hint("restrict the plan by --groups or --only instead"));
        }
        let inodes = numbers(list, content, &claims)?;
        let mut blocks = BlockSet::new();
        let is_ours = |claim: &&Claim| contains(&inodes, claim.inode);
        for claim in claims.iter().filter(is_ours) {
            blocks.insert_run(claim.run);
        }
        let remarks = remarks(&claims, &inodes, &blocks);
        Ok(Some(Self { inodes, blocks, remarks }))
    }
}

/// The numbers of what was chosen by number or path.
fn numbers(
    list: &[InodeChoice],
    content: &Content,
    claims: &[Claim],
) -> Result<Vec<RangeInclusive<u32>>> {
    let geometry = content.geometry();
    let last = geometry.groups.saturating_mul(geometry.inodes_per_group);
    let mut numbers = Vec::new();
    for choice in list {
        match choice {
            InodeChoice::Numbers(range) => {
                if *range.start() == 0 || *range.end() > last {
                    return Err(refused(format!(
                        "the filesystem has inodes 1 to {last}, not {} to {}",
                        range.start(),
                        range.end()
                    )));
                }
                numbers.push(range.clone());
            }
            InodeChoice::Path(path) => {
                let (source, size) = (content.source(), content.size());
                let found = paths::find(path, source, size, claims)?;
                let Some(inode) = found else {
                    return Err(refused(format!(
                        "no directory in the image leads to {path}"
                    ))
                    .hint(
                        "is the directory itself damaged, or in the inode \
                         (inline_data)? name the inode by its number",
                    ));
                };
                numbers.push(inode..=inode);
            }
        }
    }
    Ok(numbers)
}

fn remarks(
    claims: &[Claim],
    inodes: &[RangeInclusive<u32>],
    blocks: &BlockSet,
) -> Vec<String> {
    let mut remarks = vec![
        "Of the blocks of inode tables only the bytes of these inodes are \
         written: their neighbours stay as they are on the device."
            .to_owned(),
        "Bitmaps, descriptors and counts are no inode's, and stay as they \
         are: run e2fsck afterwards."
            .to_owned(),
    ];
    let mut others = BTreeSet::new();
    let mut shared = BlockSet::new();
    for claim in claims.iter().filter(|c| !contains(inodes, c.inode)) {
        for run in blocks.runs_in(claim.run) {
            shared.insert_run(run);
            others.insert(claim.inode);
        }
    }
    if !others.is_empty() {
        let named = others.iter().take(NAMED_MAX).map(ToString::to_string);
        let named: Vec<String> = named.collect();
        let more = match others.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        remarks.push(format!(
            "Other inodes claim {} of it as well: {}{more}.",
            text::count(shared.count().0, "block"),
            named.join(", ")
        ));
    }
    remarks
}
