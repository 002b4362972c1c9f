//! Static memory that is handed out once.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A static value that its first taker owns for the rest of the process.
pub(crate) struct Once<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: only the one taker ever reaches the value.
unsafe impl<T: Send> Sync for Once<T> {}

impl<T> Once<T> {
    /// Not taken yet.
    pub(crate) const fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// The value, for whoever asks first; later calls get `None`.
    #[expect(clippy::mut_from_ref, reason = "the flag makes it the only one")]
    pub(crate) fn take(&'static self) -> Option<&'static mut T> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        // SAFETY: the swap lets exactly one caller come here.
        Some(unsafe { &mut *self.value.get() })
    }
}
