//! The escape key of a console: the one thing that is not sent.

/// What somebody at a console wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Wish {
    /// These bytes go to the other end.
    Send(Vec<u8>),
    /// The console ends.
    Leave,
    /// A break condition on the line.
    Break,
    /// What the escape key can do.
    Help,
}

/// Finds the escape key in what is typed.
#[derive(Debug)]
pub(super) struct Escape {
    key: u8,
    /// It was the last key.
    pending: bool,
}

impl Escape {
    pub(super) const fn new(key: u8) -> Self {
        Self { key, pending: false }
    }

    /// What the keys can do, in a line.
    pub(super) fn help(&self) -> String {
        // What Ctrl makes of the letter that is typed with it.
        let key = char::from(self.key | 0x40);
        format!(
            "Ctrl-{key} and then: . leave, b send a break, ? help, Ctrl-{key} \
             send it"
        )
    }

    /// What the next keys mean.
    pub(super) fn take(&mut self, typed: &[u8]) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let mut send = Vec::new();
        for &byte in typed {
            if !self.pending {
                self.pending = byte == self.key;
                if !self.pending {
                    send.push(byte);
                }
                continue;
            }
            self.pending = false;
            let wish = match byte {
                b'.' | b'q' => Wish::Leave,
                b'b' => Wish::Break,
                byte if byte == self.key => {
                    send.push(byte);
                    continue;
                }
                _ => Wish::Help,
            };
            if !send.is_empty() {
                wishes.push(Wish::Send(std::mem::take(&mut send)));
            }
            wishes.push(wish);
        }
        if !send.is_empty() {
            wishes.push(Wish::Send(send));
        }
        wishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_escape_key_is_not_sent() {
        let mut escape = Escape::new(0x1d);
        let send = |bytes: &[u8]| Wish::Send(bytes.to_vec());
        assert_eq!(escape.take(b"root\r.~."), [send(b"root\r.~.")]);
        assert_eq!(escape.take(b"ls\x1d"), [send(b"ls")]);
        assert_eq!(escape.take(b"?more"), [Wish::Help, send(b"more")]);
        assert_eq!(escape.take(b"\x1d\x1d"), [send(b"\x1d")]);
        assert_eq!(escape.take(b"\x1db"), [Wish::Break]);
        assert_eq!(
            escape.take(b"a\x1d.b"),
            [send(b"a"), Wish::Leave, send(b"b")]
        );
        assert_eq!(escape.take(b""), []);
    }

    #[test]
    fn help_names_the_key() {
        assert!(Escape::new(0x1d).help().contains("Ctrl-]"));
        assert!(Escape::new(1).help().contains("Ctrl-A"));
    }
}
