//! What a session asks for when it writes.

use std::collections::BTreeSet;
use std::time::Duration;

use e2wire_protocol::digest::{BootId, DeviceId, PlanId};
use e2wire_protocol::message::{
    Arm, Failure, RequestBody, Rights, Upload, Write,
};

use super::{Session, trouble_error};
use crate::error::Result;
use crate::remote::client::{Event, Ticket, Trouble, Wrote};
use crate::remote::moment::Moment;

/// How long an answer is worth that changes nothing any more.
const LAST_WORD_MAX: Duration = Duration::from_secs(5);

impl Session<'_> {
    /// Lets this session write the ranges of `list` (see
    /// [`ArmedRanges`](e2wire_protocol::message::ArmedRanges)), `bytes` of
    /// them at most.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers: a device in use, one
    /// that takes no writes, an agent that was started without `--rw`.
    pub fn arm(
        &mut self,
        device: DeviceId,
        plan: PlanId,
        bytes: u64,
        list: Vec<u8>,
    ) -> Result<()> {
        let rights = self.agent.as_ref().map(|agent| agent.rights);
        if !rights.unwrap_or_default().has(Rights::WRITE) {
            let trouble = Trouble::Refused(Failure::Rights(Rights::WRITE));
            return Err(trouble_error(trouble, &self.line.name()));
        }
        let Some(ranges) = Upload::of(&list) else {
            return Err(self.strange("a list of ranges"));
        };
        let arm = Arm { device, plan, bytes, ranges };
        let ticket = self.client.ask_with(RequestBody::Arm(arm), list);
        match self.answer(ticket)? {
            Event::Done(_) => Ok(()),
            _ => Err(self.strange("an acknowledgement")),
        }
    }

    /// The run of the agent that answered last.
    #[must_use]
    pub fn boot(&self) -> Option<BootId> {
        self.agent.as_ref().map(|agent| agent.boot)
    }

    /// No more is written by this session.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn disarm(&mut self, device: DeviceId) -> Result<()> {
        self.done(RequestBody::Disarm(device))
    }

    /// The same, by somebody who is about to leave and does not wait for
    /// long: an agent that does not hear it lets go by itself. Whoever was
    /// asked to stop, or has run out of time, still says it.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`], or what the agent answers.
    pub fn let_go(&mut self, device: DeviceId) -> Result<()> {
        let stop = std::mem::take(&mut self.stop);
        let patience = self.patience;
        let end = self.now().after(LAST_WORD_MAX).since_start();
        self.patience.wait = patience.wait.min(LAST_WORD_MAX);
        self.patience.deadline = Some(end);
        let told = self.disarm(device);
        self.patience = patience;
        self.stop = stop;
        told
    }

    /// Begins a write; what comes of it is told by [`Self::wrote`].
    pub fn begin_write(&mut self, write: Write, patch: Vec<u8>) -> Ticket {
        self.client.ask_with(RequestBody::Write(write), patch)
    }

    /// Waits until one of `writes` has been answered.
    ///
    /// # Errors
    ///
    /// As [`Self::fetched`]. What the agent refuses is no error here.
    pub fn wrote(
        &mut self,
        writes: &BTreeSet<Ticket>,
    ) -> Result<(Ticket, std::result::Result<Wrote, Trouble>)> {
        loop {
            let place = self.answers.iter().position(|event| {
                matches!(event, Event::Wrote(this, _) | Event::Failed(this, _)
                    if writes.contains(this))
            });
            match place.and_then(|place| self.answers.remove(place)) {
                Some(Event::Wrote(ticket, wrote)) => {
                    return Ok((ticket, Ok(wrote)));
                }
                Some(Event::Failed(ticket, why)) => {
                    return Ok((ticket, Err(why)));
                }
                _ => {}
            }
            self.step(Moment::NEVER)?;
        }
    }

    /// These are no longer of interest, whatever comes of them.
    pub fn forget_writes(&mut self, writes: &BTreeSet<Ticket>) {
        for ticket in writes {
            self.client.forget(*ticket);
        }
    }
}
