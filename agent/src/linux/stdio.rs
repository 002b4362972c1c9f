//! The standard streams.
//!
//! rustix has them as safe functions only with its feature `std`.

use rustix::fd::BorrowedFd;

/// Standard output.
pub(crate) fn stdout() -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes a standard stream.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// Standard error.
pub(crate) fn stderr() -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes a standard stream.
    unsafe { BorrowedFd::borrow_raw(2) }
}
