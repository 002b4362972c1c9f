//! The guards that look at the device: is it the right one, and may it be
//! written now? Each has a message of its own.

use zerocopy::FromBytes;

use crate::commands::install::InstallRequest;
use crate::commands::install::content::{Content, SUPERBLOCK_AT};
use crate::commands::writing::{Reached, read_bytes};
use crate::error::{Error, ErrorKind, Result};
use crate::ext::superblock::{MAGIC, RawSuperblock, Superblock, uuid_text};
use crate::units::{ByteCount, ByteOffset, ByteRange};

/// The device's own superblock, as it lies there.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) bytes: [u8; 1024],
    /// Taken apart, if it is one.
    pub(super) raw: Option<RawSuperblock>,
    /// What was noticed on the way.
    pub(super) remarks: Vec<String>,
}

/// Whether the device is the one that the image belongs to.
///
/// # Errors
///
/// [`ErrorKind::Refused`] when it is not, or nobody can tell.
pub(super) fn identify_device(
    request: &InstallRequest,
    content: &Content,
    reached: &Reached<'_>,
) -> Result<Found> {
    refuse_other_disk(request, reached)?;
    refuse_short(request, content, reached)?;
    let at = ByteOffset(request.dest_offset.0 + SUPERBLOCK_AT);
    let place = range(at.0, 1024)?;
    let bytes = read_bytes(reached.source(), place)?;
    let bytes: [u8; 1024] = bytes.try_into().map_err(|_| no_memory())?;
    let mut remarks = Vec::new();
    let raw = RawSuperblock::read_from_bytes(&bytes)
        .ok()
        .filter(|raw| raw.s_magic.get() == MAGIC)
        .filter(|_| Superblock::check(&bytes, None, None).is_ok());
    match &raw {
        Some(raw) => {
            refuse_other_uuid(request, content, raw)?;
            refuse_other_size(request, content, raw, reached)?;
        }
        None => remarks.push(prove_lost(request, content, reached)?),
    }
    Ok(Found { bytes, raw, remarks })
}

fn refuse_other_disk(
    request: &InstallRequest,
    reached: &Reached<'_>,
) -> Result<()> {
    let Some(expected) = &request.expect_serial else { return Ok(()) };
    let disk = reached.disk();
    let known = [&disk.serial, &disk.wwn];
    if known.into_iter().flatten().any(|own| own == expected) {
        return Ok(());
    }
    let own = disk.serial.as_deref().unwrap_or("unknown");
    Err(refused(format!(
        "{} is another disk: its serial number is {own}, not {expected}",
        reached.name()
    ))
    .hint("`e2wire ls` shows the serial numbers of the disks"))
}

fn refuse_short(
    request: &InstallRequest,
    content: &Content,
    reached: &Reached<'_>,
) -> Result<()> {
    let geometry = content.geometry();
    let whole = geometry.block_size.bytes_of(geometry.blocks);
    let room = reached.length().0.saturating_sub(request.dest_offset.0);
    if whole.is_some_and(|whole| whole.0 <= room) {
        return Ok(());
    }
    Err(refused(format!(
        "the filesystem in the image is {} long, {} has room for {}",
        whole.map_or_else(|| "absurdly".to_owned(), crate::text::bytes),
        reached.name(),
        crate::text::bytes(ByteCount(room)),
    ))
    .hint("name the device that the image was made of"))
}

fn refuse_other_uuid(
    request: &InstallRequest,
    content: &Content,
    raw: &RawSuperblock,
) -> Result<()> {
    let wanted = &content.geometry().uuid;
    if raw.s_uuid == *wanted || request.allow_uuid_change {
        return Ok(());
    }
    Err(refused(format!(
        "{} holds another filesystem: its UUID is {}, that of the image is {}",
        request.device.display(),
        uuid_text(&raw.s_uuid),
        uuid_text(wanted)
    ))
    .hint(
        "name the device that the image was made of; to put it over the other \
         filesystem all the same: --allow-uuid-change",
    ))
}

fn refuse_other_size(
    request: &InstallRequest,
    content: &Content,
    raw: &RawSuperblock,
    reached: &Reached<'_>,
) -> Result<()> {
    if request.allow_size_change {
        return Ok(());
    }
    let refuse = |what: String| {
        Err(refused(what).hint(
            "was the filesystem resized since the image was made? to put back \
             the old size all the same: --allow-size-change",
        ))
    };
    let own = Superblock::check(as_bytes(raw), None, None)
        .map(|superblock| superblock.geometry);
    let geometry = content.geometry();
    if let Ok(own) = own
        && (own.blocks, own.block_size)
            != (geometry.blocks, geometry.block_size)
    {
        return refuse(format!(
            "the filesystem on {} has {} blocks of {} bytes, that in the \
             image {} of {}",
            request.device.display(),
            own.blocks,
            own.block_size,
            geometry.blocks,
            geometry.block_size
        ));
    }
    // Where the image was made of a device, that device had a length.
    let source = content.manifest.as_ref().filter(|manifest| {
        ["block-device", "remote", "file"]
            .contains(&manifest.source.kind.as_str())
    });
    if let Some(manifest) = source {
        let then = manifest.source.bytes;
        let now = reached.length().0.saturating_sub(request.dest_offset.0);
        if then != now {
            return refuse(format!(
                "the image was made of a device of {then} bytes, {} has {now}",
                request.device.display()
            ));
        }
    }
    Ok(())
}

fn as_bytes(raw: &RawSuperblock) -> &[u8; 1024] {
    zerocopy::transmute_ref!(raw)
}

/// The first superblock is lost: something else must say which device this
/// is. What was found in its place.
fn prove_lost(
    request: &InstallRequest,
    content: &Content,
    reached: &Reached<'_>,
) -> Result<String> {
    if request.expect_serial.is_some() {
        return Ok(format!(
            "The first superblock of {} is lost; the disk has the serial \
             number that was expected.",
            reached.name()
        ));
    }
    if let Some(group) = backup_group(request, content, reached)? {
        return Ok(format!(
            "The first superblock of {} is lost; the copy in group {group} \
             has the UUID of the image.",
            reached.name()
        ));
    }
    Err(refused(format!(
        "{} has no superblock, and no copy of one, that tells which \
         filesystem it holds",
        reached.name()
    ))
    .hint(
        "if you are sure that it is the disk, say its serial number: \
         --expect-serial S (`e2wire ls` shows it)",
    ))
}

/// The first group whose copy of the superblock is there and has the right
/// UUID.
fn backup_group(
    request: &InstallRequest,
    content: &Content,
    reached: &Reached<'_>,
) -> Result<Option<u64>> {
    let geometry = content.geometry();
    let powers = [3_u64, 5, 7].into_iter().flat_map(|base| {
        std::iter::successors(Some(base), move |n| n.checked_mul(base))
            .take_while(|group| *group < u64::from(geometry.groups))
    });
    for group in [1].into_iter().chain(powers) {
        let block = group
            .checked_mul(u64::from(geometry.blocks_per_group))
            .and_then(|at| at.checked_add(geometry.first_data_block.0));
        let at = block
            .and_then(|block| {
                block.checked_mul(geometry.block_size.bytes_u64())
            })
            .and_then(|at| at.checked_add(request.dest_offset.0));
        let Some(at) = at.filter(|at| at + 1024 <= reached.length().0) else {
            continue;
        };
        // A bad sector there is only no proof.
        let Ok(bytes) = read_bytes(reached.source(), range(at, 1024)?) else {
            continue;
        };
        let Ok(raw) = RawSuperblock::read_from_bytes(&bytes) else { continue };
        if raw.s_magic.get() == MAGIC
            && raw.s_uuid == geometry.uuid
            && u64::from(raw.s_block_group_nr.get()) == group
        {
            return Ok(Some(group));
        }
    }
    Ok(None)
}

pub(super) fn range(at: u64, length: u64) -> Result<ByteRange> {
    ByteRange::new(ByteOffset(at), ByteCount(length)).ok_or_else(no_memory)
}

fn no_memory() -> Error {
    Error::new(ErrorKind::Internal, "a place that no device has")
}

pub(super) fn refused(what: String) -> Error {
    Error::new(ErrorKind::Refused, what).intact("nothing was written")
}
