//! Reaching devices, here or there: the one door for all verbs that read.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use e2wire_protocol::message::Rights;

use crate::commands::agent_log::{AgentLog, LogWish};
use crate::commands::planned::Planned;
use crate::error::{Error, ErrorKind, Result};
use crate::identify::identify;
use crate::inventory::{Contents, Device};
use crate::local::devices::SystemPaths;
use crate::local::output::beside;
use crate::local::usage::usage;
use crate::local::{LocalFile, LocalSource};
use crate::observer::{Event, Observer};
use crate::remote::client::{AgentFacts, DeviceRecord};
use crate::remote::inventory::{self, Selector};
use crate::remote::line::PortLine;
use crate::remote::port;
use crate::remote::session::{News, Patience, Session};
use crate::remote::source::RemoteDevice;
use crate::remote::target::Target;
use crate::source::{BlockSource, SourceFacts, SourceKind};
use crate::spool::{Identity, SharedStore, Spool, Store, StoreOptions, Supply};
use crate::stop::Stop;
use crate::text;
use crate::units::{ByteCount, ByteOffset};

/// Where devices are, and how long to wait for them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reach {
    /// Whose devices.
    pub target: Target,
    /// How long to wait for what.
    pub patience: Patience,
    /// What to show of the agent's own log.
    pub agent_log: Option<LogWish>,
}

impl Reach {
    /// Refuses this machine, for what is done at the other end of a line.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`], with `why`.
    pub fn require_line(&self, why: &str) -> Result<()> {
        if self.target != Target::Local {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Usage, why)
            .hint("name the line with --target, as serial:/dev/ttyUSB0"))
    }
}

/// Where what arrives from a remote device is kept.
#[derive(Clone, Copy, Debug)]
pub enum SpoolPlace<'a> {
    /// In `PATH.spool`, until the job is done: the same command goes on from
    /// it.
    Beside(&'a Path),
    /// In the user's cache: the image that follows takes it over.
    Planned,
    /// Nowhere that lasts.
    Temporary,
}

/// A session that several readers share.
pub type Shared<'w> = Arc<Mutex<Session<'w>>>;

/// A device that an image is made of.
pub enum Origin<'w> {
    /// Of this machine.
    Local(LocalSource),
    /// Of another one.
    Remote(Box<RemoteDevice<'w>>),
}

impl<'w> Origin<'w> {
    /// Reaches `device`, from `offset` on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoLink`] when the target is not reached;
    /// [`ErrorKind::NoFilesystem`] when it has no such device.
    pub fn new(
        reach: &Reach,
        device: &Path,
        offset: ByteOffset,
        observer: &'w dyn Observer,
        stop: &Stop,
    ) -> Result<Self> {
        if reach.target == Target::Local {
            return LocalSource::open(device, offset).map(Self::Local);
        }
        let session = connect(reach, observer, stop)?;
        let record = find(&session, device)?;
        let source = RemoteDevice::new(session, record, offset)?;
        Ok(Self::Remote(Box::new(source)))
    }

    /// What the device is.
    #[must_use]
    pub fn facts(&self) -> &SourceFacts {
        match self {
            Self::Local(source) => source.facts(),
            Self::Remote(source) => Supply::facts(source.as_ref()),
        }
    }

    /// What tells the machine and the device from others, in every run.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let identity = match self {
            Self::Local(source) => {
                let name = rustix::system::uname();
                Identity::new()
                    .with("machine", name.nodename().to_string_lossy())
                    .with("device", local_id(source.facts()))
            }
            Self::Remote(source) => {
                let machine = source.session().agent().map(AgentFacts::machine);
                Identity::new()
                    .with("machine", machine.unwrap_or_default())
                    .with("device", source.device().id)
            }
        };
        identity.with("size", self.facts().length)
    }

    /// The device as a source; of another machine with a spool in front of
    /// it. `identity` is what a job that goes on from an unfinished one must
    /// have in common with it.
    ///
    /// # Errors
    ///
    /// What opening and reading local files brings, and what the line does.
    pub fn open(
        self,
        place: SpoolPlace<'_>,
        identity: &Identity,
        observer: &dyn Observer,
    ) -> Result<Opened<'w>> {
        let device_identity = self.identity();
        let device = match self {
            Self::Local(source) => {
                let source = Box::new(source);
                return Ok(Opened { source, files: Vec::new(), planned: None });
            }
            Self::Remote(device) => *device,
        };
        let planned = Planned::of(&device_identity);
        let keeps = matches!(place, SpoolPlace::Planned);
        let (data, map, files) = match place {
            SpoolPlace::Beside(path) => {
                let files =
                    vec![beside(path, ".spool"), beside(path, ".spool.map")];
                let open = |index: usize| LocalFile::open(&files[index]);
                (open(0)?, open(1)?, files)
            }
            SpoolPlace::Planned | SpoolPlace::Temporary => {
                let planned = planned.as_ref().filter(|_| keeps);
                let (data, map) = match planned.and_then(Planned::open) {
                    Some(files) => files,
                    None => (LocalFile::temporary()?, LocalFile::temporary()?),
                };
                (data, map, Vec::new())
            }
        };
        let options = StoreOptions::new(ByteOffset(0), !files.is_empty());
        let mut store =
            Store::open(Box::new(data), Box::new(map), identity, options)?;
        if !keeps {
            take_over_planned(&mut store, &device_identity)?;
        }
        let spool = Spool::open(device, store)?;
        tell_resumed(spool.store(), observer);
        let planned = planned.filter(|_| !files.is_empty());
        Ok(Opened { source: Box::new(spool), files, planned })
    }
}

/// Takes over what a plan has fetched of the device, if the store of the job
/// has nothing yet.
///
/// # Errors
///
/// [`ErrorKind::LocalIo`] when the store cannot be written.
pub(super) fn take_over_planned(
    store: &mut Store,
    device: &Identity,
) -> Result<()> {
    match Planned::of(device) {
        Some(planned) => planned.take_over(device, store),
        None => Ok(()),
    }
}

/// The image is there: what a plan has fetched of the device has served.
pub(super) fn forget_planned(device: &Identity) {
    if let Some(planned) = Planned::of(device) {
        planned.forget();
    }
}

/// Who a disk of this machine is, whatever name it has today; a file by its
/// name.
fn local_id(facts: &SourceFacts) -> String {
    let path = Path::new(&facts.name);
    if facts.kind == SourceKind::BlockDevice
        && let Ok(usage) = usage(path, &SystemPaths::default())
    {
        return String::from_utf8_lossy(&usage.id).into_owned();
    }
    let real = path.canonicalize();
    real.unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Says that an earlier run helps this one.
pub fn tell_resumed(store: &SharedStore, observer: &dyn Observer) {
    let resumed = store.lock().resumed();
    if resumed > ByteCount(0) {
        observer.event(&Event::Warning {
            code: "resumed",
            message: format!(
                "going on from an unfinished run or a plan: {} are here \
                 already",
                text::bytes(resumed)
            ),
        });
    }
}

/// A source to read, and what has to be cleared away after it.
pub struct Opened<'w> {
    source: Box<dyn BlockSource + 'w>,
    files: Vec<PathBuf>,
    planned: Option<Planned>,
}

impl<'w> Opened<'w> {
    /// What is read.
    #[must_use]
    pub fn source(&self) -> &(dyn BlockSource + 'w) {
        self.source.as_ref()
    }

    /// The job is done: nothing will go on from here.
    pub fn done(self) {
        let Self { source, files, planned } = self;
        drop(source);
        if let Some(planned) = planned {
            planned.forget();
        }
        for file in files {
            // What is left over is only in the way of nobody.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Connects to the agent of a target; what happens on the line goes to
/// `observer`.
///
/// # Errors
///
/// As [`Session::connect`].
pub fn connect<'w>(
    reach: &Reach,
    observer: &'w dyn Observer,
    stop: &Stop,
) -> Result<Shared<'w>> {
    let mut session = session(reach, stop)?;
    let mut lines = ConsoleLines::default();
    let mut log = match &reach.agent_log {
        Some(wish) => Some(AgentLog::new(wish.clone())?),
        None => None,
    };
    let follows = log.is_some();
    session.watch(Box::new(move |news| {
        match (&news, &mut log) {
            (News::Up(agent), Some(log)) => log.answers(agent.build, observer),
            (News::Log(from, bytes), Some(log)) => {
                log.take(*from, bytes, observer);
            }
            _ => {}
        }
        tell(&news, &mut lines, observer);
    }));
    session.connect()?;
    if follows {
        session.follow_log()?;
    }
    Ok(Arc::new(Mutex::new(session)))
}

/// A session that is not connected yet.
///
/// # Errors
///
/// [`ErrorKind::Usage`] for this machine; [`ErrorKind::Internal`] when the
/// system has no random bytes.
pub fn session<'w>(reach: &Reach, stop: &Stop) -> Result<Session<'w>> {
    let line = PortLine::new(port::of(&reach.target)?);
    let mut seed = [0; 32];
    crate::random::fill(&mut seed)?;
    Ok(Session::new(Box::new(line), seed, reach.patience, stop.clone()))
}

/// The longest line of console text that is shown in one piece.
const CONSOLE_LINE_MAX: usize = 400;

/// Makes lines of console text that comes in pieces.
#[derive(Debug, Default)]
pub struct ConsoleLines {
    line: Vec<u8>,
}

impl ConsoleLines {
    /// Tells `observer` every line that is whole now, and readable.
    pub fn take(&mut self, text: &[u8], observer: &dyn Observer) {
        for &byte in text {
            if byte != b'\n' && self.line.len() < CONSOLE_LINE_MAX {
                self.line.push(byte);
            } else {
                self.end(observer);
            }
        }
    }

    /// The line ends here, wherever it was.
    pub fn end(&mut self, observer: &dyn Observer) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end();
        if text::is_readable(text) {
            observer.event(&Event::Console(text));
        }
        self.line.clear();
    }
}

fn tell(news: &News<'_>, lines: &mut ConsoleLines, observer: &dyn Observer) {
    let warn = |code, message| {
        observer.event(&Event::Warning { code, message });
    };
    match news {
        News::Text(text) => lines.take(text, observer),
        News::Up(_) | News::Log(..) => {}
        News::NoLog(error) => warn(
            "agent_log_unreadable",
            format!("the agent's log is not shown: {error}"),
        ),
        News::Silent => warn(
            "link_silent",
            "the agent has stopped answering; still asking".to_owned(),
        ),
        News::Closed(why) => warn(
            "link_closed",
            format!("the line ended ({why}); opening it again"),
        ),
        News::NotYet(error) => {
            warn("link_waiting", format!("{error}; trying again"));
        }
        News::Stranger(agent) => warn(
            "other_machine",
            format!(
                "another machine answers ({}) and is sent away; waiting for \
                 the one this job began with",
                agent.machine_name()
            ),
        ),
        News::Busy(busy) => {
            if busy.waiting_millis >= 2000 {
                warn(
                    "disk_slow",
                    format!(
                        "a disk has not answered for {} s, at byte {}",
                        busy.waiting_millis / 1000,
                        busy.offset
                    ),
                );
            }
        }
    }
}

/// The devices of the target, with what lies on them.
///
/// # Errors
///
/// As [`Session::fetched`].
pub fn devices(
    session: &Shared<'_>,
    look: bool,
) -> Result<(Vec<Device>, Vec<DeviceRecord>)> {
    let records = lock(session).devices(true)?;
    let mut devices = inventory::devices(&records);
    if look {
        for device in &mut devices {
            look_at(session, &records, device)?;
            for part in &mut device.partitions {
                look_at(session, &records, part)?;
            }
        }
    }
    Ok((devices, records))
}

fn look_at(
    session: &Shared<'_>,
    records: &[DeviceRecord],
    device: &mut Device,
) -> Result<()> {
    let Some(record) = record_of(records, device) else { return Ok(()) };
    let source =
        RemoteDevice::new(Arc::clone(session), record.clone(), ByteOffset(0))?;
    device.contents = match identify(&source) {
        Ok(contents) => Contents::Known(contents),
        Err(error) if error.kind() == ErrorKind::NoFilesystem => {
            Contents::Unreadable(error.to_string())
        }
        Err(error) => return Err(error),
    };
    Ok(())
}

fn record_of<'r>(
    records: &'r [DeviceRecord],
    device: &Device,
) -> Option<&'r DeviceRecord> {
    records.iter().find(|record| inventory::path(record) == device.path)
}

/// The device that was named, by path or selector.
///
/// # Errors
///
/// [`ErrorKind::NoFilesystem`] when there is none, [`ErrorKind::Refused`] when
/// there are several.
pub(super) fn find(
    session: &Shared<'_>,
    device: &Path,
) -> Result<DeviceRecord> {
    let named = device.as_os_str().to_str();
    let selector = named.map(Selector::parse).ok_or_else(|| {
        Error::new(
            ErrorKind::Usage,
            format!("{} is no name of a device", device.display()),
        )
    })?;
    let (devices, records) = devices(session, selector.needs_contents())?;
    let picked = selector
        .pick(&devices)
        .map_err(|error| perhaps_later(error, session))?;
    record_of(&records, picked).cloned().ok_or_else(|| {
        Error::new(ErrorKind::Internal, "a device is not in its own list")
    })
}

/// A machine that has just booted finds its disks one after the other; so
/// long a slow RAID controller may take.
const DRIVERS_MILLIS: u64 = 90_000;

/// Says so when a device that is not there may still come.
fn perhaps_later(error: Error, session: &Shared<'_>) -> Error {
    let session = lock(session);
    let young = session.agent().filter(|agent| {
        agent.rights.has(Rights::POWER) && agent.uptime_millis < DRIVERS_MILLIS
    });
    match young {
        Some(agent) if error.kind() == ErrorKind::NoFilesystem => {
            error.hint(format!(
                "the machine booted {} ago and may still be looking for \
                 disks: try again in a moment; `e2wire ls` lists them",
                text::duration(agent.uptime_millis / 1000)
            ))
        }
        _ => error,
    }
}

fn lock<'a, 'w>(
    session: &'a Shared<'w>,
) -> std::sync::MutexGuard<'a, Session<'w>> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}
