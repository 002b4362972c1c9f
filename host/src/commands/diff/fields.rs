//! Which fields of a structure differ, and what they say.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::ext::fields::Field;
use crate::ext::superblock::uuid_text;
use crate::text;

/// A field that differs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct FieldChange {
    pub(super) field: &'static str,
    /// What both sides say: a number, a text, or nothing that could be
    /// shown.
    values: [Value; 2],
}

/// The fields in which two structures differ.
pub(super) fn differing(
    fields: &[Field],
    left: &[u8],
    right: &[u8],
) -> Vec<FieldChange> {
    let changed = |field: &&Field| part(left, field) != part(right, field);
    fields
        .iter()
        .filter(changed)
        .map(|field| FieldChange {
            field: field.name,
            values: [left, right].map(|side| value(field, part(side, field))),
        })
        .collect()
}

fn part<'b>(bytes: &'b [u8], field: &Field) -> &'b [u8] {
    bytes.get(field.at..field.at + field.length).unwrap_or_default()
}

/// On the disk every number is little-endian.
fn value(field: &Field, bytes: &[u8]) -> Value {
    let is_text = ["_name", "_mounted", "_func", "_opts"]
        .iter()
        .any(|end| field.name.ends_with(end) && bytes.len() > 8);
    if is_text {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        return text::from_bytes(text).into();
    }
    if let Ok(uuid) = <&[u8; 16]>::try_from(bytes)
        && field.name.ends_with("uuid")
    {
        return uuid_text(uuid).into();
    }
    if bytes.len() > 8 {
        return Value::Null;
    }
    let mut number = [0; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(number).into()
}

impl FieldChange {
    /// For people: the name, and what it was and is.
    pub(super) fn sentence(&self) -> String {
        let [left, right] =
            self.values.each_ref().map(|value| self.show(value));
        match (left, right) {
            (Some(left), Some(right)) => {
                format!("{} {left} -> {right}", self.field)
            }
            _ => self.field.to_owned(),
        }
    }

    fn show(&self, value: &Value) -> Option<String> {
        match value {
            Value::Number(number) => {
                let number = number.as_u64()?;
                let is = |part: &str| self.field.contains(part);
                let is_time =
                    self.field.ends_with("time") || self.field == "s_lastcheck";
                Some(if is_time && number >= TIME_MIN {
                    moment(number)
                } else if is("mode") {
                    format!("{number:#o}")
                } else if ["flags", "feature", "checksum", "csum", "magic"]
                    .into_iter()
                    .any(is)
                {
                    format!("{number:#x}")
                } else {
                    number.to_string()
                })
            }
            Value::String(text) => Some(format!("\"{text}\"")),
            _ => None,
        }
    }

    /// Whether it follows from the rest of its structure.
    pub(super) fn is_checksum(&self) -> bool {
        ["checksum", "csum"].iter().any(|part| self.field.contains(part))
            && !self.field.contains("seed")
            && !self.field.contains("type")
    }

    /// For scripts.
    pub(super) fn fact(&self) -> Value {
        let [left, right] = &self.values;
        json!({ "field": self.field, "left": left, "right": right })
    }
}

/// Numbers below this are no times: an orphan's `i_dtime` is an inode.
const TIME_MIN: u64 = 100_000_000;

fn moment(seconds: u64) -> String {
    let moment = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let text = moment.map(text::timestamp).unwrap_or_default();
    text.replace(".000Z", "Z")
}

/// Some changes in one line. Checksums follow from the rest: they are told
/// when there is no rest.
pub(super) fn sentence(changes: &[FieldChange]) -> String {
    let telling = changes.iter().filter(|change| !change.is_checksum());
    let mut told: Vec<String> = telling.map(FieldChange::sentence).collect();
    if told.is_empty() {
        told = changes.iter().map(FieldChange::sentence).collect();
    }
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext::fields::of_superblock;

    #[test]
    fn fields_are_told_as_people_read_them() {
        let left = [0_u8; 1024];
        let mut right = left;
        right[0x0C..0x10].copy_from_slice(&[1, 2, 0, 0]);
        right[0x2C..0x30].copy_from_slice(&1_700_000_000_u32.to_le_bytes());
        right[0x58] = 0x10;
        right[0x68..0x78].copy_from_slice(&[0xAB; 16]);
        right[0x78..0x7C].copy_from_slice(b"mail");
        right[0xEC] = 1;
        let found = differing(of_superblock(), &left, &right);
        let told: Vec<String> =
            found.iter().map(FieldChange::sentence).collect();
        assert_eq!(
            told,
            [
                "s_free_blocks_count_lo 0 -> 513",
                "s_mtime 0 -> 2023-11-14T22:13:20Z",
                "s_inode_size 0 -> 16",
                "s_uuid \"00000000-0000-0000-0000-000000000000\" -> \
                 \"abababab-abab-abab-abab-abababababab\"",
                "s_volume_name \"\" -> \"mail\"",
                "s_hash_seed",
            ]
        );
        assert_eq!(found[0].fact()["right"], 513);
        assert!(found[5].fact()["left"].is_null());
        right[0x3FC] = 7;
        let with = differing(of_superblock(), &left, &right);
        assert_eq!(sentence(&with), told.join(", "));
        assert_eq!(sentence(&with[6..]), "s_checksum 0x0 -> 0x7");
        assert_eq!(differing(of_superblock(), &left, &left), []);
    }
}
