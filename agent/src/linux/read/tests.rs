use core::cell::RefCell;
use core::ops::Range;

use super::*;

/// A disk whose byte at n is n/512, with bad sectors, that keeps a log.
struct Disk {
    length: u64,
    bad: Vec<u64>,
    most: usize,
    gone: bool,
    reads: RefCell<Vec<Range<u64>>>,
}

impl Disk {
    fn new(length: u64, bad: &[u64]) -> Self {
        Self {
            length,
            bad: bad.to_vec(),
            most: usize::MAX,
            gone: false,
            reads: RefCell::default(),
        }
    }
}

impl ReadAt for Disk {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> Result<usize, Errno> {
        let end = self.length.min(at + buffer.len() as u64);
        self.reads.borrow_mut().push(at..at + buffer.len() as u64);
        if self.gone {
            return Err(Errno::NXIO);
        }
        if self.bad.iter().any(|bad| (at..end).contains(&(bad * 512))) {
            return Err(Errno::IO);
        }
        let count = self.most.min(end.saturating_sub(at) as usize);
        for (i, byte) in buffer[..count].iter_mut().enumerate() {
            *byte = ((at + i as u64) / 512) as u8;
        }
        Ok(count)
    }
}

fn read(
    disk: &Disk,
    at: u64,
    length: usize,
    sector: u32,
) -> (Vec<u8>, Vec<usize>) {
    let mut buffer = vec![0xee; length];
    let mut unreadable = SectorMap::new();
    let done = AtomicU32::new(0);
    let mut progress =
        Progress { done: &done, unreadable: &mut unreadable, position: 0 };
    read_range(disk, at, &mut buffer, sector, &mut progress).unwrap();
    assert_eq!(done.load(Ordering::Relaxed) as usize, length);
    let lost = (0..length / 512).filter(|i| unreadable.has(*i)).collect();
    (buffer, lost)
}

#[test]
fn a_good_range_is_one_read() {
    let disk = Disk::new(1 << 20, &[]);
    let (bytes, lost) = read(&disk, 8192, 65_536, 512);
    assert_eq!(disk.reads.borrow().len(), 1);
    assert!(lost.is_empty());
    assert!(bytes.chunks(512).zip(16_u8..).all(|(s, n)| s == [n; 512]));
}

#[test]
fn short_reads_are_continued() {
    let mut disk = Disk::new(1 << 20, &[]);
    disk.most = 1536;
    let (bytes, lost) = read(&disk, 0, 8192, 512);
    assert!(lost.is_empty());
    assert!(bytes.chunks(512).zip(0_u8..).all(|(s, n)| s == [n; 512]));
}

#[test]
fn a_bad_sector_costs_itself_only_and_nothing_is_tried_twice() {
    let disk = Disk::new(1 << 20, &[21, 40]);
    let (bytes, lost) = read(&disk, 8192, 16_384, 512);
    assert_eq!(lost, [5, 24]);
    for (i, (sector, n)) in bytes.chunks(512).zip(16_u8..).enumerate() {
        let expected = if lost.contains(&i) { 0 } else { n };
        assert!(sector == [expected; 512], "sector {i}");
    }
    let reads = disk.reads.borrow();
    // The whole, four pages, two of them in eight sectors each.
    assert_eq!(reads.len(), 1 + 4 + 16);
    let mut seen: Vec<_> = reads.iter().map(|r| (r.start, r.end)).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), reads.len());
}

#[test]
fn large_sectors_are_lost_whole() {
    let disk = Disk::new(1 << 20, &[17]);
    let (_, lost) = read(&disk, 0, 16_384, 4096);
    assert_eq!(lost, [16, 17, 18, 19, 20, 21, 22, 23]);
}

#[test]
fn a_device_that_shrank_loses_its_end() {
    let disk = Disk::new(4096 + 512, &[]);
    let (_, lost) = read(&disk, 0, 8192, 512);
    assert_eq!(lost, [9, 10, 11, 12, 13, 14, 15]);
}

#[test]
fn a_device_that_is_gone_ends_the_job_at_once() {
    let mut disk = Disk::new(1 << 20, &[]);
    disk.gone = true;
    let mut progress = Progress {
        done: &AtomicU32::new(0),
        unreadable: &mut SectorMap::new(),
        position: 0,
    };
    let result = read_range(&disk, 0, &mut [0; 8192], 512, &mut progress);
    assert_eq!(result, Err(Errno::NXIO));
    assert_eq!(disk.reads.borrow().len(), 1);
}
