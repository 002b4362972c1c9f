//! The tables of an image that were used last.

use std::io;

use zerocopy::big_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use crate::image::mapped::ReadAt;
use crate::units::u64_from;

/// L1 entries that are read at a time.
const L1_PIECE: u64 = 4096;

/// L2 tables that are kept, at least one; as many as this many bytes hold.
const L2_BYTES_MAX: usize = 4 << 20;

/// A piece of the L1 table and some L2 tables.
#[derive(Default)]
pub(super) struct TableCache {
    /// The index of the first entry, and the entries.
    l1: Option<(u64, Vec<U64>)>,
    /// The place and the entries, the last used in front.
    l2: Vec<(u64, Vec<U64>)>,
}

impl TableCache {
    /// Entry `index` of the L1 table of `size` entries at `offset`.
    pub(super) fn l1(
        &mut self,
        file: &dyn ReadAt,
        offset: u64,
        index: u64,
        size: u64,
    ) -> io::Result<u64> {
        let first = index & !L1_PIECE.wrapping_sub(1);
        if self.l1.as_ref().is_none_or(|(known, _)| *known != first) {
            let count = size.saturating_sub(first).min(L1_PIECE);
            let mut piece =
                vec![U64::ZERO; usize::try_from(count).unwrap_or(0)];
            let at = offset.saturating_add(first.saturating_mul(8));
            self.l1 = None;
            file.read_at(at, piece.as_mut_bytes())?;
            self.l1 = Some((first, piece));
        }
        let entry = self.l1_from(index).first();
        Ok(entry.map_or(0, |entry| entry.get()))
    }

    /// How many entries from `index` on are zero, as far as is known without
    /// reading.
    pub(super) fn l1_zeros(&self, index: u64) -> u64 {
        let entries = self.l1_from(index).iter();
        u64_from(entries.take_while(|entry| entry.get() == 0).count())
    }

    fn l1_from(&self, index: u64) -> &[U64] {
        let Some((first, piece)) = &self.l1 else {
            return &[];
        };
        let slot = usize::try_from(index.saturating_sub(*first));
        piece.get(slot.unwrap_or(usize::MAX)..).unwrap_or(&[])
    }

    /// The L2 table at `place`.
    pub(super) fn l2(
        &mut self,
        file: &dyn ReadAt,
        place: u64,
        cluster_bits: u32,
    ) -> io::Result<&[U64]> {
        match self.l2.iter().position(|(known, _)| *known == place) {
            Some(0) => {}
            Some(index) => {
                if let Some(used) = self.l2.get_mut(..=index) {
                    used.rotate_right(1);
                }
            }
            None => {
                let bytes = 1_usize.wrapping_shl(cluster_bits);
                let mut table = self.spare(bytes);
                file.read_at(place, table.as_mut_bytes())?;
                self.l2.insert(0, (place, table));
            }
        }
        Ok(self.l2.first().map_or(&[], |(_, table)| table.as_slice()))
    }

    /// A table of zeros, in the room of the one used longest ago if there
    /// are enough.
    fn spare(&mut self, bytes: usize) -> Vec<U64> {
        let tables_max =
            L2_BYTES_MAX.checked_div(bytes).unwrap_or(1).clamp(1, 64);
        let old = match self.l2.len() >= tables_max {
            true => self.l2.pop(),
            false => None,
        };
        let mut table = old.map(|(_, table)| table).unwrap_or_default();
        table.resize(bytes / 8, U64::new_zeroed());
        table
    }
}
