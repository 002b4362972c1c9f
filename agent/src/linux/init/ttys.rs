//! Serial ports and consoles of an agent that is init: all of them, since
//! nobody knows which one the cable is plugged into.

use core::ffi::CStr;

use heapless::Vec;
use rustix::fs::CWD;

use super::parameters::Parameters;
use crate::linux::endpoint::Served;
use crate::linux::file::Attribute;
use crate::linux::options::{ENDPOINTS_MAX, Endpoint};
use crate::linux::sysfs::for_each_in;
use crate::linux::text::Path;

/// The speed of a port that no console has set up.
const BAUD: u32 = 115_200;

/// Drivers of ports that a host may be at the other end of.
const DRIVERS: [&[u8]; 5] = [b"ttyS", b"hvc", b"ttyAMA", b"ttyUSB", b"ttyACM"];

/// Adds those that were not there before.
pub(crate) fn find(
    parameters: &Parameters,
    endpoints: &mut Vec<Served, ENDPOINTS_MAX>,
) {
    if !parameters.ports.is_empty() {
        for port in &parameters.ports {
            add(*port, endpoints);
        }
        return;
    }
    for_each_in(c"/sys/class/tty", &mut |name| {
        if is_port(name.to_bytes()) && has_hardware(name) {
            let Some(path) = Path::from_parts(&[b"/dev/", name.to_bytes()])
            else {
                return;
            };
            add(Endpoint::Serial(path, speed(name, parameters)), endpoints);
        }
    });
}

fn add(endpoint: Endpoint, endpoints: &mut Vec<Served, ENDPOINTS_MAX>) {
    let known =
        endpoints.iter().any(|served| match (&served.endpoint, &endpoint) {
            (Endpoint::Serial(one, _), Endpoint::Serial(other, _)) => {
                one == other
            }
            _ => false,
        });
    if !known {
        // Those beyond the sixteenth are left out.
        let _ = endpoints.push(Served::new(endpoint));
    }
}

/// `ttyS0`, not `ttySomething`.
fn is_port(name: &[u8]) -> bool {
    DRIVERS.iter().any(|driver| {
        name.strip_prefix(*driver).is_some_and(|number| {
            !number.is_empty() && number.iter().all(u8::is_ascii_digit)
        })
    })
}

/// The kernel keeps places for more ports of type `ttyS` than there are.
fn has_hardware(name: &CStr) -> bool {
    if !name.to_bytes().starts_with(b"ttyS") {
        return true;
    }
    let parts: [&[u8]; 3] = [b"/sys/class/tty/", name.to_bytes(), b"/type"];
    let Some(path) = Path::from_parts(&parts) else {
        return false;
    };
    // 0 is PORT_UNKNOWN. A driver without the attribute is believed.
    Attribute::read(CWD, path.as_c_str()).number() != Some(0)
}

/// A console keeps the speed that the kernel gave it, or gets the one that
/// was meant for it; all others get the same.
fn speed(name: &CStr, parameters: &Parameters) -> Option<u32> {
    let console = parameters
        .consoles
        .iter()
        .find(|(console, _)| console.as_bytes() == name.to_bytes());
    match console {
        Some((_, baud)) => *baud,
        None => Some(parameters.console_baud().unwrap_or(BAUD)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_from_other_terminals() {
        for name in ["ttyS0", "ttyS31", "hvc0", "ttyAMA1", "ttyUSB3"] {
            assert!(is_port(name.as_bytes()), "{name}");
        }
        for name in ["tty", "tty0", "ttyS", "ttySAC0", "console", "ptmx"] {
            assert!(!is_port(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn all_ports_get_the_speed_of_the_console() {
        for (line, of_ttys0, of_ttys1) in [
            ("console=ttyS0,57600n8", Some(57600), Some(57600)),
            ("console=ttyS0", None, Some(115_200)),
            ("quiet", Some(115_200), Some(115_200)),
            ("console=tty0 console=ttyS1,9600", Some(9600), Some(9600)),
        ] {
            let mut parameters = Parameters::new();
            parameters.read(line.as_bytes());
            assert_eq!(speed(c"ttyS0", &parameters), of_ttys0, "{line}");
            assert_eq!(speed(c"ttyS1", &parameters), of_ttys1, "{line}");
        }
    }

    #[test]
    fn a_port_is_added_once_and_only_as_many_as_there_is_room_for() {
        let mut parameters = Parameters::new();
        parameters.read(b"e2wire.port=ttyS1,9600 e2wire.port=ttyS2");
        let mut endpoints = Vec::new();
        find(&parameters, &mut endpoints);
        find(&parameters, &mut endpoints);
        assert_eq!(endpoints.len(), 2);
    }
}
