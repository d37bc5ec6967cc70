//! The functions of PHP and Laravel that config files use. Input: values. Output: a value, or the name of an unsupported
//! function. Pure.

use super::slug;
use super::url::Url;
use super::value::{Array, Asked, Value};

pub(super) mod operators;
pub(super) mod text;

use operators::{is_equal, is_same};

/// Arguments of a call, positional and named.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) values: Vec<Value>,
    pub(super) named: Vec<(String, Value)>,
}

type Result<T = Value> = std::result::Result<T, String>;

impl Arguments {
    /// The arguments for these parameters; missing ones are `None`.
    fn take<const N: usize>(self, parameters: [&str; N]) -> Result<[Option<Value>; N]> {
        if self.values.len() > N {
            return Err("more arguments than are supported here".to_owned());
        }
        let mut taken = [const { None }; N];
        for (place, value) in taken.iter_mut().zip(self.values) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let index = parameters.iter().position(|parameter| *parameter == name).ok_or_else(|| format!("an argument `{name}`"))?;
            taken[index] = Some(value);
        }
        Ok(taken)
    }

    /// The only argument, as a string.
    fn text(self, parameter: &str) -> Result<String> {
        let [text] = self.take([parameter])?;
        given(text)?.string()
    }

    /// The only two arguments, as strings.
    fn two_texts(self, parameters: [&str; 2]) -> Result<(String, String)> {
        let [first, second] = self.take(parameters)?;
        Ok((given(first)?.string()?, given(second)?.string()?))
    }
}

fn given(value: Option<Value>) -> Result {
    match value {
        Some(Value::Unknown(why)) => Err(why),
        Some(value) => Ok(value),
        None => Err("a missing argument".to_owned()),
    }
}

fn text_or(value: Option<Value>, default: &str) -> Result<String> {
    value.map_or_else(|| Ok(default.to_owned()), |value| value.string())
}

fn array(value: Option<Value>) -> Result<Array> {
    match value {
        Some(Value::Array(array)) => Ok(array),
        Some(Value::Unknown(why)) => Err(why),
        _ => Err("a value that is not an array".to_owned()),
    }
}

/// The result of `env()` for the text of a variable.
pub(in crate::cli::laravel) fn native(text: &str) -> Value {
    match text.to_ascii_lowercase().as_str() {
        "true" | "(true)" => return Value::Bool(true),
        "false" | "(false)" => return Value::Bool(false),
        "empty" | "(empty)" => return Value::text(""),
        "null" | "(null)" => return Value::Null,
        _ => {}
    }
    let inner = ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
    // In Laravel's regular expression the dot does not match a line break.
    Value::text(inner.filter(|inner| !inner.contains('\n')).unwrap_or(text))
}

pub(super) fn constant(name: &str) -> Result {
    Ok(match name.to_ascii_lowercase().as_str() {
        "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "php_url_scheme" => Value::Int(0),
        "php_url_host" => Value::Int(1),
        "php_url_port" => Value::Int(2),
        "php_url_user" => Value::Int(3),
        "php_url_pass" => Value::Int(4),
        "php_url_path" => Value::Int(5),
        "php_url_query" => Value::Int(6),
        "php_url_fragment" => Value::Int(7),
        "php_eol" => Value::text("\n"),
        "directory_separator" => Value::text("/"),
        _ => return Err(format!("`{name}`")),
    })
}

/// Calls a function by its lower-case name.
pub(super) fn call(name: &str, arguments: Arguments, has_ascii: bool) -> Result {
    Ok(match name {
        "str_slug" => return text::call("slug", arguments, has_ascii),
        "snake_case" => return text::call("snake", arguments, has_ascii),
        "kebab_case" => return text::call("kebab", arguments, has_ascii),
        "str_finish" => return text::call("finish", arguments, has_ascii),
        "str_start" => return text::call("start", arguments, has_ascii),
        "str_replace" => return text::call("replace", arguments, has_ascii),
        "strtolower" => Value::Text(arguments.text("string")?.to_ascii_lowercase()),
        "strtoupper" => Value::Text(arguments.text("string")?.to_ascii_uppercase()),
        "mb_strtolower" => Value::Text(arguments.text("string")?.to_lowercase()),
        "mb_strtoupper" => Value::Text(arguments.text("string")?.to_uppercase()),
        "ucfirst" => Value::Text(first_letter(&arguments.text("string")?, |c| c.to_ascii_uppercase())),
        "lcfirst" => Value::Text(first_letter(&arguments.text("string")?, |c| c.to_ascii_lowercase())),
        "ucwords" => Value::Text(slug::ucwords(&arguments.text("string")?)),
        "strval" => Value::Text(arguments.text("value")?),
        "trim" | "ltrim" | "rtrim" | "chop" => {
            let [text, characters] = arguments.take(["string", "characters"])?;
            let (text, characters) = (given(text)?.string()?, text_or(characters, " \n\r\t\u{b}\0")?);
            if characters.contains("..") {
                return Err(format!("`{name}()` with a range"));
            }
            Value::text(trimmed(name, &text, &characters))
        }
        "strlen" => Value::Int(arguments.text("string")?.len().try_into().unwrap_or(i64::MAX)),
        "intval" => {
            let [value] = arguments.take(["value"])?;
            Value::Int(given(value)?.int()?)
        }
        "boolval" => {
            let [value] = arguments.take(["value"])?;
            Value::Bool(given(value)?.truth()?)
        }
        "is_null" => {
            let [value] = arguments.take(["value"])?;
            Value::Bool(given(value)? == Value::Null)
        }
        "is_string" => {
            let [value] = arguments.take(["value"])?;
            Value::Bool(matches!(given(value)?, Value::Text(_)))
        }
        "is_array" => {
            let [value] = arguments.take(["value"])?;
            Value::Bool(matches!(given(value)?, Value::Array(_)))
        }
        "filled" | "blank" => {
            let [value] = arguments.take(["value"])?;
            let value = given(value)?;
            let is_blank = match &value {
                Value::Null => true,
                Value::Text(text) => text.trim().is_empty(),
                Value::Array(_) => !value.truth()?,
                _ => false,
            };
            Value::Bool(is_blank == (name == "blank"))
        }
        "str_contains" | "str_starts_with" | "str_ends_with" => {
            let (text, needle) = arguments.two_texts(["haystack", "needle"])?;
            Value::Bool(match name {
                "str_contains" => text.contains(&needle),
                "str_starts_with" => text.starts_with(&needle),
                _ => text.ends_with(&needle),
            })
        }
        "substr" => {
            let [text, offset, length] = arguments.take(["string", "offset", "length"])?;
            let length = match length {
                None | Some(Value::Null) => None,
                Some(length) => Some(length.int()?),
            };
            substr(&given(text)?.string()?, given(offset)?.int()?, length)?
        }
        "sprintf" => sprintf(arguments)?,
        "implode" | "join" => {
            let [separator, list] = arguments.take(["separator", "array"])?;
            let list = array(list)?;
            if let Some(why) = list.open {
                return Err(why);
            }
            let texts = list.items.iter().map(|item| item.value.string()).collect::<Result<Vec<_>>>()?;
            Value::Text(texts.join(&given(separator)?.string()?))
        }
        "explode" => {
            let [separator, text] = arguments.take(["separator", "string"])?;
            let (separator, text) = (given(separator)?.string()?, given(text)?.string()?);
            if separator.is_empty() {
                return Err("`explode('')`".to_owned());
            }
            let mut list = Array::default();
            text.split(&separator).for_each(|part| list.push(Value::text(part), Asked::default()));
            Value::Array(list)
        }
        "array_merge" => {
            let mut merged = Array::default();
            for value in arguments.values {
                merged.merge(match value {
                    Value::Array(array) => array,
                    Value::Unknown(why) => Array { items: Vec::new(), open: Some(why) },
                    _ => return Err("`array_merge()` of something that is not an array".to_owned()),
                });
            }
            Value::Array(merged)
        }
        "array_replace" => {
            let mut values = arguments.values.into_iter();
            let mut replaced = array(values.next())?;
            for value in values {
                let more = array(Some(value))?;
                if let Some(why) = more.open {
                    return Err(why);
                }
                more.items.into_iter().for_each(|item| replaced.put(item.key, item.value, item.asked));
            }
            Value::Array(replaced)
        }
        "array_filter" => {
            let [list] = arguments.take(["array"])?;
            let mut list = array(list)?;
            let mut kept = Array::default();
            let open = list.open.take();
            for item in list.items {
                // It is unknown whether an unknown value would be kept; keeping it as unknown covers both cases.
                if item.value.is_unknown() || item.value.truth()? {
                    kept.put(item.key, item.value, item.asked);
                }
            }
            kept.open = open;
            Value::Array(kept)
        }
        "array_key_exists" => {
            let [key, list] = arguments.take(["key", "array"])?;
            let (key, list) = (given(key)?.string()?, array(list)?);
            match list.items.iter().any(|item| item.key == key) {
                false => list.open.map_or(Ok(Value::Bool(false)), Err)?,
                true => Value::Bool(true),
            }
        }
        "in_array" => {
            let [needle, list, strict] = arguments.take(["needle", "haystack", "strict"])?;
            let (needle, list) = (given(needle)?, array(list)?);
            let is_strict = strict.map_or(Ok(false), |strict| strict.truth())?;
            let mut is_in = false;
            for item in list.items {
                is_in |= if is_strict { is_same(&needle, &item.value)? } else { is_equal(&needle, &item.value)? };
            }
            Value::Bool(is_in)
        }
        "parse_url" => {
            let [url, component] = arguments.take(["url", "component"])?;
            let component = component.map_or(Ok(-1), |component| component.int())?;
            parse_url(&given(url)?.string()?, component)?
        }
        "json_decode" => {
            let text = arguments.values.into_iter().next().map_or(Err("`json_decode()`".to_owned()), |value| value.string())?;
            serde_json::from_str::<serde_json::Value>(&text).map_or(Value::Null, Value::from)
        }
        _ => return Err(format!("`{name}()`")),
    })
}

fn first_letter(text: &str, change: impl Fn(char) -> char) -> String {
    let mut chars = text.chars();
    chars.next().map(change).into_iter().chain(chars).collect()
}

fn trimmed<'a>(name: &str, text: &'a str, characters: &str) -> &'a str {
    let is_one = |c: char| characters.contains(c);
    match name {
        "ltrim" => text.trim_start_matches(is_one),
        "trim" => text.trim_matches(is_one),
        _ => text.trim_end_matches(is_one),
    }
}

fn replaced(search: Value, replace: Value, subject: &str) -> Result {
    let list = |value: Value| match value {
        Value::Array(array) => match array.open {
            Some(why) => Err(why),
            None => array.items.iter().map(|item| item.value.string()).collect::<Result<Vec<_>>>(),
        },
        value => Ok(vec![value.string()?]),
    };
    let is_one = !matches!(replace, Value::Array(_));
    let (search, replace) = (list(search)?, list(replace)?);
    let mut text = subject.to_owned();
    for (index, search) in search.iter().enumerate().filter(|(_, search)| !search.is_empty()) {
        let by = if is_one { replace.first() } else { replace.get(index) };
        text = text.replace(search, by.map_or("", String::as_str));
    }
    Ok(Value::Text(text))
}

fn substr(text: &str, offset: i64, length: Option<i64>) -> Result {
    let len = i64::try_from(text.len()).unwrap_or(i64::MAX);
    let start = if offset < 0 { (len + offset).max(0) } else { offset.min(len) };
    let end = match length {
        None => len,
        Some(length) if length < 0 => (len + length).max(start),
        Some(length) => (start + length).min(len),
    };
    let range = usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
    text.get(range).map(Value::text).ok_or_else(|| "`substr()` within a multi-byte character".to_owned())
}

fn sprintf(arguments: Arguments) -> Result {
    let mut values = arguments.values.into_iter();
    let format = given(values.next())?.string()?;
    let values: Vec<_> = values.collect();
    let (mut out, mut rest, mut next) = (String::new(), format.as_str(), 0);
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(behind) = rest.strip_prefix('%') {
            out.push('%');
            rest = behind;
            continue;
        }
        let index = match rest.split_once('$') {
            Some((number, behind)) if number.parse::<usize>().is_ok_and(|number| number > 0) => {
                rest = behind;
                number.parse::<usize>().unwrap_or(1) - 1
            }
            _ => {
                next += 1;
                next - 1
            }
        };
        let value = given(values.get(index).cloned())?;
        match rest.chars().next() {
            Some('s') => out.push_str(&value.string()?),
            Some('d' | 'u') => out.push_str(&value.int()?.to_string()),
            _ => return Err(format!("`sprintf({format:?})`")),
        }
        rest = &rest[1..];
    }
    out.push_str(rest);
    Ok(Value::Text(out))
}

fn parse_url(text: &str, component: i64) -> Result {
    let Some(url) = Url::parse(text) else { return Ok(Value::Bool(false)) };
    let texts = [
        ("scheme", 0, url.scheme),
        ("host", 1, url.host),
        ("user", 3, url.user),
        ("pass", 4, url.pass),
        ("path", 5, url.path),
        ("query", 6, url.query),
        ("fragment", 7, url.fragment),
    ];
    let port = url.port.map(|port| Value::Int(port.into()));
    let mut parts = Array::default();
    for (name, number, text) in texts {
        let value = text.map(Value::text);
        if component == number {
            return Ok(value.unwrap_or(Value::Null));
        }
        if let Some(value) = value {
            parts.put(name.to_owned(), value, Asked::default());
        }
    }
    if component == 2 {
        return Ok(port.unwrap_or(Value::Null));
    }
    if let Some(port) = port {
        parts.put("port".to_owned(), port, Asked::default());
    }
    Ok(Value::Array(parts))
}
