//! Serial lines and consoles, raw.

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::termios::{
    ControlModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr,
};

use super::text::Path;

/// A serial line that is open.
pub(crate) struct Serial {
    /// Its descriptor.
    pub(crate) fd: OwnedFd,
    /// The speed it has.
    pub(crate) baud: u32,
}

/// Opens the line at `path` and makes it raw, at `baud` or at the speed that
/// the kernel's console gave it.
///
/// # Errors
///
/// `NOTTY` if it is no terminal; else what the kernel says.
pub(crate) fn open(path: &Path, baud: Option<u32>) -> Result<Serial, Errno> {
    // Without O_NONBLOCK, opening would wait for a carrier.
    let flags =
        OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(CWD, path.as_c_str(), flags, Mode::empty())?;
    let mut settings = tcgetattr(&fd)?;
    settings.make_raw();
    // No modem lines: rescue cables have three wires. What the host sends
    // while a process is not reading must not be answered by stop bytes.
    settings.control_modes.remove(
        ControlModes::CSIZE
            | ControlModes::PARENB
            | ControlModes::CSTOPB
            | ControlModes::HUPCL
            | ControlModes::CRTSCTS,
    );
    settings
        .control_modes
        .insert(ControlModes::CS8 | ControlModes::CLOCAL | ControlModes::CREAD);
    settings.special_codes[SpecialCodeIndex::VMIN] = 1;
    settings.special_codes[SpecialCodeIndex::VTIME] = 0;
    if let Some(baud) = baud {
        settings.set_speed(baud)?;
    }
    tcsetattr(&fd, OptionalActions::Now, &settings)?;
    let baud = tcgetattr(&fd)?.output_speed();
    Ok(Serial { fd, baud })
}
