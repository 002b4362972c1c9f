//! The agent's memory as a static of a program.

use std::fs;
use std::ptr;
use std::sync::Mutex;

use e2wire_agent::memory::Memory;

static MEMORY: Mutex<Memory> = Mutex::new(Memory::new());

#[test]
fn unused_memory_takes_no_place_in_the_program_file() {
    let memory = MEMORY.lock().unwrap();
    let middle = ptr::from_ref(&*memory).addr() + size_of::<Memory>() / 2;
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let holds = |line: &&str| {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let address = |text| usize::from_str_radix(text, 16).unwrap();
        (address(start)..address(end)).contains(&middle)
    };
    let mapping = maps.lines().find(holds).unwrap();
    // Address, rights, offset, device, inode; a file's path comes behind.
    let fields: Vec<_> = mapping.split_whitespace().collect();
    assert_eq!(fields.len(), 5, "part of the file: {mapping}");
    assert_eq!(fields[4], "0");
}
