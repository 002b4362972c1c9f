//! One direction of a line: it takes its time and damages what it carries.

use std::collections::VecDeque;

use super::Random;

/// What a line does to bytes; probabilities per byte.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// A bit flips.
    pub flip: f64,
    /// A byte is lost.
    pub lose: f64,
    /// Up to 600 bytes in a row are lost.
    pub cut: f64,
    /// A line of kernel text lands in the middle.
    pub text: f64,
    /// Nothing moves for up to 800 ms.
    pub stall: f64,
}

impl Faults {
    /// Each of them not at all, now and then, or badly.
    pub fn drawn(random: &mut Random) -> Self {
        let mut rate = |worst: f64| match random.below(3) {
            0 => 0.0,
            1 => worst / 20.0,
            _ => worst,
        };
        Self {
            flip: rate(1e-4),
            lose: rate(1e-4),
            cut: rate(2e-5),
            text: rate(5e-5),
            stall: rate(1e-5),
        }
    }
}

/// What kernels say at such times.
const TEXTS: [&[u8]; 4] = [
    b"[  812.104215] ata3: hard resetting link\r\n",
    b"[  812.420023] ata3: SATA link up 6.0 Gbps (SStatus 133 \
      SControl 300)\r\n",
    b"[ 1033.882910] blk_update_request: I/O error, dev sda, sector \
      2048 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2\r\n",
    b"\r\n[ 1200.000001] random: crng init done\r\n",
];

/// One direction of a line.
#[derive(Debug)]
pub(crate) struct Wire {
    random: Random,
    faults: Faults,
    /// Microseconds that a byte takes, times 1000.
    byte_nanos: u64,
    latency: u64,
    /// When the last byte that was taken leaves, in nanoseconds.
    busy: u64,
    arriving: VecDeque<(u64, Vec<u8>)>,
    cutting: u64,
    /// Bytes that were taken.
    pub(super) carried: u64,
}

impl Wire {
    /// `byte_nanos` a byte and `latency` microseconds of delay.
    pub(crate) fn new(
        seed: u64,
        faults: Faults,
        byte_nanos: u64,
        latency: u64,
    ) -> Self {
        Self {
            random: Random::new(seed),
            faults,
            byte_nanos,
            latency,
            busy: 0,
            arriving: VecDeque::new(),
            cutting: 0,
            carried: 0,
        }
    }

    /// When the next byte can be taken.
    pub(crate) fn free_at(&self) -> u64 {
        self.busy / 1000
    }

    /// How many bytes leave in so many microseconds.
    pub(crate) fn bytes_in(&self, micros: u64) -> usize {
        let bytes = micros * 1000 / self.byte_nanos.max(1);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Takes bytes at `now`.
    pub(crate) fn take(&mut self, now: u64, bytes: &[u8]) {
        self.carried += bytes.len() as u64;
        // They leave one after the other and arrive in small bursts, as
        // from a UART's FIFO.
        for burst in bytes.chunks(32) {
            let mut out = Vec::with_capacity(burst.len());
            let start = self.busy.max(now * 1000);
            let mut took = 0;
            for &byte in burst {
                took += self.byte_nanos;
                self.carry(byte, &mut out, &mut took);
            }
            self.busy = start + took;
            let at = self.busy / 1000 + self.latency;
            self.arriving.push_back((at, out));
        }
    }

    fn carry(&mut self, byte: u8, out: &mut Vec<u8>, took: &mut u64) {
        let Self { random, faults, .. } = self;
        if random.happens(faults.stall) {
            *took += random.below(800_000_000);
        }
        if random.happens(faults.text) {
            let text = TEXTS[random.below(TEXTS.len() as u64) as usize];
            *took += text.len() as u64 * self.byte_nanos;
            out.extend_from_slice(text);
        }
        if random.happens(faults.cut) {
            self.cutting = random.below(600);
        }
        if self.cutting > 0 {
            self.cutting -= 1;
            return;
        }
        if random.happens(faults.lose) {
            return;
        }
        let bit =
            if random.happens(faults.flip) { 1 << random.below(8) } else { 0 };
        out.push(byte ^ bit);
    }

    /// When something arrives next.
    pub(crate) fn next(&self) -> Option<u64> {
        self.arriving.front().map(|(at, _)| *at)
    }

    /// What has arrived by `now`.
    pub(crate) fn arrived(&mut self, now: u64, into: &mut Vec<u8>) -> bool {
        let before = into.len();
        while let Some((_, bytes)) =
            self.arriving.pop_front_if(|(at, _)| *at <= now)
        {
            into.extend_from_slice(&bytes);
        }
        into.len() > before
    }

    /// The line is cut: what is under way is lost.
    pub(crate) fn clear(&mut self) {
        self.arriving.clear();
    }
}
