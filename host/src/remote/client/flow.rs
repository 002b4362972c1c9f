//! What is known of a line while it is used: how fast it is, how long its
//! answers take, how many frames it damages, and what follows from that.

use std::time::Duration;

use e2wire_protocol::chunk::Codec;
use e2wire_protocol::coding::Coding;
use e2wire_protocol::limits::{FRAGMENT_BYTES_MAX, FRAGMENT_BYTES_MIN};
use e2wire_protocol::message::AgentLimits;
use e2wire_protocol::version::COLUMNS;

use crate::remote::moment::Moment;
use crate::remote::port::Nature;

/// Most of what is read are tables of inodes, of this length or half of it;
/// the agent finds out for each chunk whether columns of it help.
const INODE_BYTES: u16 = 256;

/// Bytes of a frame that are not payload: delimiters, kind, CRC and the head
/// of a fragment, as they usually come out.
const OVERHEAD_BYTES: f64 = 48.0;

/// Grants that may be open on a line where somebody else's small buffers lie
/// between: BMCs keep 4 to 8 KiB or more.
const CONSOLE_WINDOW_BYTES: u32 = 24 * 1024;

/// On a serial port of our own nothing lies between; this is a few seconds
/// of it.
const SERIAL_WINDOW_BYTES: u32 = 64 * 1024;

/// On a socket: 100 ms of 40 MB/s.
const SOCKET_WINDOW_BYTES: u32 = 4 << 20;

/// A line is taken to be this fast until it has been seen, in bytes a second.
const RATE_GUESS: f64 = 5_000.0;

/// How long an answer may take beyond what is known of the line.
const MARGIN: Duration = Duration::from_millis(30);
const MARGIN_MAX: Duration = Duration::from_secs(2);

/// What is known of a line.
#[derive(Debug)]
pub(super) struct Flow {
    nature: Nature,
    /// Smallest time between a question and its answer that was seen.
    round_trip: Option<Duration>,
    margin: Duration,
    /// Bytes a second, while bytes came.
    rate: Option<f64>,
    /// The stretch of bytes without a pause that is measured.
    burst_start: Moment,
    burst_bytes: u64,
    last_bytes: Moment,
    /// Lost frames per received byte, over some ten thousand bytes.
    losses: f64,
    /// Encoded bytes per byte of the device, over some chunks.
    ratio: f64,
    window: u32,
    zstd_level_max: u8,
    /// What both sides speak.
    version: u16,
    /// Bits per second of the agent's own port, when that is a serial one
    /// and ours is not.
    pace: Option<u32>,
    /// No console lies between.
    direct: bool,
}

impl Flow {
    pub(super) fn new(nature: Nature) -> Self {
        let direct = !nature.console;
        Self {
            nature,
            round_trip: None,
            margin: MARGIN,
            rate: nature.baud.map(|baud| f64::from(baud) / 10.0),
            burst_start: Moment::START,
            burst_bytes: 0,
            last_bytes: Moment::START,
            losses: first_guess(nature, direct),
            ratio: 0.1,
            window: first_window(nature, direct),
            pace: None,
            direct,
            zstd_level_max: 0,
            version: 0,
        }
    }

    /// Requests go out in this coding: consoles on the way may have an
    /// escape.
    pub(super) const fn request_coding(&self) -> Coding {
        if self.nature.console { Coding::Printable } else { Coding::Binary }
    }

    /// The most that is ever granted at once on any line, which is what the
    /// agent is told: what suits this line is only known later.
    pub(super) const fn window_max() -> u32 {
        SOCKET_WINDOW_BYTES
    }

    /// The agent accepts no larger window.
    pub(super) fn limit_window(&mut self, bytes: u32) {
        let least = 2 * u32::from(FRAGMENT_BYTES_MIN);
        self.window = self.window.min(bytes).max(least);
    }

    /// The agent told of its end of the line: whatever lies between, when
    /// that is a serial port it sets the pace, and when it is none there is
    /// no console on the way.
    pub(super) fn learn(
        &mut self,
        version: u16,
        port_baud: u32,
        limits: &AgentLimits,
    ) {
        self.version = version;
        self.zstd_level_max = limits.zstd_level;
        if self.nature.baud.is_none() {
            self.pace = (port_baud > 0).then_some(port_baud);
            let direct = port_baud == 0;
            if direct != self.direct {
                self.direct = direct;
                self.losses = first_guess(self.nature, direct);
                self.window = first_window(self.nature, direct);
            }
            if let Some(baud) = self.pace {
                self.rate = Some(f64::from(baud) / 10.0);
            }
        }
        if limits.window > 0 {
            self.limit_window(limits.window);
        }
    }

    /// How much may be under way at once: on a slow line only so much that
    /// it never runs dry, since what is under way cannot be overtaken.
    pub(super) fn under_way_max(&self) -> u64 {
        let window = u64::from(self.window);
        if self.baud().is_none() {
            return window;
        }
        let time = self.round_trip() + Duration::from_millis(400);
        let bytes = self.rate() * time.as_secs_f64();
        window.min(bytes as u64 + 3 * u64::from(self.payload()))
    }

    /// Bits per second of the serial line on the way, if there is one.
    fn baud(&self) -> Option<u32> {
        self.nature.baud.or(self.pace)
    }

    /// A question was answered after so long.
    pub(super) fn round_trip_seen(&mut self, time: Duration) {
        self.round_trip =
            Some(self.round_trip.map_or(time, |known| known.min(time)));
    }

    /// What a question and its answer take at least.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip.unwrap_or(Duration::from_millis(100))
    }

    /// Whether the line may swallow or change some bytes.
    pub(super) const fn may_be_dirty(&self) -> bool {
        self.nature.console
    }

    /// Bytes came.
    pub(super) fn bytes_seen(&mut self, now: Moment, count: usize) {
        let pause = now.since(self.last_bytes);
        if pause > Duration::from_millis(200) {
            self.burst_start = now;
            self.burst_bytes = 0;
        } else {
            self.burst_bytes += count as u64;
        }
        self.last_bytes = now;
        self.losses *= (-(count as f64) / 60_000.0).exp();
        let time = now.since(self.burst_start).as_secs_f64();
        if time > 0.2 && self.baud().is_none() {
            self.rate = Some(self.burst_bytes as f64 / time);
            if time > 2.0 {
                self.burst_start = now;
                self.burst_bytes = 0;
            }
        }
    }

    /// Bytes went out; losses among them are counted, too.
    pub(super) fn bytes_sent(&mut self, count: usize) {
        self.losses *= (-(count as f64) / 60_000.0).exp();
    }

    /// So many frames were lost.
    pub(super) fn frames_lost(&mut self, count: u32) {
        // One loss weighs as if it were spread over the bytes that are
        // remembered.
        self.losses += f64::from(count) / 60_000.0;
    }

    /// Something came twice: we were impatient.
    pub(super) fn was_impatient(&mut self) {
        self.margin = (self.margin * 5 / 4).min(MARGIN_MAX);
    }

    /// Bytes a second.
    pub(super) fn rate(&self) -> f64 {
        self.rate.unwrap_or(RATE_GUESS).max(100.0)
    }

    /// How long `count` bytes take on the line.
    pub(super) fn time_of(&self, count: u64) -> Duration {
        Duration::from_secs_f64((count as f64 / self.rate()).min(600.0))
    }

    /// How long the line may be silent while something must be coming.
    pub(super) fn patience(&self) -> Duration {
        self.round_trip() + self.margin
    }

    /// The payload of a fragment that gets most through: with overhead `h`
    /// and `p` losses per byte that is about the square root of `h / p`.
    pub(super) fn payload(&self) -> u16 {
        let best = (OVERHEAD_BYTES / self.losses.max(1e-9)).sqrt();
        let mut payload = FRAGMENT_BYTES_MIN;
        while f64::from(payload) * 1.42 < best && payload < FRAGMENT_BYTES_MAX {
            payload *= 2;
        }
        // A few of them must fit the window.
        while u32::from(payload) * 4 > self.window
            && payload > FRAGMENT_BYTES_MIN
        {
            payload /= 2;
        }
        payload
    }

    /// A chunk of `plain` bytes came as `encoded`.
    pub(super) fn chunk_seen(&mut self, plain: usize, encoded: usize) {
        let ratio = encoded as f64 / (plain.max(1)) as f64;
        self.ratio += (ratio - self.ratio) / 4.0;
    }

    /// How many bytes a chunk of `plain` bytes will probably have.
    pub(super) fn guess(&self, plain: usize) -> u64 {
        (plain as f64 * self.ratio.min(1.1) * 1.2) as u64
    }

    /// Whether no console and no serial line lies between, as far as is
    /// known.
    pub(super) const fn is_direct(&self) -> bool {
        self.direct && self.nature.baud.is_none()
    }

    /// Whether every byte that is saved on the line is worth a look at the
    /// disk: as it is on serial lines, and where one may lie on the way.
    pub(super) fn is_slow(&self) -> bool {
        self.baud().is_some() || !self.direct
    }

    /// How chunks shall be encoded. A slow line is worth every cycle of the
    /// agent; a network wants what compresses at its own pace.
    pub(super) fn codec(&self) -> Codec {
        let level = match self.baud() {
            Some(0..=250_000) => 19,
            Some(0..=1_500_000) => 9,
            Some(_) => 3,
            None if self.direct => 1,
            None => 19,
        };
        match level.min(self.zstd_level_max) {
            0 => Codec::Stored,
            // Where the agent has the time to try both.
            level if level > 3 && self.version >= COLUMNS => {
                Codec::ZstdColumns { level, stride: INODE_BYTES }
            }
            level => Codec::Zstd(level),
        }
    }
}

/// Losses that make the usual payload of such a line the best one.
fn first_guess(nature: Nature, direct: bool) -> f64 {
    let payload = match (nature.baud, direct) {
        (Some(_), _) => 4096.0,
        (None, false) => 2048.0,
        (None, true) => 16_384.0,
    };
    OVERHEAD_BYTES / (payload * payload)
}

fn first_window(nature: Nature, direct: bool) -> u32 {
    match (nature.baud, direct) {
        (Some(_), _) => SERIAL_WINDOW_BYTES,
        (None, false) => CONSOLE_WINDOW_BYTES,
        (None, true) => SOCKET_WINDOW_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERIAL: Nature =
        Nature { baud: Some(115_200), console: true, listens: false };

    #[test]
    fn fragments_shrink_with_losses_and_grow_again() {
        let mut flow = Flow::new(SERIAL);
        assert_eq!(flow.payload(), 4096);
        let mut now = Moment::START;
        for _ in 0..50 {
            now = now.after(Duration::from_millis(100));
            flow.bytes_seen(now, 1000);
            flow.frames_lost(1);
        }
        assert!(flow.payload() <= 512, "{}", flow.payload());
        for _ in 0..800 {
            now = now.after(Duration::from_millis(100));
            flow.bytes_seen(now, 1000);
        }
        assert!(flow.payload() >= 4096, "{}", flow.payload());
    }

    #[test]
    fn a_small_window_makes_small_fragments() {
        let mut flow =
            Flow::new(Nature { baud: None, console: false, listens: false });
        assert_eq!(flow.payload(), FRAGMENT_BYTES_MAX);
        flow.limit_window(8192);
        assert_eq!(flow.payload(), 2048);
        flow.limit_window(0);
        assert_eq!(flow.payload(), FRAGMENT_BYTES_MIN);
    }

    #[test]
    fn a_slow_line_is_worth_a_high_level() {
        let mut flow = Flow::new(SERIAL);
        assert_eq!(flow.codec(), Codec::Stored);
        let limits = AgentLimits { zstd_level: 12, ..AgentLimits::default() };
        flow.learn(COLUMNS - 1, 115_200, &limits);
        assert_eq!(flow.codec(), Codec::Zstd(12));
        flow.learn(COLUMNS, 115_200, &limits);
        let codec = Codec::ZstdColumns { level: 12, stride: 256 };
        assert_eq!(flow.codec(), codec);
    }

    #[test]
    fn what_outruns_the_agent_is_not_compressed_twice() {
        let nature = Nature { baud: None, console: false, listens: false };
        let mut flow = Flow::new(nature);
        let limits = AgentLimits { zstd_level: 9, ..AgentLimits::default() };
        flow.learn(COLUMNS, 0, &limits);
        assert_eq!(flow.codec(), Codec::Zstd(1));
    }
}
