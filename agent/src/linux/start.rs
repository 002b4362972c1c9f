//! Putting the agent together and starting its loop.

use e2wire_agent::agent::{Agent, Facts};
use e2wire_agent::clock::Clock;
use e2wire_agent::memory::Memory;
use e2wire_protocol::message::Rights;
use heapless::Vec;

use super::clock::BootClock;
use super::devices::Disks;
use super::endpoint::Served;
use super::kmsg::KernelLog;
use super::once::Once;
use super::options::Options;
use super::serve::{Chores, End, NoChores, Server};
use super::zstd::Zstd;
use super::{machine, signal};

static MEMORY: Once<Memory> = Once::new(Memory::new());

/// Serves as an ordinary program, until nobody can come any more.
///
/// # Errors
///
/// What cannot be had to begin with.
pub(crate) fn serve(options: Options) -> Result<End, &'static str> {
    serve_with(options, Rights::READ, &mut NoChores)
}

/// Serves with `rights` for everybody, and `chores` to be done meanwhile.
///
/// # Errors
///
/// What cannot be had to begin with.
pub(crate) fn serve_with(
    options: Options,
    rights: Rights,
    chores: &mut impl Chores,
) -> Result<End, &'static str> {
    signal::ignore_hangups();
    let memory = MEMORY.take().ok_or("it is running already")?;
    let facts = Facts {
        boot: machine::boot_id(),
        build: machine::build_id(),
        version: env!("CARGO_PKG_VERSION"),
        rights: if options.rw { rights.with(Rights::WRITE) } else { rights }
            .with(Rights::INSECURE),
        machine: machine::describe(),
        started: BootClock.now(),
    };
    let mut endpoints = Vec::new();
    for endpoint in options.endpoints {
        // As many as there can be options.
        let _ = endpoints.push(Served::new(endpoint));
    }
    let mut server = Server {
        agent: Agent::new(memory, facts),
        disks: Disks::take(options.devices)
            .map_err(|_| "the kernel gives no event descriptor")?,
        zstd: Zstd::take().ok_or("the compressor does not start")?,
        kernel_log: KernelLog::open(),
        endpoints,
        lines: [const { None }; _],
        sessions: [false; _],
    };
    defmt::info!("agent up, everybody is served: --insecure");
    if facts.rights.has(Rights::WRITE) {
        defmt::info!("hosts may write: --rw");
    }
    Ok(server.run(chores))
}
