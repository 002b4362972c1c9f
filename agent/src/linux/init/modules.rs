//! Kernel modules, in the order that was worked out when the initrd was made.

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::linux::file::Lines;
use crate::linux::text::Path;

/// Where `cargo xtask build-initrd` puts the list: a path a line.
const LIST: &core::ffi::CStr = c"/e2wire/modules.list";

/// `MODULE_INIT_COMPRESSED_FILE`, for kernels that unpack modules themselves.
const COMPRESSED: i32 = 4;

/// Loads every module of the list. One that does not load is told of and left
/// out: another may still lead to the disk.
pub(crate) fn load_all() {
    let mut lines = Lines::<512>::open(LIST);
    while let Some(line) = lines.next() {
        let Some(path) = Path::from_parts(&[line]) else {
            continue;
        };
        if path.as_bytes().is_empty() {
            continue;
        }
        match load(&path) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => defmt::warn!(
                "module {=[u8]:a} does not load: errno {=i32}",
                path.as_bytes(),
                error.raw_os_error()
            ),
        }
    }
    defmt::info!("modules loaded");
}

fn load(path: &Path) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let fd = openat(CWD, path.as_c_str(), flags, Mode::empty())?;
    let plain = path.as_bytes().ends_with(b".ko");
    rustix::system::finit_module(&fd, c"", if plain { 0 } else { COMPRESSED })
}
