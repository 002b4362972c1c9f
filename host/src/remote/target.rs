//! Whose devices the verbs speak of.

use std::fmt;
use std::str::FromStr;

/// Where devices are looked for (`--target`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Target {
    /// This machine, `local:`.
    #[default]
    Local,
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.split_once(':') {
            Some(("local", "")) => Ok(Self::Local),
            Some(("local", rest)) => Err(TargetError(format!(
                "`local:` takes nothing behind the colon, not `{rest}`"
            ))),
            Some((scheme, _)) => Err(TargetError(format!(
                "unknown scheme `{scheme}:`; known: local:"
            ))),
            None => Err(TargetError(
                "a target begins with its scheme; known: local:".to_owned(),
            )),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local:"),
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
    fn only_known_schemes_are_targets() {
        assert_eq!("local:".parse(), Ok(Target::Local));
        assert_eq!(Target::Local.to_string(), "local:");
        for bad in ["", "local", "local:x", "tcp", "gopher:h:1", ":"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
