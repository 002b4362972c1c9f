//! Makes the small things that the tests of this folder need.

use std::{fs, path::Path};

/// A relocatable x86-64 ELF file whose only content is `.modinfo`.
pub(crate) fn module_elf(entries: &[&str]) -> Vec<u8> {
    let mut modinfo = Vec::new();
    for entry in entries {
        modinfo.extend_from_slice(entry.as_bytes());
        modinfo.push(0);
    }
    let names = b"\0.modinfo\0.shstrtab\0";
    let modinfo_at = 64;
    let names_at = modinfo_at + modinfo.len();
    let headers_at = (names_at + names.len()).next_multiple_of(8);

    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend(1_u16.to_le_bytes()); // e_type: ET_REL
    elf.extend(62_u16.to_le_bytes()); // e_machine: EM_X86_64
    elf.extend(1_u32.to_le_bytes()); // e_version
    elf.extend([0; 16]); // e_entry, e_phoff
    elf.extend(u64::try_from(headers_at).unwrap().to_le_bytes());
    elf.extend([0; 4]); // e_flags
    for half in [64_u16, 0, 0, 64, 3, 2] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(&modinfo);
    elf.extend(names);
    elf.resize(headers_at, 0);
    elf.extend([0; 64]);
    elf.extend(section_header(1, 1, modinfo_at, modinfo.len()));
    elf.extend(section_header(10, 3, names_at, names.len()));
    elf
}

/// name, type, place and size; everything else is zero.
fn section_header(name: u32, kind: u32, at: usize, size: usize) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(name.to_le_bytes());
    header.extend(kind.to_le_bytes());
    header.extend([0; 16]); // sh_flags, sh_addr
    header.extend(u64::try_from(at).unwrap().to_le_bytes());
    header.extend(u64::try_from(size).unwrap().to_le_bytes());
    header.extend([0; 8]); // sh_link, sh_info
    header.extend(1_u64.to_le_bytes()); // sh_addralign
    header.extend([0; 8]); // sh_entsize
    header
}

/// Writes a module of kernel 1.2.3 into a modules tree.
pub(crate) fn add_module(tree: &Path, path: &str, entries: &[&str]) {
    let path = tree.join("kernel").join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut all = vec!["license=GPL", "vermagic=1.2.3 SMP "];
    all.extend(entries);
    fs::write(path, module_elf(&all)).unwrap();
}
