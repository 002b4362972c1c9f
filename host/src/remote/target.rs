//! Whose devices the verbs speak of: this machine's, or those behind a port.
//!
//! This only takes the text apart; nothing is opened or looked up here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The speed of a serial line when nobody says: what nearly every server's
/// console has.
pub const BAUD_DEFAULT: u32 = 115_200;

/// The slowest and the fastest speed that makes sense.
const BAUDS: std::ops::RangeInclusive<u32> = 300..=16_000_000;

/// Where devices are looked for (`--target`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// This machine, `local:`.
    #[default]
    Local,
    /// A serial port of this machine,
    /// `serial:/dev/ttyUSB0?baud=115200&flow=none`.
    Serial {
        /// The device node of the port.
        path: PathBuf,
        /// Bits per second, 8N1.
        baud: u32,
        /// Who may say stop.
        flow: Flow,
    },
    /// An agent, or a console server, that listens: `tcp:HOST:PORT`.
    Tcp(HostPort),
    /// We listen and agents call: `listen:ADDR:PORT`.
    Listen(HostPort),
    /// A socket of this machine, `unix:PATH`: QEMU's serial port.
    Unix(PathBuf),
    /// A program in a pseudo-terminal, `exec:COMMAND LINE`.
    Exec(String),
    /// A program with plain pipes, `pipe:COMMAND LINE`.
    Pipe(String),
}

/// A host's name or address with a TCP port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostPort {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Flow control of a serial line. XON/XOFF is no choice: those two bytes
/// occur in what is sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Flow {
    /// None: the grants of the protocol bound what is under way.
    #[default]
    None,
    /// RTS and CTS, where both are wired.
    RtsCts,
}

const KNOWN: &str = "local:, serial:, tcp:, listen:, unix:, exec:, pipe:";

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(TargetError(format!(
                "a target begins with its scheme; known: {KNOWN}"
            )));
        };
        match scheme {
            "local" if rest.is_empty() => Ok(Self::Local),
            "local" => Err(TargetError(format!(
                "`local:` takes nothing behind the colon, not `{rest}`"
            ))),
            "serial" => serial(rest),
            "tcp" => Ok(Self::Tcp(host_port(scheme, rest)?)),
            "listen" => Ok(Self::Listen(host_port(scheme, rest)?)),
            "unix" => Ok(Self::Unix(given(scheme, "PATH", rest)?.into())),
            "exec" => Ok(Self::Exec(given(scheme, "COMMAND LINE", rest)?)),
            "pipe" => Ok(Self::Pipe(given(scheme, "COMMAND LINE", rest)?)),
            _ => Err(TargetError(format!(
                "unknown scheme `{scheme}:`; known: {KNOWN}"
            ))),
        }
    }
}

fn given(scheme: &str, what: &str, rest: &str) -> Result<String, TargetError> {
    if rest.trim().is_empty() {
        return Err(TargetError(format!("`{scheme}:` needs a {what}")));
    }
    Ok(rest.to_owned())
}

fn serial(rest: &str) -> Result<Target, TargetError> {
    let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let path = given("serial", "PATH", path)?;
    let mut baud = BAUD_DEFAULT;
    let mut flow = Flow::None;
    for parameter in parameters.split('&').filter(|p| !p.is_empty()) {
        match parameter.split_once('=') {
            Some(("baud", value)) => {
                baud = value
                    .parse()
                    .ok()
                    .filter(|baud| BAUDS.contains(baud))
                    .ok_or_else(|| {
                    TargetError(format!(
                        "`{value}` is no speed of a serial line; usual \
                             are 115200, 9600, 19200, 38400, 57600"
                    ))
                })?;
            }
            Some(("flow", "none")) => flow = Flow::None,
            Some(("flow", "rtscts")) => flow = Flow::RtsCts,
            Some(("flow", value)) => {
                return Err(TargetError(format!(
                    "flow control is `none` or `rtscts`, not `{value}`"
                )));
            }
            _ => {
                return Err(TargetError(format!(
                    "a serial port takes `baud=` and `flow=`, not \
                     `{parameter}`"
                )));
            }
        }
    }
    Ok(Target::Serial { path: path.into(), baud, flow })
}

fn host_port(scheme: &str, rest: &str) -> Result<HostPort, TargetError> {
    let bad = || {
        let host = if scheme == "listen" { "ADDR" } else { "HOST" };
        TargetError(format!(
            "`{scheme}:{rest}` is not of the form `{scheme}:{host}:PORT` \
             (an IPv6 address stands in brackets)"
        ))
    };
    let (host, port) = rest.rsplit_once(':').ok_or_else(bad)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(host) => host,
        None if host.contains(':') => return Err(bad()),
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
    if host.is_empty() || host.contains(['[', ']']) {
        return Err(bad());
    }
    Ok(HostPort { host: host.to_owned(), port })
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local:"),
            Self::Serial { path, baud, flow } => {
                write!(f, "serial:{}?baud={baud}", path.display())?;
                match flow {
                    Flow::None => Ok(()),
                    Flow::RtsCts => f.write_str("&flow=rtscts"),
                }
            }
            Self::Tcp(peer) => write!(f, "tcp:{peer}"),
            Self::Listen(at) => write!(f, "listen:{at}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Exec(command) => write!(f, "exec:{command}"),
            Self::Pipe(command) => write!(f, "pipe:{command}"),
        }
    }
}

/// Why a text is no target.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_back_as_it_is_shown() {
        for text in [
            "local:",
            "serial:/dev/ttyUSB0?baud=115200",
            "serial:/dev/ttyS1?baud=9600&flow=rtscts",
            "tcp:rescue.example:7000",
            "tcp:[fe80::1]:7000",
            "listen:0.0.0.0:7000",
            "listen:[::]:7000",
            "unix:/run/qemu serial.sock",
            "exec:ipmitool -I lanplus -H bmc7 sol activate",
            "pipe:ssh -T host e2wire-agent --stdio",
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn a_serial_port_has_usual_settings_unless_told() {
        let plain: Target = "serial:/dev/ttyS0".parse().unwrap();
        let told = "serial:/dev/ttyS0?flow=none&baud=115200".parse().unwrap();
        assert_eq!(plain, told);
        assert!(
            "serial:/dev/ttyS0?baud=9601&".parse::<Target>().is_ok(),
            "adapters reach unusual speeds"
        );
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for bad in [
            "",
            "local",
            "local:x",
            "tcp",
            "gopher:h:1",
            ":",
            "tcp:",
            "tcp:host",
            "tcp:host:",
            "tcp:host:0",
            "tcp:host:70000",
            "tcp::7000",
            "tcp:fe80::1:7000",
            "tcp:[::1:7000",
            "unix:",
            "exec: ",
            "pipe:",
            "serial:",
            "serial:?baud=9600",
            "serial:/dev/ttyS0?baud=fast",
            "serial:/dev/ttyS0?baud=0",
            "serial:/dev/ttyS0?flow=xonxoff",
            "serial:/dev/ttyS0?parity=even",
        ] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
