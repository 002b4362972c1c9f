//! The names of inodes, as far as the directories that are known tell.

use std::collections::HashMap;

use crate::commands::install::content::Content;
use crate::error::Result;
use crate::ext::BlockKind;
use crate::ext::directory::Entries;
use crate::text;
use crate::units::{BlockCount, BlockNumber, BlockRun};

/// The inode of the root directory.
const ROOT: u32 = 2;

/// So many directories deep at most: damaged ones can lead in a circle.
const DEPTH_MAX: usize = 256;

/// No more names than this are kept.
const NAMES_MAX: usize = 4 << 20;

/// One name of each inode, and the directory that it stands in.
#[derive(Debug, Default)]
pub(super) struct Paths {
    names: HashMap<u32, (u32, Vec<u8>)>,
}

impl Paths {
    /// Reads the directories of an image that was walked with a trace.
    ///
    /// # Errors
    ///
    /// When the image cannot be read at all.
    pub(super) fn of(content: &Content) -> Result<Self> {
        let size = content.size();
        let mut names = HashMap::new();
        let directories = content.walk.traced.iter();
        for part in directories.filter(|t| t.kind == BlockKind::Directory) {
            for block in part.physical..part.physical.saturating_add(part.count)
            {
                let run = BlockRun::new(BlockNumber(block), BlockCount(1));
                let place = run.and_then(|run| run.bytes(size));
                // What cannot be read tells no names.
                let Some(Ok(bytes)) = place.map(|place| content.bytes(place))
                else {
                    continue;
                };
                for entry in Entries::new(&bytes) {
                    let dots = matches!(entry.name, b"." | b"..");
                    if !dots && names.len() < NAMES_MAX {
                        names
                            .entry(entry.inode)
                            .or_insert((part.inode, entry.name.to_vec()));
                    }
                }
            }
        }
        Ok(Self { names })
    }

    /// The path of an inode from the root, if all of it is known.
    pub(super) fn path(&self, inode: u32) -> Option<String> {
        let mut parts = Vec::new();
        let mut at = inode;
        while at != ROOT {
            let (parent, name) = self.names.get(&at)?;
            parts.push(text::from_bytes(name));
            at = *parent;
            if parts.len() > DEPTH_MAX {
                return None;
            }
        }
        parts.reverse();
        Some(format!("/{}", parts.join("/")))
    }

    /// An inode as people know it.
    pub(super) fn describe(&self, inode: u32) -> String {
        match self.path(inode) {
            Some(path) => format!("inode {inode} ({path})"),
            None => format!("inode {inode}"),
        }
    }
}
