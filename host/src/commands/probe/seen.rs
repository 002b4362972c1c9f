//! What is at the other end of a line where no agent answers, made out of
//! what was seen there.

use crate::remote::session::Seen;
use crate::text;

/// What is there, and what to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Diagnosis {
    /// The end of a sentence that begins with "no agent answers".
    pub(super) what: String,
    /// What to try.
    pub(super) hint: String,
    /// It was said at the right speed: somebody can read it.
    pub(super) readable: bool,
}

/// Something that is known by its words.
struct Known {
    words: &'static [&'static str],
    what: &'static str,
    hint: &'static str,
}

/// Whose words are the last in what was seen is there now.
const KNOWN: &[Known] = &[
    Known {
        words: &["Kernel panic", "end Kernel panic"],
        what: "the kernel there has panicked",
        hint: "restart the machine (by its BMC, nothing listens on the line) \
               and boot the agent",
    },
    Known {
        words: &["login:", "Password:"],
        what: "a system is running there and asks for a login",
        hint: "log in and boot the agent, by its GRUB entry or kexec, or run \
               it there: `e2wire-agent --stdio`",
    },
    Known {
        words: &["GNU GRUB", "grub>", "grub rescue>"],
        what: "GRUB is waiting there",
        hint: "choose the agent's entry, or boot it from GRUB's prompt: \
               `e2wire console` leads there",
    },
    Known {
        words: &["autoboot", "U-Boot"],
        what: "U-Boot is there",
        hint: "boot the agent from its prompt: `e2wire console` leads there",
    },
    Known {
        words: &["Give root password", "emergency mode", "(initramfs)"],
        what: "the system there did not come up and offers a shell",
        hint: "boot the agent: `e2wire console` leads to the shell",
    },
    Known {
        words: &["SSH-2.0-"],
        what: "an SSH server answers there",
        hint: "take its port for ssh: -t 'pipe:ssh HOST e2wire-agent --stdio \
               ...'",
    },
    Known {
        words: &["HTTP/1."],
        what: "a web server answers there",
        hint: "is that the agent's port? 7220 is what it listens on",
    },
];

/// What was seen, explained.
pub(super) fn diagnose(seen: &Seen) -> Diagnosis {
    // How terminals echo the zeros around a frame.
    let shown = String::from_utf8_lossy(&seen.text).replace("^@", "");
    let known = KNOWN
        .iter()
        .filter_map(|known| {
            let places = known.words.iter().filter_map(|w| shown.rfind(w));
            Some((places.max()?, known))
        })
        .max_by_key(|(place, _)| *place);
    if let Some((_, known)) = known {
        return diagnosis(known.what.to_owned(), known.hint);
    }
    if seen.bytes == 0 {
        return Diagnosis {
            what: "the line is silent".to_owned(),
            hint: "is the machine on, the cable in the right port, and the \
                   agent booted with this port as its console?"
                .to_owned(),
            readable: false,
        };
    }
    let lines = shown.lines().rev().map(str::trim);
    let last = lines.into_iter().find(|line| text::is_readable(line));
    let Some(last) = last else {
        if seen.echoes > 0 {
            return diagnosis(
                "what is sent comes back".to_owned(),
                "a plug that joins both directions, or a program that shows \
                 what is typed: look with `e2wire console`",
            );
        }
        return Diagnosis {
            what: format!("{} bytes came that are no text", seen.bytes),
            hint: "is the speed right? try ?baud=9600, 38400, 57600".into(),
            readable: false,
        };
    };
    if last.ends_with(['#', '$', '>']) {
        return diagnosis(
            "there seems to be a shell".to_owned(),
            "start the agent from it, or boot it: `e2wire console` leads \
             there",
        );
    }
    if is_kernel_text(last) {
        return diagnosis(
            format!("a kernel talks there, last: {last}"),
            "if it boots the agent, try again in a moment; `e2wire console` \
             shows what goes on",
        );
    }
    diagnosis(
        format!("the last line there was: {last}"),
        "if the machine is booting the agent, try again in a moment; `e2wire \
         console` shows what goes on",
    )
}

fn diagnosis(what: String, hint: &str) -> Diagnosis {
    Diagnosis { what, hint: hint.to_owned(), readable: true }
}

/// `[   12.345678] text`, as kernels log on a console.
fn is_kernel_text(line: &str) -> bool {
    let time = line
        .strip_prefix('[')
        .and_then(|line| line.split_once(']'))
        .and_then(|(time, _)| time.trim().split_once('.'));
    let digits = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
    };
    time.is_some_and(|(seconds, micros)| digits(seconds) && digits(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &[u8], echoes: u64) -> Seen {
        let bytes = text.len() as u64 + 60 * echoes;
        Seen { text: text.to_vec(), bytes, echoes, opened: true }
    }

    #[test]
    fn what_is_seen_says_what_is_there() {
        for (text, word) in [
            (&b""[..], "silent"),
            (b"\r\nmail7 login: ", "login"),
            (b"GNU GRUB  version 2.06", "GRUB"),
            (b"\x1b[2J\x1b[1mGNU GRUB\x1b[0m  version 2.06", "GRUB"),
            (b"[ 1.0] Kernel panic - not syncing", "panicked"),
            (b"\xff\xfe\x80\x91\xfc\x00\xe0\xf8", "no text"),
            (b"(initramfs) ", "shell"),
            (b"\r\nroot@rescue:~# ", "shell"),
            (b"Loading Linux 6.1 ...\r\n", "Loading Linux"),
            (b"[    0.812042] ata3: link up\r\n", "kernel talks"),
            (b"Hit any key to stop autoboot:  3", "U-Boot"),
            (b"SSH-2.0-OpenSSH_9.2p1\r\n", "SSH"),
        ] {
            let what = diagnose(&seen(text, 0)).what;
            assert!(what.contains(word), "{what}");
        }
        for text in [&b""[..], b"^@^@^@^@"] {
            assert!(diagnose(&seen(text, 3)).what.contains("comes back"));
        }
    }

    #[test]
    fn the_last_words_count() {
        for (text, word) in [
            ("Debian 12 login: \r\n[9.9] Kernel panic - not sync", "panicked"),
            ("Kernel panic\r\n\r\nGNU GRUB  version 2.06", "GRUB"),
            ("GNU GRUB\r\nLoading\r\nmail7 login: ", "login"),
        ] {
            let what = diagnose(&seen(text.as_bytes(), 0)).what;
            assert!(what.contains(word), "{text}: {what}");
        }
    }
}
