//! Images written back: `install` and `undo` on real filesystems, beside
//! e2image and e2fsck.

mod cuts;
mod devices;
mod faults;
mod guards;
mod lines;
mod repair;
mod restore;
