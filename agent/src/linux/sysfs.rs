//! What the kernel tells of one block device in /sys. No udev.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use e2wire_agent::device::{DeviceFlags, DeviceKind};
use e2wire_protocol::limits::{LONG_TEXT_BYTES_MAX, TEXT_BYTES_MAX};
use heapless::String;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::io::Errno;

use super::file::Attribute;
use super::text::{Path, clean};

/// /sys counts the size and start of a device in these, whatever its sectors.
const UNIT_BYTES: u64 = 512;

/// A name, model, serial number.
pub(crate) type Text = String<TEXT_BYTES_MAX>;
/// A path or list of names.
pub(crate) type LongText = String<LONG_TEXT_BYTES_MAX>;

/// What was found out about a device.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// See `DeviceFacts` for these.
    pub(crate) name: Text,
    pub(crate) kind: DeviceKind,
    pub(crate) flags: DeviceFlags,
    pub(crate) size: u64,
    pub(crate) logical_sector: u32,
    pub(crate) physical_sector: u32,
    pub(crate) partition_start: u64,
    pub(crate) partition: u32,
    pub(crate) parent: Text,
    pub(crate) model: Text,
    pub(crate) serial: Text,
    pub(crate) wwn: Text,
    pub(crate) path: LongText,
    pub(crate) holders: LongText,
    /// Its number, as `st_rdev` of its node.
    pub(crate) rdev: u64,
    /// The kernel's count of disks ever seen when this one came; 0 where
    /// the kernel is older than 5.15.
    pub(crate) diskseq: u64,
}

impl Facts {
    /// Nothing known: all zeros, so that a static of it takes no place in the
    /// program file.
    pub(crate) const fn new() -> Self {
        Self {
            name: Text::new(),
            kind: DeviceKind::Disk,
            flags: DeviceFlags::NONE,
            size: 0,
            logical_sector: 0,
            physical_sector: 0,
            partition_start: 0,
            partition: 0,
            parent: Text::new(),
            model: Text::new(),
            serial: Text::new(),
            wwn: Text::new(),
            path: LongText::new(),
            holders: LongText::new(),
            rdev: 0,
            diskseq: 0,
        }
    }

    /// Whether `other` is the same device seen again, rather than another
    /// one in its place.
    pub(crate) fn is_same_device(&self, other: &Self) -> bool {
        self.name == other.name
            && self.rdev == other.rdev
            && self.diskseq == other.diskseq
            && self.partition_start == other.partition_start
    }
}

/// Calls `found` with the name of every block device the kernel knows.
pub(crate) fn for_each_device(mut found: impl FnMut(&CStr)) {
    for_each_in(c"/sys/class/block", &mut found);
}

/// Calls `found` with every name in the directory at `path`.
pub(crate) fn for_each_in(path: &CStr, found: &mut dyn FnMut(&CStr)) {
    if let Some(directory) = open_directory(CWD, path) {
        for_each_name(&directory, found);
    }
}

fn for_each_name(directory: &OwnedFd, found: &mut dyn FnMut(&CStr)) {
    let mut buffer = [const { MaybeUninit::uninit() }; 2048];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        if !name.to_bytes().starts_with(b".") {
            found(name);
        }
    }
}

fn open_directory(at: impl AsFd, path: &CStr) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty()).ok()
}

/// A device in /sys that is being asked.
pub(crate) struct Device {
    directory: OwnedFd,
    /// The directory of the whole disk, for a partition.
    disk: Option<OwnedFd>,
    /// Where the kernel keeps it: `devices/pci0000:00/.../block/sda/sda1`.
    place: Path,
}

impl Device {
    /// The device that the kernel calls `name`.
    pub(crate) fn by_name(name: &CStr) -> Option<Self> {
        Self::at(&[b"/sys/class/block/", name.to_bytes()])
    }

    /// The device with this number.
    pub(crate) fn by_number(rdev: u64) -> Option<Self> {
        let number = number_text(rdev)?;
        Self::at(&[PLACE_BY_NUMBER, number.as_bytes()])
    }

    fn at(parts: &[&[u8]]) -> Option<Self> {
        let link = Path::from_parts(parts)?;
        let directory = open_directory(CWD, link.as_c_str())?;
        let mut buffer = [const { MaybeUninit::uninit() }; 512];
        let (place, _) =
            readlinkat_raw(CWD, link.as_c_str(), &mut buffer[..]).ok()?;
        let mut place: &[u8] = place;
        while let Some(rest) = place.strip_prefix(b"../") {
            place = rest;
        }
        let place = Path::from_parts(&[place])?;
        let is_partition = Attribute::read(&directory, c"partition");
        let disk = (!is_partition.bytes().is_empty())
            .then(|| open_directory(&directory, c".."))
            .flatten();
        Some(Self { directory, disk, place })
    }

    fn disk(&self) -> BorrowedFd<'_> {
        self.disk.as_ref().unwrap_or(&self.directory).as_fd()
    }

    /// The last names of its place: its own and that of what it lies in.
    fn names(&self) -> (&[u8], &[u8]) {
        let mut parts = self.place.as_bytes().rsplit(|byte| *byte == b'/');
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    /// What changes while a device stays the same: cheap to ask, and nothing
    /// of it asks the disk itself.
    pub(crate) fn present_facts(&self) -> Option<Facts> {
        let here = self.directory.as_fd();
        let disk = self.disk();
        let number = |at, name| Attribute::read(at, name).number();
        let size = number(here, c"size")?.checked_mul(UNIT_BYTES)?;
        let sector = |name| {
            number(disk, name).and_then(|bytes| u32::try_from(bytes).ok())
        };
        let logical_sector = sector(c"queue/logical_block_size")
            .filter(|bytes| *bytes >= 512 && bytes.is_power_of_two())?;
        let (name, parent) = self.names();
        let mut facts = Facts {
            name: text(name),
            kind: self.kind(),
            size,
            logical_sector,
            physical_sector: sector(c"queue/physical_block_size")
                .unwrap_or(logical_sector)
                .max(logical_sector),
            diskseq: number(disk, c"diskseq").unwrap_or(0),
            rdev: rdev(Attribute::read(here, c"dev").bytes())?,
            flags: DeviceFlags::DIRECT,
            ..Facts::new()
        };
        if self.disk.is_some() {
            facts.parent = text(parent);
            facts.partition_start =
                number(here, c"start")?.checked_mul(UNIT_BYTES)?;
            facts.partition = number(here, c"partition")
                .and_then(|number| u32::try_from(number).ok())
                .unwrap_or(0);
        }
        for (set, flag) in [
            (Attribute::read(here, c"ro"), DeviceFlags::READ_ONLY),
            (Attribute::read(disk, c"removable"), DeviceFlags::REMOVABLE),
            (
                Attribute::read(disk, c"queue/rotational"),
                DeviceFlags::ROTATIONAL,
            ),
        ] {
            if set.is_set() {
                facts.flags = facts.flags.with(flag);
            }
        }
        self.find_holders(&mut facts);
        Some(facts)
    }

    fn kind(&self) -> DeviceKind {
        let has = |name| open_directory(&self.directory, name).is_some();
        if self.disk.is_some() {
            DeviceKind::Partition
        } else if has(c"dm") {
            DeviceKind::Mapper
        } else if has(c"md") {
            DeviceKind::Md
        } else if self.names().0.starts_with(b"loop") {
            DeviceKind::Loop
        } else if has(c"device") {
            DeviceKind::Disk
        } else {
            DeviceKind::Other
        }
    }

    fn find_holders(&self, facts: &mut Facts) {
        let Some(holders) = open_directory(&self.directory, c"holders") else {
            return;
        };
        for_each_name(&holders, &mut |name| {
            facts.flags = facts.flags.with(DeviceFlags::IN_USE);
            let name = clean(name.to_bytes(), TEXT_BYTES_MAX);
            // Those that do not fit any more are left out whole.
            let room =
                facts.holders.capacity().saturating_sub(facts.holders.len());
            if name.len() < room {
                if !facts.holders.is_empty() {
                    let _ = facts.holders.push(' ');
                }
                let _ = facts.holders.push_str(name);
            }
        });
    }

    /// What never changes: who made it, and how to tell it from others.
    /// Asked once for each device, since some drivers ask the disk for its
    /// serial number, and a disk that hangs does not answer.
    pub(crate) fn find_identity(&self, facts: &mut Facts) {
        let disk = self.disk();
        let first = |names: &[&CStr]| {
            names
                .iter()
                .map(|name| text(Attribute::read(disk, name).bytes()))
                .find(|text| !text.is_empty())
                .unwrap_or_default()
        };
        let vendor = first(&[c"device/vendor"]);
        let model = first(&[c"device/model", c"device/name"]);
        // "ATA" says nothing, and virtio's vendor is a number.
        if !vendor.is_empty()
            && vendor != "ATA"
            && !vendor.starts_with("0x")
            && facts.model.push_str(&vendor).is_ok()
        {
            let _ = facts.model.push(' ');
        }
        for c in model.chars() {
            let _ = facts.model.push(c);
        }
        facts.serial = first(&[c"serial", c"device/serial"]);
        if facts.serial.is_empty() {
            // SCSI: a vital product data page with a header of 4 bytes.
            let page = Attribute::read(disk, c"device/vpd_pg80");
            facts.serial = text(page.bytes().get(4..).unwrap_or_default());
        }
        facts.wwn = first(&[c"wwid", c"device/wwid"]);
        facts.path = self.bus_path();
    }

    /// Where it is attached, or else what names it.
    fn bus_path(&self) -> LongText {
        for name in [c"dm/uuid", c"md/uuid", c"loop/backing_file"] {
            let attribute = Attribute::read(self.disk(), name);
            let text = long_text(attribute.bytes());
            if !text.is_empty() {
                return text;
            }
        }
        let (name, parent) = self.names();
        let mut place = self.place.as_bytes();
        if self.disk.is_some() {
            place = without_last(without_last(place, name), parent);
        } else if !place.starts_with(b"devices/virtual/") {
            // A virtual device has nothing but its name.
            place = without_last(place, name);
        }
        let place = without_last(place, b"block");
        let place = place.strip_prefix(b"devices/").unwrap_or(place);
        // The end of a long path tells more than its beginning.
        let from = place.len().saturating_sub(LONG_TEXT_BYTES_MAX);
        long_text(place.get(from..).unwrap_or_default())
    }
}

/// `path` without its last part, if that is `part`.
fn without_last<'a>(path: &'a [u8], part: &[u8]) -> &'a [u8] {
    path.strip_suffix(part)
        .and_then(|path| path.strip_suffix(b"/"))
        .unwrap_or(path)
}

/// The number in an attribute like `8:1`.
fn rdev(attribute: &[u8]) -> Option<u64> {
    let mut parts = attribute.split(|byte| *byte == b':');
    let major = super::text::number(parts.next()?)?;
    let minor = super::text::number(parts.next()?)?;
    Some(rustix::fs::makedev(
        u32::try_from(major).ok()?,
        u32::try_from(minor).ok()?,
    ))
}

/// As much of `bytes` as a short text holds.
pub(crate) fn text(bytes: &[u8]) -> Text {
    Text::try_from(clean(bytes, TEXT_BYTES_MAX)).unwrap_or_default()
}

/// As much of `bytes` as a long text holds.
pub(crate) fn long_text(bytes: &[u8]) -> LongText {
    LongText::try_from(clean(bytes, LONG_TEXT_BYTES_MAX)).unwrap_or_default()
}

/// Whether another device is made of the one with this number.
pub(crate) fn has_holders(rdev: u64) -> bool {
    let mut any = false;
    if let Some(device) = by_number(rdev)
        && let Some(holders) = open_directory(&device, c"holders")
    {
        for_each_name(&holders, &mut |_| any = true);
    }
    any
}

/// Whether the kernel refuses writes to the device with this number.
pub(crate) fn is_read_only(rdev: u64) -> bool {
    by_number(rdev)
        .is_some_and(|device| Attribute::read(&device, c"ro").is_set())
}

fn by_number(rdev: u64) -> Option<OwnedFd> {
    let number = number_text(rdev)?;
    let path = Path::from_parts(&[PLACE_BY_NUMBER, number.as_bytes()])?;
    open_directory(CWD, path.as_c_str())
}

/// Where the kernel keeps devices by their numbers.
const PLACE_BY_NUMBER: &[u8] = b"/sys/dev/block/";

/// A number as it is there.
fn number_text(rdev: u64) -> Option<String<32>> {
    let mut number = String::<32>::new();
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    core::fmt::write(&mut number, format_args!("{major}:{minor}")).ok()?;
    Some(number)
}

/// The facts of the plain file or device node at `path`, offered by name; of
/// a device without its identity.
///
/// # Errors
///
/// What the kernel says about the path; `NOTSUP` if it is neither.
pub(crate) fn named_facts(path: &Path) -> Result<Facts, Errno> {
    use rustix::fs::FileType;
    let stat = rustix::fs::stat(path.as_c_str())?;
    let name = path.as_bytes();
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => {
            let device = Device::by_number(stat.st_rdev).ok_or(Errno::NODEV)?;
            device.present_facts().ok_or(Errno::NODEV)
        }
        FileType::RegularFile => {
            let size = u64::try_from(stat.st_size).unwrap_or(0);
            let short = name.rsplit(|byte| *byte == b'/').next();
            let fits = name.len() <= TEXT_BYTES_MAX;
            Ok(Facts {
                name: text(if fits { name } else { short.unwrap_or(name) }),
                kind: DeviceKind::File,
                // What lies behind the last whole sector is no block of any
                // filesystem.
                size: size.saturating_sub(size % UNIT_BYTES),
                logical_sector: 512,
                physical_sector: 512,
                path: long_text(name),
                ..Facts::new()
            })
        }
        _ => Err(Errno::NOTSUP),
    }
}
