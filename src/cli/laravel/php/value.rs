//! PHP values that occur in config files. Input: the evaluator, or JSON printed by PHP. Output: a tree in which each part
//! has a value, or the reason why it is unknown.

use serde_json::Value as Json;

/// A PHP value.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli::laravel) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Text(String),
    Array(Array),
    /// Only PHP could evaluate it; contains the reason.
    Unknown(String),
}

/// An array with its keys in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::cli::laravel) struct Array {
    pub(in crate::cli::laravel) items: Vec<Item>,
    /// Why it may have more items than are known.
    pub(in crate::cli::laravel) open: Option<String>,
}

/// One key of an array.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli::laravel) struct Item {
    pub(in crate::cli::laravel) key: String,
    pub(in crate::cli::laravel) value: Value,
    pub(in crate::cli::laravel) asked: Asked,
}

/// The environment variables that a value was made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::cli::laravel) struct Asked {
    /// The first variable that was read.
    pub(in crate::cli::laravel) variable: Option<String>,
    /// The first variable that was set, and where: `APP_NAME in .env`.
    pub(in crate::cli::laravel) found: Option<String>,
}

impl Value {
    pub(in crate::cli::laravel) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub(in crate::cli::laravel) const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// The value at these keys: null if there is none, unknown if it may be in a part that is not known.
    pub(in crate::cli::laravel) fn at(&self, keys: &[&str]) -> &Self {
        let [first, rest @ ..] = keys else { return self };
        match self {
            Self::Array(array) => array.get(first).at(rest),
            Self::Unknown(_) => self,
            _ => &Self::Null,
        }
    }

    /// The variables that the value at these keys was made of.
    pub(in crate::cli::laravel) fn asked(&self, keys: &[&str]) -> Asked {
        let [first, rest @ ..] = keys else { return Asked::default() };
        let Self::Array(array) = self else { return Asked::default() };
        let Some(item) = array.items.iter().find(|item| item.key == *first) else { return Asked::default() };
        if rest.is_empty() { item.asked.clone() } else { item.value.asked(rest) }
    }

    /// The value as a bool, as in `if`; `Err` says why it is unknown.
    pub(in crate::cli::laravel) fn truth(&self) -> Result<bool, String> {
        match self {
            Self::Null => Ok(false),
            Self::Bool(value) => Ok(*value),
            Self::Int(value) => Ok(*value != 0),
            Self::Text(text) => Ok(!text.is_empty() && text != "0"),
            Self::Array(array) if array.items.is_empty() => array.open.clone().map_or(Ok(false), Err),
            Self::Array(_) => Ok(true),
            Self::Unknown(why) => Err(why.clone()),
        }
    }

    /// The result of `(string)`; `Err` says why it is unknown.
    pub(in crate::cli::laravel) fn string(&self) -> Result<String, String> {
        match self {
            Self::Null | Self::Bool(false) => Ok(String::new()),
            Self::Bool(true) => Ok("1".to_owned()),
            Self::Int(value) => Ok(value.to_string()),
            Self::Text(text) => Ok(text.clone()),
            Self::Array(_) => Err("an array instead of a string".to_owned()),
            Self::Unknown(why) => Err(why.clone()),
        }
    }

    /// The result of `(int)`; `Err` says why it is unknown.
    pub(in crate::cli::laravel) fn int(&self) -> Result<i64, String> {
        match self {
            Self::Int(value) => Ok(*value),
            Self::Array(array) => Ok(i64::from(!array.items.is_empty())),
            _ => {
                let text = self.string()?;
                let text = text.trim_start();
                let sign = usize::from(text.starts_with(['-', '+']));
                let digits = text[sign..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |end| sign + end);
                Ok(text[..digits].trim_start_matches('+').parse().unwrap_or(0))
            }
        }
    }
}

impl Array {
    /// The value of a key: null if there is none, unknown if the array may have more items.
    pub(in crate::cli::laravel) fn get(&self, key: &str) -> &Value {
        static NULL: Value = Value::Null;
        match self.items.iter().find(|item| item.key == key) {
            Some(item) => &item.value,
            None => self.items.iter().find(|item| item.key == REST).map_or(&NULL, |item| &item.value),
        }
    }

    /// Notes that it may have more items.
    pub(in crate::cli::laravel) fn open(&mut self, why: String) {
        if self.open.is_none() {
            self.items.push(Item { key: REST.to_owned(), value: Value::Unknown(why.clone()), asked: Asked::default() });
            self.open = Some(why);
        }
    }

    /// Sets the value of a key.
    pub(in crate::cli::laravel) fn put(&mut self, key: String, value: Value, asked: Asked) {
        match self.items.iter_mut().find(|item| item.key == key) {
            Some(item) => (item.value, item.asked) = (value, asked),
            None => self.items.push(Item { key, value, asked }),
        }
    }

    /// Appends a value under the next free index.
    pub(in crate::cli::laravel) fn push(&mut self, value: Value, asked: Asked) {
        let next = self.items.iter().filter_map(|item| item.key.parse::<i64>().ok()).max().map_or(0, |last| last + 1);
        self.put(next.to_string(), value, asked);
    }

    /// The known items.
    pub(in crate::cli::laravel) fn known(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.key != REST)
    }

    /// Adds the items of another array like `array_merge` and `...`.
    pub(in crate::cli::laravel) fn merge(&mut self, other: Self) {
        if let Some(why) = &other.open {
            // Its unknown items may have overwritten any of these.
            self.items.iter_mut().for_each(|item| item.value = Value::Unknown(why.clone()));
        }
        for item in other.items {
            if item.key == REST {
                continue;
            }
            if item.key.parse::<i64>().is_ok() { self.push(item.value, item.asked) } else { self.put(item.key, item.value, item.asked) }
        }
        if let Some(why) = other.open {
            self.open(why);
        }
    }
}

/// The key of the item that stands for all unknown items; real keys in config files contain no zero byte.
const REST: &str = "\0rest";

impl From<Json> for Value {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(value),
            Json::Number(number) => number.as_i64().map_or_else(|| Self::Text(number.to_string()), Self::Int),
            Json::String(text) => Self::Text(text),
            Json::Array(items) => {
                let mut array = Array::default();
                items.into_iter().for_each(|item| array.push(item.into(), Asked::default()));
                Self::Array(array)
            }
            Json::Object(items) => {
                let items = items.into_iter().map(|(key, value)| Item { key, value: value.into(), asked: Asked::default() });
                Self::Array(Array { items: items.collect(), open: None })
            }
        }
    }
}
