//! Who uses which block device: mounts and swap.

use super::file::Lines;

/// One use of a block device.
pub(crate) struct Use<'a> {
    /// Its number, as `st_rdev`; `None` for swap.
    pub(crate) rdev: Option<u64>,
    /// The kernel's name of the device, as far as the source names it.
    pub(crate) name: &'a [u8],
    /// Whether the filesystem may write to it.
    pub(crate) writes: bool,
}

/// Calls `found` for each mount and each swap space.
pub(crate) fn for_each_use(mut found: impl FnMut(&Use<'_>)) {
    let mut mounts = Lines::<4096>::open(c"/proc/self/mountinfo");
    while let Some(line) = mounts.next() {
        if let Some(mount) = parse_mount(line) {
            found(&mount);
        }
    }
    let mut swaps = Lines::<1024>::open(c"/proc/swaps");
    while let Some(line) = swaps.next() {
        let source = line.split(|byte| *byte == b' ').next();
        if let Some(name) = device_name(source.unwrap_or_default()) {
            found(&Use { rdev: None, name, writes: false });
        }
    }
}

/// A line of mountinfo: `36 35 98:0 /root /point rw,noatime shared:1 - ext4
/// /dev/sda1 rw,errors=continue`, with any number of fields before the dash.
fn parse_mount(line: &[u8]) -> Option<Use<'_>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = fields.nth(2)?;
    let mut parts = number.split(|byte| *byte == b':');
    let mut part = || {
        super::text::number(parts.next()?)
            .and_then(|part| u32::try_from(part).ok())
    };
    let rdev = rustix::fs::makedev(part()?, part()?);
    let options = fields.nth(2)?;
    let mut behind = fields.skip_while(|field| *field != b"-").skip(2);
    let source = behind.next().unwrap_or_default();
    // A mount may be read-only while its filesystem is not. Of a line that
    // was cut, the worse is assumed.
    let writes = match behind.next() {
        Some(super_options) => is_rw(super_options) || is_rw(options),
        None => true,
    };
    let name = device_name(source).unwrap_or_default();
    Some(Use { rdev: Some(rdev), name, writes })
}

fn is_rw(options: &[u8]) -> bool {
    options.split(|byte| *byte == b',').any(|option| option == b"rw")
}

/// `sda1` of `/dev/sda1`.
fn device_name(source: &[u8]) -> Option<&[u8]> {
    source.strip_prefix(b"/dev/").filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_any_number_of_optional_fields() {
        for (line, name, writes) in [
            ("36 35 8:1 / / rw,noatime - ext4 /dev/sda1 rw", "sda1", true),
            (
                "36 35 8:1 / / ro shared:1 a:2 - ext4 /dev/sda1 ro",
                "sda1",
                false,
            ),
            ("36 35 8:1 / /x ro - ext4 /dev/mapper/a rw", "mapper/a", true),
            ("36 35 8:1 / /x ro - ext4 /dev/sda1", "sda1", true),
            ("36 35 8:1 / /x ro,lo", "", true),
        ] {
            let mount = parse_mount(line.as_bytes()).unwrap();
            assert_eq!(mount.rdev, Some(rustix::fs::makedev(8, 1)));
            assert_eq!(mount.name, name.as_bytes(), "{line}");
            assert_eq!(mount.writes, writes, "{line}");
        }
        for line in ["", "1 2", "1 2 8 / / rw - a b c", "1 2 8:x / / rw"] {
            assert!(parse_mount(line.as_bytes()).is_none(), "{line}");
        }
    }
}
