//! Which machine this is, which run of which build of the agent.

use core::mem::offset_of;

use e2wire_agent::clock::Clock;
use e2wire_protocol::digest::{BootId, BuildId};
use e2wire_protocol::message::Machine;
use rustix::fs::CWD;
use rustix::rand::{GetRandomFlags, getrandom};

use super::clock::BootClock;
use super::file::Attribute;
use super::once::Once;
use super::sysfs::{Text, text};

/// The texts of a [`Machine`].
struct Texts {
    vendor: Text,
    product: Text,
    serial: Text,
    uuid: Text,
    host: Text,
    kernel: Text,
}

static TEXTS: Once<Texts> = Once::new(Texts {
    vendor: Text::new(),
    product: Text::new(),
    serial: Text::new(),
    uuid: Text::new(),
    host: Text::new(),
    kernel: Text::new(),
});

/// The machine, as far as its firmware and kernel name it. Asked once.
pub(crate) fn describe() -> Machine<'static> {
    let Some(texts) = TEXTS.take() else {
        return Machine::default();
    };
    for (place, file) in [
        (&mut texts.vendor, c"/sys/class/dmi/id/sys_vendor"),
        (&mut texts.product, c"/sys/class/dmi/id/product_name"),
        (&mut texts.serial, c"/sys/class/dmi/id/product_serial"),
        (&mut texts.uuid, c"/sys/class/dmi/id/product_uuid"),
    ] {
        *place = text(Attribute::read(CWD, file).bytes());
    }
    let uname = rustix::system::uname();
    // As long as nobody has named the machine, the kernel says "(none)".
    let host = uname.nodename().to_bytes();
    texts.host = text(if host == b"(none)" { b"" } else { host });
    texts.kernel = text(uname.release().to_bytes());
    Machine {
        vendor: &texts.vendor,
        product: &texts.product,
        serial: &texts.serial,
        uuid: &texts.uuid,
        host: &texts.host,
        kernel: &texts.kernel,
    }
}

/// A name for this run. Random if the kernel can give that without waiting;
/// early in a boot, what it has and the time must do: the name keeps runs
/// apart, it keeps no secret.
pub(crate) fn boot_id() -> BootId {
    let mut id = [0; 8];
    let asked = [GetRandomFlags::NONBLOCK, GetRandomFlags::INSECURE];
    let random = asked.into_iter().any(|flags| {
        getrandom(&mut id[..], flags).is_ok_and(|count| count == 8)
    });
    if !random {
        id = BootClock.now().micros().to_ne_bytes();
    }
    BootId(id)
}

/// The ELF header of 64 bits, as far as it matters here.
#[repr(C)]
struct ElfHeader {
    identification: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    program_headers: u64,
    section_headers: u64,
    flags: u32,
    header_size: u16,
    program_header_size: u16,
    program_header_count: u16,
}

#[repr(C)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical_address: u64,
    file_size: u64,
    memory_size: u64,
    alignment: u64,
}

const _: () = assert!(offset_of!(ElfHeader, program_header_count) == 56);
const _: () = assert!(size_of::<ProgramHeader>() == 56);

const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;

unsafe extern "C" {
    /// The linker puts it where the file starts in memory.
    static __ehdr_start: ElfHeader;
}

/// The build id that the linker put into this program; zeros if none.
pub(crate) fn build_id() -> BuildId {
    // SAFETY: the program is non-PIE and its first segment holds the header
    // and the program headers, as both linkers lay it out.
    let headers = unsafe {
        let header = &__ehdr_start;
        let base = core::ptr::from_ref(header).cast::<u8>();
        let Ok(offset) = usize::try_from(header.program_headers) else {
            return BuildId::default();
        };
        core::slice::from_raw_parts(
            base.add(offset).cast::<ProgramHeader>(),
            usize::from(header.program_header_count),
        )
    };
    headers
        .iter()
        .filter(|header| header.kind == PT_NOTE)
        .find_map(|header| {
            let address = usize::try_from(header.address).ok()?;
            let size = usize::try_from(header.memory_size).ok()?;
            let start = core::ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: a segment of this program, mapped readable for good.
            find_note(unsafe { core::slice::from_raw_parts(start, size) })
        })
        .unwrap_or_default()
}

/// The build id among notes: lengths of name and contents, kind, the two
/// themselves, each filled up to four bytes.
fn find_note(notes: &[u8]) -> Option<BuildId> {
    let mut rest = notes;
    loop {
        let (head, behind) = rest.split_first_chunk::<12>()?;
        let word = |at: usize| {
            let bytes = head.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let length = |at: usize| usize::try_from(word(at)?).ok();
        let (name, behind) = behind.split_at_checked(padded(length(0)?)?)?;
        let contents = behind.get(..length(4)?)?;
        if word(8)? == NT_GNU_BUILD_ID && name == b"GNU\0" {
            return contents.try_into().ok().map(BuildId);
        }
        rest = behind.get(padded(length(4)?)?..)?;
    }
}

fn padded(length: usize) -> Option<usize> {
    length.checked_next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_build_id_is_found_among_other_notes() {
        let mut notes = Vec::new();
        for (kind, name, contents) in [
            (1_u32, &b"Linux\0"[..], &b"abcde"[..]),
            (3, b"Other\0", &[9; 20]),
            (3, b"GNU\0", &[7; 20]),
        ] {
            for number in [name.len(), contents.len()] {
                notes.extend(u32::try_from(number).unwrap().to_ne_bytes());
            }
            notes.extend(kind.to_ne_bytes());
            for part in [name, contents] {
                notes.extend(part);
                notes.resize(notes.len().next_multiple_of(4), 0);
            }
        }
        assert_eq!(find_note(&notes), Some(BuildId([7; 20])));
        for length in 0..notes.len() {
            // A cut table holds none, and nothing worse happens.
            assert_eq!(find_note(&notes[..length]), None);
        }
        // This very program has one as well.
        assert_ne!(build_id(), BuildId::default());
    }

    #[test]
    fn two_runs_have_two_names() {
        assert_ne!(boot_id(), boot_id());
    }
}
