//! A device that may come to be written: the one door to it, here or there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use e2wire_protocol::message::DeviceFlags;

use crate::commands::reach::{Reach, Shared, connect, find};
use crate::error::{Error, ErrorKind, Result};
use crate::identify::identify;
use crate::install::Arming;
use crate::install::target::WriteTarget;
use crate::inventory::ContentKind;
use crate::local::devices::SystemPaths;
use crate::local::usage::{Usage, usage};
use crate::local::{LocalSource, LocalWriter};
use crate::observer::Observer;
use crate::remote::client::DeviceRecord;
use crate::remote::source::RemoteDevice;
use crate::remote::target::Target;
use crate::remote::write::RemoteTarget;
use crate::source::{BlockSource, DiskIdentity, SourceFacts};
use crate::stop::Stop;
use crate::text;
use crate::units::{ByteCount, ByteOffset};

/// A device, open for reading, that knows who it is and what uses it.
///
/// All addresses are those of the device, wherever on it a filesystem starts.
pub struct Reached<'w> {
    source: Box<dyn BlockSource + 'w>,
    usage: Usage,
    way: Box<dyn Way + 'w>,
    /// The target, unless it is this machine, and the device, as they were
    /// typed.
    typed: (Option<String>, String),
}

/// How a device is written.
pub trait Way {
    /// Arms the device for one plan, and keeps everybody else from it.
    ///
    /// # Errors
    ///
    /// As [`Reached::arm`].
    fn arm(&self, arming: &Arming) -> Result<Box<dyn WriteTarget + '_>>;
}

/// By the kernel here.
struct Local(PathBuf);

/// By an agent.
struct Remote<'w>(Shared<'w>, DeviceRecord);

impl<'w> Reached<'w> {
    /// Finds `device`; nothing is written, and nobody is kept from it.
    ///
    /// # Errors
    ///
    /// As [`crate::commands::reach::Origin::new`].
    pub fn open(
        reach: &Reach,
        device: &Path,
        observer: &'w dyn Observer,
        stop: &Stop,
    ) -> Result<Self> {
        if reach.target != Target::Local {
            let session = connect(reach, observer, stop)?;
            let mut reached = Self::over(session, device)?;
            reached.typed = (Some(reach.target.to_string()), typed(device));
            return Ok(reached);
        }
        let source = LocalSource::open(device, ByteOffset(0))?;
        let usage = usage(device, &SystemPaths::default())?;
        let way = Box::new(Local(device.to_owned()));
        let typed = (None, typed(device));
        Ok(Self { source: Box::new(source), usage, way, typed })
    }

    /// Finds `device` at the other end of a session.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NoFilesystem`] when there is none of that name.
    pub fn over(session: Shared<'w>, device: &Path) -> Result<Self> {
        let record = find(&session, device)?;
        let shared = Arc::clone(&session);
        let source = RemoteDevice::new(shared, record.clone(), ByteOffset(0))?;
        let usage = remote_usage(&record, source.facts());
        let way = Box::new(Remote(session, record));
        Ok(Self::with(Box::new(source), usage, way))
    }

    /// A device of any making.
    #[must_use]
    pub fn with(
        source: Box<dyn BlockSource + 'w>,
        usage: Usage,
        way: Box<dyn Way + 'w>,
    ) -> Self {
        let typed = (None, source.facts().name.clone());
        Self { source, usage, way, typed }
    }

    /// What it holds now.
    #[must_use]
    pub fn source(&self) -> &(dyn BlockSource + 'w) {
        self.source.as_ref()
    }

    /// How people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.source.facts().name
    }

    /// Whether it lies at the end of a line.
    #[must_use]
    pub const fn is_remote(&self) -> bool {
        self.typed.0.is_some()
    }

    /// The command that takes back what `undo_file` has kept.
    #[must_use]
    pub fn undo_command(&self, undo_file: &Path) -> String {
        let (target, device) = &self.typed;
        let mut words = vec!["e2wire"];
        if let Some(target) = target {
            words.extend(["-t", target]);
        }
        let undo_file = undo_file.display().to_string();
        words.extend(["undo", &undo_file, device]);
        let quoted: Vec<_> = words.into_iter().map(text::shell).collect();
        quoted.join(" ")
    }

    /// Its length.
    #[must_use]
    pub fn length(&self) -> ByteCount {
        self.source.facts().length
    }

    /// The same for this device tomorrow, another one for each other device.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        &self.usage.id
    }

    /// Who made the disk, and which one it is.
    #[must_use]
    pub const fn disk(&self) -> &DiskIdentity {
        &self.usage.disk
    }

    /// The disk's identity as a list, for the facts of a plan.
    #[must_use]
    pub fn disk_facts(&self) -> Vec<String> {
        let DiskIdentity { model, serial, wwn } = self.disk();
        [("model", model), ("serial", serial), ("wwn", wwn)]
            .into_iter()
            .filter_map(|(name, value)| {
                Some(format!("{name} {}", value.as_ref()?))
            })
            .collect()
    }

    /// Refuses a device that is in use, or a part of something larger.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] then, or when nobody can say.
    pub fn refuse_used(&self) -> Result<()> {
        if !self.usage.used_by.is_empty() {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{} is in use: {}",
                    self.name(),
                    self.usage.used_by.join(", ")
                ),
            )
            .intact("nothing was written")
            .hint("unmount it and stop what is built on it, then try again"));
        }
        let member = identify(self.source())?.into_iter().find(|content| {
            matches!(
                content.kind,
                ContentKind::LvmPv | ContentKind::MdMember | ContentKind::Luks
            )
        });
        let Some(member) = member else { return Ok(()) };
        Err(Error::new(
            ErrorKind::Refused,
            format!(
                "{} is a member of something larger ({}): a filesystem on it \
                 would not lie where it seems to",
                self.name(),
                member.kind.name()
            ),
        )
        .intact("nothing was written")
        .hint(
            "write to the volume or array itself; if the mark is left over \
             from an earlier use, remove it first (wipefs)",
        ))
    }

    /// Arms the device for one plan, and keeps everybody else from it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refused`] when somebody has it; else as opening and
    /// reaching it.
    pub fn arm(&self, arming: &Arming) -> Result<Box<dyn WriteTarget + '_>> {
        self.way.arm(arming)
    }
}

fn typed(device: &Path) -> String {
    device.display().to_string()
}

impl Way for Local {
    fn arm(&self, arming: &Arming) -> Result<Box<dyn WriteTarget + '_>> {
        Ok(Box::new(LocalWriter::open(&self.0, arming)?))
    }
}

impl Way for Remote<'_> {
    fn arm(&self, arming: &Arming) -> Result<Box<dyn WriteTarget + '_>> {
        let Self(session, record) = self;
        let session = Arc::clone(session);
        Ok(Box::new(RemoteTarget::arm(session, record.clone(), arming)?))
    }
}

/// What an agent's list says of a device; the agent looks again when it is
/// armed.
fn remote_usage(record: &DeviceRecord, facts: &SourceFacts) -> Usage {
    let mut used_by = Vec::new();
    if record.flags.has(DeviceFlags::MOUNTED_READ_WRITE) {
        used_by.push("mounted read/write".to_owned());
    } else if !record.holders.is_empty() {
        used_by.push(format!("held by {}", record.holders));
    } else if record.flags.has(DeviceFlags::IN_USE) {
        used_by.push("mounted, swap, or a disk of which a part is".to_owned());
    }
    if record.flags.has(DeviceFlags::READ_ONLY) {
        used_by.push("read-only over there".to_owned());
    }
    let (id, disk) = (record.id.0.to_vec(), facts.disk.clone());
    Usage { used_by, id, disk }
}
