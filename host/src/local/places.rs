//! Where files lie that belong to a user and not to a job: the places of the
//! XDG base directory specification.

use std::path::PathBuf;

/// The folder that `variable` names, or `in_home` in the user's home; `None`
/// when there is neither.
#[must_use]
pub fn of_user(variable: &str, in_home: &str) -> Option<PathBuf> {
    let folder = |name: &str| {
        let value = std::env::var_os(name).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    folder(variable).or_else(|| folder("HOME").map(|home| home.join(in_home)))
}
