//! Settings with more than one notation: ports as string or number, durations and sizes with a unit, one string or a list
//! of strings. All of them can be parsed from strings, for environment variables.
//!
//! Input: a value of a file or a variable. Output: plain values for the fields of [`Config`](super::Config), through [`As`];
//! only a [`Secret`] keeps its type, so that it is not printed by accident.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq as _;

/// A notation of a plain value.
pub(super) trait Form {
    /// What is read from it.
    type Plain;
    fn plain(self) -> Self::Plain;
    fn of(plain: &Self::Plain) -> Self;
}

/// Reads and writes a field as the form `F`: `#[serde(with = "As::<Seconds>")]`.
pub(super) struct As<F>(PhantomData<F>);

impl<F: Form> As<F> {
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<F::Plain, D::Error>
    where
        F: Deserialize<'de>,
    {
        F::deserialize(deserializer).map(F::plain)
    }

    pub(super) fn serialize<S: Serializer>(plain: &F::Plain, serializer: S) -> Result<S::Ok, S::Error>
    where
        F: Serialize,
    {
        F::of(plain).serialize(serializer)
    }
}

impl<F: Form> Form for Option<F> {
    type Plain = Option<F::Plain>;

    fn plain(self) -> Self::Plain {
        self.map(F::plain)
    }

    fn of(plain: &Self::Plain) -> Self {
        plain.as_ref().map(F::of)
    }
}

/// Types with one field, the plain value.
macro_rules! forms {
    ($($form:ident($plain:ty)),*) => {$(
        impl $crate::config::value::Form for $form {
            type Plain = $plain;

            fn plain(self) -> $plain {
                self.0
            }

            fn of(plain: &$plain) -> Self {
                Self(plain.clone())
            }
        }
    )*};
}

pub(super) use forms;

forms!(Port(u16), Toggle(bool), Seconds(Duration), ByteSize(u64), OneOrMany(Vec<String>));

/// A TCP port. Like the original, it accepts any text that ends with a port (`tcp://host:6001/`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port(pub u16);

/// A boolean; also accepts `1`, `"true"`, `"1"`, `"on"`, `"yes"` and their opposites.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Toggle(pub(super) bool);

/// A duration: a string with a unit (`"10s"`, `"500ms"`, `"2m"`, `"1h"`) or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seconds(pub(super) Duration);

/// A size in bytes: a number, or a string with a unit (`"100KB"`, `"1MB"`: powers of 1,000; `KiB`, `MiB`: of 1,024).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteSize(pub(super) u64);

/// One string or a list of strings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OneOrMany(pub(super) Vec<String>);

/// Text that is hidden in debug output.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(pub String);

impl Secret {
    /// The plain text; do not log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it is this text, compared in constant time. Nothing is an empty secret: anyone could send it.
    #[must_use]
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        !self.0.is_empty() && bool::from(self.0.as_bytes().ct_eq(given))
    }

    /// Whether it is empty, or only whitespace.
    pub(super) fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { "\"***\"" })
    }
}

impl FromStr for Port {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim_end_matches('/');
        let digits = text.len() - text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        match text[text.len() - digits..].parse() {
            Ok(port) if port > 0 && (digits == text.len() || text[..text.len() - digits].ends_with(':')) => Ok(Self(port)),
            _ => Err(()),
        }
    }
}

impl FromStr for Toggle {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "on" | "yes" => Ok(Self(true)),
            "false" | "0" | "off" | "no" | "" => Ok(Self(false)),
            _ => Err(()),
        }
    }
}

/// Splits `"1.5MB"` into the number and the unit.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

impl FromStr for Seconds {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) = number_and_unit(text).ok_or(())?;
        let seconds = match unit {
            "ms" => number / 1_000.0,
            "" | "s" => number,
            "m" | "min" => number * 60.0,
            "h" => number * 3_600.0,
            _ => return Err(()),
        };
        Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| ())
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis.is_multiple_of(1_000) { write!(f, "{}s", millis / 1_000) } else { write!(f, "{millis}ms") }
    }
}

impl FromStr for ByteSize {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, unit) = number_and_unit(text).ok_or(())?;
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "kib" => 1024.0,
            "mib" => 1024.0 * 1024.0,
            "gib" => 1024.0 * 1024.0 * 1024.0,
            _ => return Err(()),
        };
        let bytes = number * factor;
        // f64 represents whole numbers exactly up to 2^53, far beyond any reasonable size.
        if bytes.fract() == 0.0 && bytes < 9e15 { Ok(Self(bytes as u64)) } else { Err(()) }
    }
}

/// Deserializes a value from a string or a whole number.
struct TextOrNumber<T> {
    expected: &'static str,
    from_number: fn(u64) -> Option<T>,
}

impl<T: FromStr> Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        (self.from_number)(number).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(number), &self)),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        number.to_string().parse().map_err(|_| E::invalid_value(Unexpected::Float(number), &self))
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrNumber {
            expected: "a port from 1 to 65535",
            from_number: |number| u16::try_from(number).ok().filter(|&port| port > 0).map(Self),
        })
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrNumber {
            expected: "a duration such as \"10s\" or \"500ms\", or a number of seconds",
            from_number: |number| Some(Self(Duration::from_secs(number))),
        })
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrNumber {
            expected: "a size such as \"1MB\" or a number of bytes",
            from_number: |number| Some(Self(number)),
        })
    }
}

impl<'de> Deserialize<'de> for Toggle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ToggleVisitor;
        impl Visitor<'_> for ToggleVisitor {
            type Value = Toggle;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Toggle, E> {
                Ok(Toggle(value))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Toggle, E> {
                match value {
                    0 | 1 => Ok(Toggle(value == 1)),
                    _ => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
                }
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Toggle, E> {
                match u64::try_from(value) {
                    Ok(value) => self.visit_u64(value),
                    Err(_) => Err(E::invalid_value(Unexpected::Signed(value), &self)),
                }
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Toggle, E> {
                text.parse().map_err(|()| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(ToggleVisitor)
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = OneOrMany;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
                let mut list = Vec::new();
                while let Some(text) = seq.next_element()? {
                    list.push(text);
                }
                Ok(OneOrMany(list))
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer).map(Self)
    }
}

/// A string, also accepted as a number: an `appId` or password of digits.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => Ok(text),
        serde_json::Value::Number(number) => Ok(number.to_string()),
        other => Err(D::Error::custom(format!("invalid value `{other}`, expected text"))),
    }
}

/// A secret; an empty one, or one of whitespace only, counts as none, because anyone could sign with it.
pub(super) fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let secret = Option::<Secret>::deserialize(deserializer)?;
    Ok(secret.filter(|secret| !secret.is_blank()))
}

/// A whole number, also accepted as a string.
pub(super) fn integer<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr + TryFrom<u64>,
{
    deserializer.deserialize_any(TextOrNumber { expected: "a whole number, 0 or more", from_number: |number| T::try_from(number).ok() })
}

/// An optional [`integer`].
pub(super) fn some_integer<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr + TryFrom<u64>,
{
    integer(deserializer).map(Some)
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.0)
    }
}

impl Serialize for Toggle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(self.0)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl Serialize for OneOrMany {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Serialised in plain text, for files; output for people uses [`fmt::Debug`] or is masked by key.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_or_text_that_ends_in_one() {
        assert_eq!("6001".parse(), Ok(Port(6001)));
        assert_eq!("tcp://10.0.0.1:6379/".parse(), Ok(Port(6379)));
        for wrong in ["", "0", "65536", "abc", "x6001", "-1"] {
            assert_eq!(wrong.parse::<Port>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn toggles_are_booleans_numbers_or_words() {
        let toggle = |json: &str| serde_json::from_str(json).map(|Toggle(is_on)| is_on).ok();
        for on in ["true", "1", "\"true\"", "\"1\"", "\"On\"", "\"yes\""] {
            assert_eq!(toggle(on), Some(true), "{on}");
        }
        for off in ["false", "0", "\"false\"", "\"0\"", "\"off\"", "\"\""] {
            assert_eq!(toggle(off), Some(false), "{off}");
        }
        for wrong in ["2", "-1", "1.0", "\"maybe\"", "[]", "{}"] {
            assert_eq!(toggle(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_take_units_and_default_to_seconds() {
        let millis = |text: &str| text.parse::<Seconds>().map(|seconds| seconds.0.as_millis());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("1.5s"), Ok(1_500));
        assert_eq!(millis("10"), Ok(10_000));
        assert_eq!(millis("2m"), Ok(120_000));
        assert_eq!(millis("1 day"), Err(()));
        assert_eq!(millis("-1s"), Err(()));
    }

    #[test]
    fn sizes_take_units_and_default_to_bytes() {
        assert_eq!("1MB".parse(), Ok(ByteSize(1_000_000)));
        assert_eq!("100 kb".parse(), Ok(ByteSize(100_000)));
        assert_eq!("1KiB".parse(), Ok(ByteSize(1_024)));
        assert_eq!("12".parse(), Ok(ByteSize(12)));
        assert_eq!("1.5".parse::<ByteSize>(), Err(()));
        assert_eq!("big".parse::<ByteSize>(), Err(()));
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", Secret("hunter2".into())), "\"***\"");
    }
}
