//! The tree: a line for each device, folded where the terminal ends.

use std::fmt::Write as _;

use crate::inventory::{Content, Contents, Device, DeviceKind, State};
use crate::text;

/// The devices as text. Facts are folded at `columns`, if that is given;
/// else each device is one line.
pub(in crate::cli) fn tree(devices: &[Device], columns: Option<u16>) -> String {
    let rows: Vec<Row> = devices.iter().flat_map(rows).collect();
    let name_width =
        rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
    let size_width =
        rows.iter().map(|row| row.size.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for row in &rows {
        let padding = name_width.saturating_sub(row.name.chars().count());
        let head =
            format!("{}{:padding$}  {:>size_width$}  ", row.name, "", row.size);
        let indent = head.chars().count();
        out.push_str(&head);
        fold(&mut out, &row.facts, indent, columns);
    }
    out
}

struct Row {
    name: String,
    size: String,
    facts: Vec<String>,
}

fn rows(device: &Device) -> Vec<Row> {
    let mut rows = vec![row("", device)];
    let last = device.partitions.len().saturating_sub(1);
    for (index, part) in device.partitions.iter().enumerate() {
        let branch = if index == last { "└─ " } else { "├─ " };
        let mut row = row(branch, part);
        // The system has no name for it, but there is another way to say it.
        if device.kind == DeviceKind::File
            && let Some(start) = part.start
        {
            row.facts.push(format!("--source-offset {start}"));
        }
        rows.push(row);
    }
    rows
}

fn row(branch: &str, device: &Device) -> Row {
    let mut facts = vec![];
    if !matches!(device.kind, DeviceKind::Partition | DeviceKind::File) {
        facts.push(device.kind.name().to_owned());
    }
    if device.kind != DeviceKind::Mapped {
        facts.extend(device.alias.clone());
    }
    facts.extend(device.disk.model.clone());
    if let Some(serial) = &device.disk.serial {
        facts.push(format!("serial {serial}"));
    } else if let Some(wwn) = &device.disk.wwn {
        facts.push(format!("wwn {wwn}"));
    }
    if device.read_only {
        facts.push("read-only".to_owned());
    }
    match &device.contents {
        Contents::Unknown => {}
        Contents::Unreadable(why) => facts.push(format!("unreadable: {why}")),
        Contents::Known(contents) => {
            if contents.is_empty() && device.partitions.is_empty() {
                let further = "nothing known on it (`e2wire plan` looks \
                               for copies of a superblock)";
                facts.push(further.to_owned());
            }
            facts.extend(contents.iter().flat_map(content_facts));
        }
    }
    for mount in &device.mounts {
        let how = if mount.read_only { " read-only" } else { "" };
        facts.push(format!("mounted at {}{how}", mount.at));
    }
    if device.swap_active {
        facts.push("swap in use".to_owned());
    }
    if !device.holders.is_empty() {
        facts.push(format!("used by {}", device.holders.join(" ")));
    }
    Row {
        name: text::escape(&format!("{branch}{}", device.path)).into_owned(),
        size: text::bytes(device.size),
        facts: facts
            .iter()
            .map(|fact| text::escape(fact).into_owned())
            .collect(),
    }
}

/// What is worth saying about something that lies on a device.
pub(super) fn content_facts(content: &Content) -> Vec<String> {
    let mut facts = vec![match &content.version {
        Some(version) => format!("{} {version}", content.kind.name()),
        None => content.kind.name().to_owned(),
    }];
    facts.extend(content.label.as_ref().map(|label| format!("\"{label}\"")));
    facts.extend(content.uuid.as_ref().map(|uuid| format!("UUID={uuid}")));
    facts.extend(content.part_of.as_ref().map(|whole| format!("of {whole}")));
    facts.extend(content.detail.clone());
    if let Some(last) = &content.last_mounted {
        facts.push(format!("last mounted at {last}"));
    }
    facts.extend(content.state.iter().filter_map(|state| {
        Some(match state {
            State::Clean => "clean".to_owned(),
            State::NotClean => "not unmounted in good order".to_owned(),
            State::NeedsRecovery => "needs recovery".to_owned(),
            State::Errors => "has errors".to_owned(),
            State::Orphans => "has orphan inodes".to_owned(),
            State::BadChecksum => "checksum is wrong".to_owned(),
            State::Truncated => format!(
                "longer than the device: {}",
                text::bytes(content.size?)
            ),
            State::CopyUsed => {
                match (content.superblock_copy, content.block_size) {
                    (Some(block), Some(size)) => format!(
                        "first superblock lost, there is a copy: -b {block} \
                     -B {size}"
                    ),
                    _ => "first copy lost, another one used".to_owned(),
                }
            }
        })
    }));
    facts
}

/// Puts the facts on one line, or on as many as the terminal needs.
fn fold(
    out: &mut String,
    facts: &[String],
    indent: usize,
    columns: Option<u16>,
) {
    let width = columns.map(usize::from);
    // Where a fact does not fit behind the columns, all begin below them.
    let longest =
        facts.iter().map(|fact| fact.chars().count()).max().unwrap_or(0);
    let needed = indent.saturating_add(longest).saturating_add(1);
    let indent = match width {
        Some(width) if needed > width => {
            out.truncate(out.trim_end().len());
            // Writing to a string cannot fail.
            let _ = write!(out, "\n    ");
            4
        }
        _ => indent,
    };
    let mut used = indent;
    let mut first = true;
    for fact in facts {
        let length = fact.chars().count();
        let with = used.saturating_add(length).saturating_add(2);
        if first {
            used = used.saturating_add(length);
        } else if width.is_some_and(|width| with.saturating_add(1) > width) {
            let _ = write!(out, ",\n{:indent$}", "");
            used = indent.saturating_add(length);
        } else {
            out.push_str(", ");
            used = with;
        }
        out.push_str(fact);
        first = false;
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{ContentKind, Mount};
    use crate::units::{BlockNumber, BlockSize, ByteCount};

    fn server() -> Device {
        let part = |name: &str, gib: u64, content| Device {
            contents: Contents::Known(vec![content]),
            ..Device::new(name, DeviceKind::Partition, ByteCount(gib << 30))
        };
        let boot = Content {
            kind: ContentKind::Vfat,
            version: Some("32".to_owned()),
            label: Some("EFI\x1b[2J".to_owned()),
            ..Content::default()
        };
        let mail = Content {
            kind: ContentKind::Ext4,
            label: Some("mail".to_owned()),
            uuid: Some("0a1b2c3d-0001-0002-0003-0123456789ab".to_owned()),
            last_mounted: Some("/srv/mail".to_owned()),
            state: vec![State::NeedsRecovery],
            ..Content::default()
        };
        let mut disk = Device {
            contents: Contents::Known(vec![Content {
                kind: ContentKind::Gpt,
                ..Content::default()
            }]),
            partitions: vec![
                part("/dev/sda1", 1, boot),
                part("/dev/sda2", 1862, mail),
            ],
            ..Device::new("/dev/sda", DeviceKind::Disk, ByteCount(2 << 40))
        };
        disk.disk.serial = Some("WD-1".to_owned());
        disk.partitions[0].mounts =
            vec![Mount { at: "/boot/efi".to_owned(), read_only: true }];
        disk
    }

    #[test]
    fn a_device_is_one_line_where_nobody_reads_along() {
        let lines = [
            "/dev/sda      2.0 TiB  disk, serial WD-1, gpt",
            "├─ /dev/sda1  1.0 GiB  vfat 32, \"EFI\\x1b[2J\", \
             mounted at /boot/efi read-only",
            "└─ /dev/sda2  1.8 TiB  ext4, \"mail\", \
             UUID=0a1b2c3d-0001-0002-0003-0123456789ab, \
             last mounted at /srv/mail, needs recovery",
        ];
        let text = tree(&[server()], None);
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn lines_end_where_the_terminal_ends() {
        for columns in [20, 40, 60, 80, 132] {
            let text = tree(&[server()], Some(columns));
            let longest = "    UUID=0a1b2c3d-0001-0002-0003-0123456789ab,";
            let limit = usize::from(columns).max(longest.len());
            for line in text.lines() {
                assert!(line.chars().count() <= limit, "{columns}: {line}");
                assert_eq!(line, line.trim_end());
            }
        }
    }

    #[test]
    fn a_lost_superblock_comes_with_what_to_type() {
        let copy = Content {
            block_size: BlockSize::from_bytes(4096),
            superblock_copy: Some(BlockNumber(32768)),
            state: vec![State::CopyUsed],
            ..Content::default()
        };
        assert!(
            content_facts(&copy).last().unwrap().ends_with("-b 32768 -B 4096")
        );
    }
}
