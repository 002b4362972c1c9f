//! What an agent can be asked for, one call each.

use std::time::Duration;

use e2wire_protocol::chunk::SectorRange;
use e2wire_protocol::digest::{DeviceId, RangeDigest};
use e2wire_protocol::message::{
    DigestForm, DigestUnits, DrainLog, Failure, Find, ListDevices, LogPiece,
    LogStream, PowerAction, RequestBody, Rights, SameUnits, Task,
};

use super::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::remote::client::{DeviceRecord, Event, Ticket, Trouble};
use crate::remote::moment::Moment;

/// Devices asked for in one request.
const DEVICES_PAGE: u16 = 16;

/// The most devices that are taken from an agent.
const DEVICES_MAX: usize = 4096;

/// What takes less is over before the clock can tell.
const MEASURED_MIN: Duration = Duration::from_millis(80);

/// How long to wait for the answer of a machine that is to go down.
const LAST_WORDS_MAX: Duration = Duration::from_secs(10);

impl Session<'_> {
    /// Lists the devices of the agent's machine.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn devices(&mut self, rescan: bool) -> Result<Vec<DeviceRecord>> {
        let mut devices: Vec<DeviceRecord> = Vec::new();
        let mut first = 0;
        loop {
            let list = ListDevices {
                rescan: rescan && first == 0,
                first,
                count: DEVICES_PAGE,
            };
            let ticket = self.client.ask(RequestBody::Devices(list));
            let before = devices.len();
            loop {
                match self.answer(ticket)? {
                    Event::Device(_, device) => devices.push(*device),
                    Event::Done(_) => break,
                    _ => return Err(self.strange("a list of devices")),
                }
            }
            first = first.saturating_add(DEVICES_PAGE);
            let whole = devices.len() - before == usize::from(DEVICES_PAGE);
            if !whole || devices.len() >= DEVICES_MAX {
                devices.sort_by_key(|device| device.index);
                return Ok(devices);
            }
        }
    }

    /// The digests of all units of a range; the last may be shorter. A unit
    /// that could not be read has the digest that stands for that.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn digest(
        &mut self,
        device: DeviceId,
        range: SectorRange,
        unit_sectors: u32,
    ) -> Result<Vec<RangeDigest>> {
        let form = DigestForm::Range;
        let task = Task::Digest(DigestUnits { range, unit_sectors, form });
        let ticket = self.client.fetch(device, task);
        let body = self.body(ticket)?;
        let units = range.count().div_ceil(unit_sectors.max(1));
        let (digests, rest) = body.as_chunks::<32>();
        if !rest.is_empty() || digests.len() as u64 != u64::from(units) {
            return Err(self.strange("digests"));
        }
        Ok(digests.iter().map(|digest| RangeDigest(*digest)).collect())
    }

    /// The digests of ranges of at most 1 GiB, each as a whole.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn digests(
        &mut self,
        device: DeviceId,
        ranges: &[SectorRange],
    ) -> Result<Vec<RangeDigest>> {
        let form = DigestForm::Range;
        let tickets: Vec<Ticket> = ranges
            .iter()
            .map(|&range| {
                let unit_sectors = range.count();
                let digest = DigestUnits { range, unit_sectors, form };
                self.client.fetch(device, Task::Digest(digest))
            })
            .collect();
        let mut digests = Vec::with_capacity(ranges.len());
        for ticket in tickets {
            let body = self.body(ticket)?;
            let Ok(digest) = <[u8; 32]>::try_from(body.as_slice()) else {
                return Err(self.strange("a digest"));
            };
            digests.push(RangeDigest(digest));
        }
        Ok(digests)
    }

    /// Bytes that the line carries in a second, frames and all: measured with
    /// digests, which nothing compresses. `None` when there is no device to
    /// make digests of, or the line is too fast for that.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn measure(&mut self) -> Result<Option<u64>> {
        let devices = self.devices(false)?;
        let largest = devices.iter().max_by_key(|device| device.size);
        let Some(device) = largest else { return Ok(None) };
        let unit = device.logical_sector.max(512) / 512;
        let sectors = device.size / 512;
        // Up to 64 KiB of digests: the most that a result may have.
        for units in [64_u32, 256, 2048] {
            let count = units.saturating_mul(unit);
            let range = SectorRange::new(0, count)
                .filter(|_| u64::from(count) <= sectors);
            let Some(range) = range else { break };
            let (start, before) = (self.now(), self.counters());
            self.digest(device.id, range, unit)?;
            let time = self.now().since(start);
            let time = time.saturating_sub(self.client.round_trip());
            if time >= MEASURED_MIN {
                let bytes = self.counters().received_bytes;
                let bytes = bytes.saturating_sub(before.received_bytes);
                return Ok(Some((bytes as f64 / time.as_secs_f64()) as u64));
            }
        }
        Ok(None)
    }

    /// Which units of pairs of ranges are equal, comparison by comparison:
    /// two bits a unit, see [`SameUnits`].
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn same(
        &mut self,
        device: DeviceId,
        comparisons: Vec<SameUnits>,
    ) -> Result<Vec<Vec<u8>>> {
        let tickets: Vec<Ticket> = comparisons
            .into_iter()
            .map(|same| self.client.fetch(device, Task::Same(same)))
            .collect();
        let bodies = tickets.into_iter().map(|it| self.body(it));
        bodies.collect()
    }

    /// Has the agent look where a range holds a pattern, see
    /// [`Self::found`].
    pub fn find(&mut self, device: DeviceId, find: Find) -> Ticket {
        self.client.fetch(device, Task::Find(find))
    }

    /// What [`Self::find`] has found, as
    /// [`Matches`](e2wire_protocol::message::Matches) reads it.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn found(&mut self, ticket: Ticket) -> Result<Vec<u8>> {
        self.body(ticket)
    }

    /// What was asked for is no longer of interest.
    pub fn forget(&mut self, ticket: Ticket) {
        self.client.forget(ticket);
        self.answers.retain(|event| !is_of(event, ticket));
    }

    /// Makes what was written to a device safe.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn flush(&mut self, device: DeviceId) -> Result<()> {
        self.done(RequestBody::Flush(device))
    }

    /// Restarts the machine or switches it off.
    ///
    /// # Errors
    ///
    /// What the agent answers; [`ErrorKind::Interrupted`] when it stops
    /// answering before it has said that it will.
    pub fn power(&mut self, action: PowerAction) -> Result<()> {
        // A machine that goes down does not come back to say so.
        self.patience.wait = self.patience.wait.min(LAST_WORDS_MAX);
        self.done(RequestBody::Power(action)).map_err(|error| {
            if error.kind() != ErrorKind::Interrupted {
                return error;
            }
            Error::new(
                ErrorKind::Interrupted,
                "the machine was asked to, and has not said that it will",
            )
            .because(error)
            .hint("`e2wire probe` tells whether it did")
        })
    }

    /// What a log holds from a position on, after waiting for it for
    /// `wait_millis` when there is nothing yet.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn log(
        &mut self,
        stream: LogStream,
        from: u64,
        wait_millis: u32,
    ) -> Result<(LogPiece, Vec<u8>)> {
        let drain = DrainLog { stream, from, bytes: 4096, wait_millis };
        let ticket = self.client.ask(RequestBody::Log(drain));
        match self.answer(ticket)? {
            Event::Log(_, piece, bytes) => Ok((piece, bytes)),
            _ => Err(self.strange("a log")),
        }
    }

    fn body(&mut self, ticket: Ticket) -> Result<Vec<u8>> {
        match self.answer(ticket)? {
            Event::Body(_, body) => Ok(body),
            _ => Err(self.strange("a result")),
        }
    }

    pub(super) fn done(&mut self, body: RequestBody) -> Result<()> {
        let ticket = self.client.ask(body);
        match self.answer(ticket)? {
            Event::Done(_) => Ok(()),
            _ => Err(self.strange("an acknowledgement")),
        }
    }

    pub(super) fn strange(&self, expected: &str) -> Error {
        Error::new(
            ErrorKind::Protocol,
            format!(
                "the agent at {} answered something else than {expected}",
                self.line.name()
            ),
        )
    }

    /// Waits for the next event of `ticket`.
    pub(super) fn answer(&mut self, ticket: Ticket) -> Result<Event> {
        loop {
            let of_ticket = |event: &Event| is_of(event, ticket);
            if let Some(place) = self.answers.iter().position(of_ticket) {
                return match self.answers.remove(place) {
                    Some(Event::Failed(_, trouble)) => {
                        Err(trouble_error(trouble, &self.line.name()))
                    }
                    Some(event) => Ok(event),
                    None => Err(self.strange("that")),
                };
            }
            if let Err(error) = self.step(Moment::NEVER) {
                self.client.forget(ticket);
                return Err(error);
            }
        }
    }
}

/// Whether `event` answers `ticket`.
fn is_of(event: &Event, ticket: Ticket) -> bool {
    match event {
        Event::Body(this, ..)
        | Event::Device(this, _)
        | Event::Log(this, ..)
        | Event::Done(this)
        | Event::Wrote(this, _)
        | Event::Failed(this, _) => *this == ticket,
        _ => false,
    }
}

/// What the agent answered, as an error.
#[must_use]
pub fn trouble_error(trouble: Trouble, line: &str) -> Error {
    let failure = match trouble {
        Trouble::Refused(failure) => failure,
        Trouble::Nonsense => {
            return Error::new(
                ErrorKind::Protocol,
                format!(
                    "what the agent at {line} sends does not prove right, \
                     again and again"
                ),
            )
            .hint("is something rewriting the bytes on the way?");
        }
    };
    let kind = match failure {
        Failure::Rights(_) => ErrorKind::NotAuthorised,
        Failure::NoDevice | Failure::Open(_) | Failure::Device(_) => {
            ErrorKind::NoFilesystem
        }
        Failure::Unsupported
        | Failure::ArmedElsewhere
        | Failure::InUse(_)
        | Failure::ReadOnly => ErrorKind::Refused,
        Failure::NotKept | Failure::WriteFailed(_) => {
            ErrorKind::WriteIncomplete
        }
        _ => ErrorKind::Protocol,
    };
    let error =
        Error::new(kind, format!("the agent at {line} answers: {failure}"));
    match failure {
        Failure::Rights(missing) if missing.has(Rights::WRITE) => error
            .intact("nothing was written")
            .hint("start the agent with --rw, or build its initrd with --rw"),
        Failure::InUse(_) => error.intact("nothing was written").hint(
            "unmount it, switch the swap off, or stop what holds it, on the \
             other machine",
        ),
        Failure::ArmedElsewhere => error
            .intact("nothing was written by this run")
            .hint("end the other run; ten seconds later this one may go on"),
        _ => error,
    }
}
