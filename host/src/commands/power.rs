//! `reboot`: restarts the machine at the other end of a line, or switches it
//! off.

use e2wire_protocol::message::PowerAction;

use crate::commands::reach::{Reach, connect};
use crate::commands::{Outcome, Report};
use crate::error::{Error, ErrorKind, Result};
use crate::observer::Observer;
use crate::stop::Stop;

/// What becomes of the machine.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PowerRequest {
    /// It goes off, and does not start again.
    pub poweroff: bool,
}

/// Restarts the machine, or switches it off.
///
/// # Errors
///
/// [`ErrorKind::Usage`] for this machine; [`ErrorKind::NotAuthorised`] when
/// the agent may not; [`ErrorKind::Interrupted`] when nobody knows whether it
/// did; and as reaching it brings.
pub fn power(
    request: &PowerRequest,
    reach: &Reach,
    observer: &dyn Observer,
    stop: &Stop,
) -> Result<Report> {
    reach.require_line(
        "only a machine at the other end of a line is restarted",
    )?;
    let session = connect(reach, observer, stop)?;
    let mut session = session
        .lock()
        .map_err(|_| Error::new(ErrorKind::Internal, "a session died"))?;
    let machine =
        session.agent().map_or_else(String::new, |agent| agent.machine_name());
    let (action, becomes) = if request.poweroff {
        (PowerAction::PowerOff, "switches itself off")
    } else {
        (PowerAction::Reboot, "restarts")
    };
    session.power(action).map_err(|error| {
        if error.kind() != ErrorKind::NotAuthorised {
            return error;
        }
        Error::new(
            ErrorKind::NotAuthorised,
            format!("the agent may not restart {machine}"),
        )
        .because(error)
        .intact("the machine runs on")
        .hint(
            "only an agent that the machine has booted into can; restart a \
             machine that runs a system from there",
        )
    })?;
    Ok(Report::new(Outcome::Done)
        .line(format!("The machine {becomes}: {machine}."))
        .fact("machine", machine)
        .fact("poweroff", request.poweroff))
}
