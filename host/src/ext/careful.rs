//! Inodes whose damaged maps e2image walks in its own order.

use std::collections::BTreeSet;

use super::inode::I_BLOCK_BYTES;
use super::maps::{Owner, Shape};

/// An inode with a map to follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    pub(super) owner: Owner,
    pub(super) shape: Shape,
    /// `i_block`.
    pub(super) root: [u8; I_BLOCK_BYTES],
}

/// How many inodes get the slow walk.
const SUSPECTS_MAX: usize = 4096;

/// Remembers, over a restart, which inodes need e2image's own order.
#[derive(Clone, Debug, Default)]
pub(super) struct Careful {
    /// These are walked one block after the other in this pass.
    pub(super) inodes: BTreeSet<u32>,
    /// These should have been.
    pub(super) suspects: BTreeSet<u32>,
    /// Where e2image gives up altogether there is no order to keep.
    pub(super) refused: bool,
    pub(super) queue: Vec<Suspect>,
}

impl Careful {
    pub(super) fn suspect(&mut self, inode: u32) {
        if self.suspects.len() < SUSPECTS_MAX {
            self.suspects.insert(inode);
        }
    }

    pub(super) fn takes(&mut self, suspect: &Suspect) -> bool {
        let takes = self.inodes.contains(&suspect.owner.inode);
        if takes {
            self.queue.push(*suspect);
        }
        takes
    }
}
