//! What the agent was told to do: on its command line, or on the kernel's.

use core::ffi::CStr;
use core::net::SocketAddr;

use heapless::Vec;

use super::devices::NAMED_MAX;
use super::text::Path;

/// The most ports that may be asked for.
pub(crate) const ENDPOINTS_MAX: usize = 16;

/// The port that is listened on when none is named.
pub(crate) const TCP_PORT: u16 = 7220;

/// How a host reaches the agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "no heap to box it")]
pub(crate) enum Endpoint {
    /// Standard input and output.
    Stdio,
    /// A serial line, at this speed or the one it has.
    Serial(Path, Option<u32>),
    /// Connections that come to this address.
    Listen(SocketAddr),
    /// A host that is called until it answers.
    Connect(SocketAddr),
}

/// What the agent was told.
#[derive(Debug)]
pub(crate) struct Options {
    /// The ways to it.
    pub(crate) endpoints: Vec<Endpoint, ENDPOINTS_MAX>,
    /// What to offer instead of all block devices.
    pub(crate) devices: Vec<Path, NAMED_MAX>,
    /// Serve whoever comes.
    pub(crate) insecure: bool,
    /// Let hosts write.
    pub(crate) rw: bool,
}

/// What the command line asks for.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "no heap to box it")]
pub(crate) enum Command {
    /// Serve.
    Serve(Options),
    /// Print the version.
    Version,
    /// Print how it is used.
    Help,
}

/// What is wrong with a command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum UsageError<'a> {
    /// No such option.
    Unknown(&'a CStr),
    /// The option needs a value.
    NoValue(&'a CStr),
    /// The value cannot be understood.
    BadValue(&'a CStr, &'a CStr),
    /// More of these than there is room for.
    TooMany(&'a CStr),
    /// No way to reach the agent is named.
    NoEndpoint,
    /// Nobody is authorised, and that was not said to be meant.
    NotInsecure,
}

impl<'a> UsageError<'a> {
    /// The message, in pieces to be printed one behind the other.
    pub(crate) fn pieces(self) -> [&'a [u8]; 4] {
        match self {
            Self::Unknown(option) => {
                [b"unknown option ", option.to_bytes(), b"", b""]
            }
            Self::NoValue(option) => {
                [b"", option.to_bytes(), b" needs a value", b""]
            }
            Self::BadValue(option, value) => [
                option.to_bytes(),
                b" cannot be ",
                value.to_bytes(),
                b": see --help",
            ],
            Self::TooMany(option) => {
                [b"too many of ", option.to_bytes(), b"", b""]
            }
            Self::NoEndpoint => [
                b"name a way to reach the agent: --stdio, --listen, \
                  --connect or --serial",
                b"",
                b"",
                b"",
            ],
            Self::NotInsecure => [
                b"whoever reaches the agent could read the disks; say \
                  --insecure if that is meant",
                b"",
                b"",
                b"",
            ],
        }
    }
}

impl Options {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        Self {
            endpoints: Vec::new(),
            devices: Vec::new(),
            insecure: false,
            rw: false,
        }
    }
}

/// Understands the arguments of the program, without its name.
///
/// # Errors
///
/// What is wrong with them.
pub(crate) fn parse<'a>(
    arguments: &[&'a CStr],
) -> Result<Command, UsageError<'a>> {
    let mut options = Options::new();
    let mut rest = arguments.iter().copied();
    while let Some(argument) = rest.next() {
        let (option, value) = split(argument);
        let mut value = || {
            value.or_else(|| rest.next()).ok_or(UsageError::NoValue(argument))
        };
        let endpoint = match option {
            b"--stdio" => Endpoint::Stdio,
            b"--listen" => Endpoint::Listen(address(argument, value()?)?),
            b"--connect" => Endpoint::Connect(address(argument, value()?)?),
            b"--serial" => {
                let value = value()?;
                serial(value.to_bytes())
                    .ok_or(UsageError::BadValue(argument, value))?
            }
            b"--device" => {
                let value = value()?;
                let path = Path::from_parts(&[value.to_bytes()])
                    .ok_or(UsageError::BadValue(argument, value))?;
                let full = |_| UsageError::TooMany(argument);
                options.devices.push(path).map_err(full)?;
                continue;
            }
            b"--insecure" => {
                options.insecure = true;
                continue;
            }
            b"--rw" => {
                options.rw = true;
                continue;
            }
            b"--version" => return Ok(Command::Version),
            b"--help" | b"-h" => return Ok(Command::Help),
            _ => return Err(UsageError::Unknown(argument)),
        };
        let full = |_| UsageError::TooMany(argument);
        options.endpoints.push(endpoint).map_err(full)?;
    }
    if options.endpoints.is_empty() {
        Err(UsageError::NoEndpoint)
    } else if !options.insecure {
        Err(UsageError::NotInsecure)
    } else {
        Ok(Command::Serve(options))
    }
}

/// `--option=value` in its parts.
fn split(argument: &CStr) -> (&[u8], Option<&CStr>) {
    let whole = argument.to_bytes_with_nul();
    let equals = argument.to_bytes().iter().position(|b| *b == b'=');
    let Some((option, value)) =
        equals.and_then(|place| whole.split_at_checked(place))
    else {
        return (argument.to_bytes(), None);
    };
    let value = value.get(1..).unwrap_or_default();
    (option, CStr::from_bytes_with_nul(value).ok())
}

fn address<'a>(
    option: &'a CStr,
    value: &'a CStr,
) -> Result<SocketAddr, UsageError<'a>> {
    socket_address(value.to_bytes()).ok_or(UsageError::BadValue(option, value))
}

/// `1.2.3.4:7220`, `[fe80::1]:7220`, or either without a port.
pub(crate) fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let text = core::str::from_utf8(bytes).ok()?;
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    text.parse().ok().or_else(|| {
        let ip = bare.unwrap_or(text).parse().ok()?;
        Some(SocketAddr::new(ip, TCP_PORT))
    })
}

/// `/dev/ttyS1`, `/dev/ttyS1,115200`, and what the kernel lets follow a speed
/// (`ttyS1,115200n8`), which says nothing new.
pub(crate) fn serial(bytes: &[u8]) -> Option<Endpoint> {
    let mut parts = bytes.split(|byte| *byte == b',');
    let name = parts.next().filter(|name| !name.is_empty())?;
    let speed = parts.next();
    if parts.next().is_some() {
        return None;
    }
    let path = if name.starts_with(b"/") {
        Path::from_parts(&[name])
    } else {
        Path::from_parts(&[b"/dev/", name])
    }?;
    let baud = match speed {
        Some(speed) => Some(baud(speed)?),
        None => None,
    };
    Some(Endpoint::Serial(path, baud))
}

/// `115200`, `115200n8`, `115200n8r`.
pub(crate) fn baud(bytes: &[u8]) -> Option<u32> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, rest) = bytes.split_at_checked(digits)?;
    let known = [&b""[..], b"n", b"n8", b"n8r"].contains(&rest);
    let baud = core::str::from_utf8(number).ok()?.parse().ok()?;
    (known && baud > 0).then_some(baud)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(arguments: &[&CStr]) -> Vec<Endpoint, ENDPOINTS_MAX> {
        match parse(arguments) {
            Ok(Command::Serve(options)) => options.endpoints,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn every_kind_of_port_may_be_asked_for_at_once() {
        let found = endpoints(&[
            c"--stdio",
            c"--listen",
            c"0.0.0.0:7220",
            c"--listen=[::]:1",
            c"--connect=10.0.2.2",
            c"--serial",
            c"/dev/ttyS1,57600",
            c"--serial=ttyUSB0",
            c"--serial=ttyS0,115200n8",
            c"--insecure",
        ]);
        let path = |path: &CStr| Path::from_parts(&[path.to_bytes()]).unwrap();
        let address = |text: &str| text.parse().unwrap();
        assert_eq!(
            found.as_slice(),
            [
                Endpoint::Stdio,
                Endpoint::Listen(address("0.0.0.0:7220")),
                Endpoint::Listen(address("[::]:1")),
                Endpoint::Connect(address("10.0.2.2:7220")),
                Endpoint::Serial(path(c"/dev/ttyS1"), Some(57600)),
                Endpoint::Serial(path(c"/dev/ttyUSB0"), None),
                Endpoint::Serial(path(c"/dev/ttyS0"), Some(115_200)),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        use UsageError::{
            BadValue, NoEndpoint, NoValue, NotInsecure, TooMany, Unknown,
        };
        let many = [c"--stdio"; ENDPOINTS_MAX + 1];
        for (arguments, error) in [
            (&[][..], NoEndpoint),
            (&[c"--insecure"], NoEndpoint),
            (&[c"--stdio"], NotInsecure),
            (&[c"--stdoi"], Unknown(c"--stdoi")),
            (&[c"--listen"], NoValue(c"--listen")),
            (&[c"--listen", c"x:1"], BadValue(c"--listen", c"x:1")),
            (&[c"--connect", c"1.2.3.4:"], BadValue(c"--connect", c"1.2.3.4:")),
            (&[c"--serial", c"a,0"], BadValue(c"--serial", c"a,0")),
            (&[c"--serial", c"a,9600x"], BadValue(c"--serial", c"a,9600x")),
            (&[c"--serial", c""], BadValue(c"--serial", c"")),
            (&many, TooMany(c"--stdio")),
        ] {
            assert_eq!(parse(arguments).unwrap_err(), error);
        }
    }

    #[test]
    fn devices_and_questions_are_understood() {
        let arguments =
            [c"--stdio", c"--insecure", c"--device=/a", c"--device", c"/b"];
        let Ok(Command::Serve(options)) = parse(&arguments) else {
            panic!("not understood");
        };
        assert_eq!(options.devices.len(), 2);
        assert!(!options.rw);
        let Ok(Command::Serve(options)) =
            parse(&[c"--stdio", c"--rw", c"--insecure"])
        else {
            panic!("not understood");
        };
        assert!(options.rw);
        assert!(matches!(parse(&[c"--version"]), Ok(Command::Version)));
        assert!(matches!(parse(&[c"--help"]), Ok(Command::Help)));
    }
}
