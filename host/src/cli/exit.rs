//! Exit codes: what scripts branch on. This list is the contract; the help,
//! the man page and the README repeat it.

use crate::commands::Outcome;
use crate::error::ErrorKind;

macro_rules! exit_codes {
    ($($code:ident = $number:literal, $meaning:literal;)*) => {
        /// How the program ends.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum ExitCode {
            $(#[doc = $meaning] $code,)*
        }

        impl ExitCode {
            /// Every code, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$code,)*];

            /// The number that the shell sees.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$code => $number,)*
                }
            }

            /// What it means.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$code => $meaning,)*
                }
            }
        }
    };
}

exit_codes! {
    Done = 0, "done";
    Internal = 1, "a defect of e2wire itself";
    Usage = 2, "the command line makes no sense; nothing was done";
    Holes = 3,
        "done, but with holes, or the source changed while it was read";
    Differs = 4, "what was compared differs, or a check failed";
    Refused = 5, "refused, or a confirmation is needed; nothing was written";
    NotAuthorised = 6, "not authorised";
    NoLink = 7, "no link to the target";
    Interrupted = 8, "interrupted; the same command starts it again";
    NoFilesystem = 9,
        "no such device or filesystem, or one that is not supported";
    LocalIo = 10, "reading or writing a local file failed";
    WriteIncomplete = 11,
        "writing to the target began and did not complete";
    Protocol = 12, "the peer speaks another version of the protocol";
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Holes | Outcome::SourceChanged => Self::Holes,
            Outcome::Differs => Self::Differs,
            Outcome::Unconfirmed => Self::Refused,
        }
    }
}

impl From<ErrorKind> for ExitCode {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Internal => Self::Internal,
            ErrorKind::Usage => Self::Usage,
            ErrorKind::Differs => Self::Differs,
            ErrorKind::Refused => Self::Refused,
            ErrorKind::NotAuthorised => Self::NotAuthorised,
            ErrorKind::NoLink => Self::NoLink,
            ErrorKind::Interrupted => Self::Interrupted,
            ErrorKind::NoFilesystem => Self::NoFilesystem,
            ErrorKind::LocalIo => Self::LocalIo,
            ErrorKind::WriteIncomplete => Self::WriteIncomplete,
            ErrorKind::Protocol => Self::Protocol,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scripts rely on these numbers: change the code, not the test.
    #[test]
    fn the_numbers_never_change() {
        let kinds = [
            (ErrorKind::Internal, 1),
            (ErrorKind::Usage, 2),
            (ErrorKind::Differs, 4),
            (ErrorKind::Refused, 5),
            (ErrorKind::NotAuthorised, 6),
            (ErrorKind::NoLink, 7),
            (ErrorKind::Interrupted, 8),
            (ErrorKind::NoFilesystem, 9),
            (ErrorKind::LocalIo, 10),
            (ErrorKind::WriteIncomplete, 11),
            (ErrorKind::Protocol, 12),
        ];
        for (kind, number) in kinds {
            assert_eq!(ExitCode::from(kind).number(), number, "{kind:?}");
        }
        let outcomes = [
            (Outcome::Done, 0),
            (Outcome::Holes, 3),
            (Outcome::SourceChanged, 3),
            (Outcome::Differs, 4),
            (Outcome::Unconfirmed, 5),
        ];
        for (outcome, number) in outcomes {
            assert_eq!(ExitCode::from(outcome).number(), number);
        }
    }

    #[test]
    fn the_list_is_complete_and_ascending() {
        let numbers: Vec<u8> =
            ExitCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, (0..=12).collect::<Vec<u8>>());
    }

    #[test]
    fn the_readme_lists_the_same_codes() {
        let readme = include_str!("../../../README.md");
        for code in ExitCode::ALL {
            let row = format!("| {} | {} |", code.number(), code.meaning());
            assert!(readme.contains(&row), "{row}");
        }
    }
}
