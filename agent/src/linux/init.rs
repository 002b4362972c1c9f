//! The agent as the only program of a machine: process 1.
//!
//! It must never end, it works with whatever the kernel left it, and it
//! writes nothing but what keeps the console quiet and the disks reachable.

use core::ffi::CStr;

use e2wire_agent::clock::{Clock, Duration, Instant};
use e2wire_protocol::message::{PowerAction, Rights};
use heapless::Vec;
use rustix::event::{EventfdFlags, PollFd, eventfd};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

use network::Network;
use parameters::Parameters;

use super::clock::BootClock;
use super::endpoint::Served;
use super::options::{ENDPOINTS_MAX, Endpoint, Options};
use super::serve::{Chores, End};
use super::start::serve_with;
use super::stdio::{say, stderr};
use super::thread::MODULES_THREAD;
use super::{file, thread};

mod console;
mod dhcp;
pub(crate) mod kernel_log;
mod modules;
mod network;
mod parameters;
mod sockets;
mod ttys;

/// Serial ports are looked for this often while drivers still come up, and
/// less often later, for a USB adapter that is plugged in.
const LOOK_MILLIS: u32 = 1_000;
const LOOK_LATER_MILLIS: u32 = 5_000;
/// A slow RAID controller takes 41 s to come up.
const DRIVERS_MILLIS: u32 = 90_000;

/// Lives as process 1.
pub(crate) fn run() -> ! {
    occupy_standard_streams();
    kernel_log::quieten();
    mount_at(c"/proc", c"proc");
    write_file(c"/proc/sys/kernel/sysrq", b"0");
    mount_at(c"/sys", c"sysfs");
    mount_at(c"/dev", c"devtmpfs");
    let parameters = read_parameters();
    kernel_log::set_panic_seconds(parameters.panic_seconds);
    if parameters.quiet {
        // Emergencies only. At 0 the kernel would be mute even when it
        // panics, and nobody would know why the line is dead.
        write_file(c"/proc/sys/kernel/printk", b"1");
    }
    console::open();
    assert!(!parameters.test_panic, "asked for by e2wire.test-panic");
    write_file(
        c"/sys/module/firmware_class/parameters/path",
        b"/e2wire/firmware",
    );
    if parameters.modules && !thread::start(MODULES_THREAD, load_modules) {
        modules::load_all();
    }
    if !parameters.insecure {
        refuse();
    }
    serve_for_ever(&parameters)
}

fn read_parameters() -> Parameters {
    let (mut packed, mut kernel) = ([0; 4096], [0; 4096]);
    Parameters::from_lines(
        read_file(c"/e2wire/cmdline", &mut packed),
        read_file(c"/proc/cmdline", &mut kernel),
    )
}

fn serve_for_ever(parameters: &Parameters) -> ! {
    let mut options = Options::new();
    options.rw = parameters.rw;
    let tcp = [
        parameters.listen.map(Endpoint::Listen),
        parameters.connect.map(Endpoint::Connect),
    ];
    for endpoint in tcp.into_iter().flatten() {
        // The first of sixteen places.
        let _ = options.endpoints.push(endpoint);
    }
    let mut chores = Init {
        parameters,
        network: Network::new(parameters.net, parameters.interface.clone()),
        started: BootClock.now(),
        next_look: Instant::default(),
        last_session: BootClock.now(),
    };
    let rights = Rights::READ.with(Rights::POWER);
    let ended = serve_with(options, rights, &mut chores);
    if matches!(ended, Ok(End::Power(_))) {
        // The last answer is still on its way through a UART or a switch.
        kernel_log::sleep_seconds(1);
    }
    let action = match ended {
        Ok(End::Power(PowerAction::PowerOff)) => RebootCommand::PowerOff,
        Ok(End::Power(PowerAction::Reboot)) => RebootCommand::Restart,
        Ok(End::NoEndpoint) => {
            say(stderr(), b"e2wire-agent: nobody can reach it\r\n");
            kernel_log::wait_for_panic_seconds();
            RebootCommand::Restart
        }
        Err(error) => {
            say(stderr(), b"e2wire-agent: ");
            say(stderr(), error.as_bytes());
            say(stderr(), b"\r\n");
            kernel_log::wait_for_panic_seconds();
            RebootCommand::Restart
        }
    };
    end(action)
}

extern "C" fn load_modules(_number: usize) {
    modules::load_all();
}

/// Ends the machine, one way or another.
pub(crate) fn end(action: RebootCommand) -> ! {
    loop {
        let _ = reboot(action);
        // A machine that cannot be switched off can be restarted.
        let _ = reboot(RebootCommand::Restart);
        kernel_log::sleep_seconds(1);
    }
}

/// Nobody was given access, and an agent never opens itself.
fn refuse() -> ! {
    loop {
        say(
            stderr(),
            b"e2wire-agent: serves nobody: build its initrd with \
              --insecure, or add e2wire.insecure to the kernel's command \
              line\r\n",
        );
        kernel_log::sleep_seconds(10);
    }
}

/// Without /dev/console the kernel starts us with no descriptor at all, and
/// the first things opened would be taken for the standard streams.
fn occupy_standard_streams() {
    while let Ok(fd) = eventfd(0, EventfdFlags::empty()) {
        use rustix::fd::{AsRawFd, IntoRawFd};
        if fd.as_raw_fd() > 2 {
            return;
        }
        let _ = fd.into_raw_fd();
    }
}

fn mount_at(place: &CStr, kind: &CStr) {
    // Both are there already where an initramfs or the kernel made them.
    let _ = mkdirat(CWD, place, Mode::from_raw_mode(0o755));
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    match mount(kind, place, kind, flags, None::<&CStr>) {
        Ok(()) | Err(Errno::BUSY) => {}
        Err(error) => defmt::warn!(
            "{=[u8]:a} does not mount: errno {=i32}",
            kind.to_bytes(),
            error.raw_os_error()
        ),
    }
}

/// Writes a setting; one that the kernel does not have is no loss.
pub(crate) fn write_file(path: &CStr, value: &[u8]) {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(fd) = openat(CWD, path, flags, Mode::empty()) {
        let _ = rustix::io::write(&fd, value);
    }
}

fn read_file<'a>(path: &CStr, buffer: &'a mut [u8]) -> &'a [u8] {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(fd) = openat(CWD, path, flags, Mode::empty()) else {
        return &[];
    };
    let count = file::fill(&fd, buffer);
    buffer.get(..count).unwrap_or_default()
}

/// What process 1 does besides serving.
struct Init<'a> {
    parameters: &'a Parameters,
    network: Network,
    started: Instant,
    next_look: Instant,
    last_session: Instant,
}

impl Chores for Init<'_> {
    fn turn(
        &mut self,
        now: Instant,
        endpoints: &mut Vec<Served, ENDPOINTS_MAX>,
    ) -> Option<Instant> {
        self.network.turn(now);
        if self.next_look <= now {
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            ttys::find(self.parameters, endpoints);
            let early =
                now.since(self.started) < Duration::from_millis(DRIVERS_MILLIS);
            let pause = if early { LOOK_MILLIS } else { LOOK_LATER_MILLIS };
            self.next_look = now.after(Duration::from_millis(pause));
        }
        if let Some(seconds) = self.parameters.idle_reboot_seconds {
            let limit = Duration::from_millis(seconds.saturating_mul(1000));
            if now.since(self.last_session) >= limit {
                say(stderr(), b"e2wire-agent: idle, restarting\r\n");
                end(RebootCommand::Restart);
            }
        }
        let network = self.network.deadline();
        [Some(self.next_look), network].into_iter().flatten().min()
    }

    fn poll_fd(&self) -> Option<PollFd<'_>> {
        self.network.poll_fd()
    }

    fn in_session(&mut self, now: Instant) {
        self.last_session = now;
    }
}
