//! The methods of Laravel's `Str`. Input: values. Output: a value, or the name of an unsupported method. Pure.

use super::{Arguments, Result, first_letter, given, replaced, text_or};
use crate::cli::laravel::php::slug;
use crate::cli::laravel::php::value::Value;

/// Calls a method of `Str` by its lower-case name.
pub(in crate::cli::laravel::php) fn call(name: &str, arguments: Arguments, has_ascii: bool) -> Result {
    Ok(match name {
        "slug" => {
            let [title, separator, language] = arguments.take(["title", "separator", "language"])?;
            let (title, separator) = (given(title)?.string()?, text_or(separator, "-")?);
            let title = match language {
                None => ascii(&title, has_ascii)?,
                Some(Value::Text(language)) if language == "en" => ascii(&title, has_ascii)?,
                Some(Value::Text(language)) if !title.is_ascii() => return Err(format!("`Str::slug()` in the language `{language}`")),
                Some(_) => title,
            };
            Value::Text(slug::slug(&title, &separator))
        }
        "ascii" => Value::Text(ascii(&arguments.text("value")?, has_ascii)?),
        "snake" => {
            let [value, delimiter] = arguments.take(["value", "delimiter"])?;
            Value::Text(slug::snake(&given(value)?.string()?, &text_or(delimiter, "_")?))
        }
        "kebab" => Value::Text(slug::snake(&arguments.text("value")?, "-")),
        "lower" => Value::Text(arguments.text("value")?.to_lowercase()),
        "upper" => Value::Text(arguments.text("value")?.to_uppercase()),
        "ucfirst" => Value::Text(first_letter(&arguments.text("string")?, |c| c.to_uppercase().next().unwrap_or(c))),
        "finish" | "start" => {
            let (value, cap) = arguments.two_texts(["value", if name == "finish" { "cap" } else { "prefix" }])?;
            let mut bare = value.as_str();
            while let Some(rest) =
                if name == "finish" { bare.strip_suffix(&cap) } else { bare.strip_prefix(&cap) }.filter(|_| !cap.is_empty())
            {
                bare = rest;
            }
            Value::Text(if name == "finish" { format!("{bare}{cap}") } else { format!("{cap}{bare}") })
        }
        "replace" => {
            let [search, replace, subject] = arguments.take(["search", "replace", "subject"])?;
            replaced(given(search)?, given(replace)?, &given(subject)?.string()?)?
        }
        "contains" | "startswith" | "endswith" => {
            let (text, needle) = arguments.two_texts(["haystack", "needles"])?;
            let is_in = match name {
                "contains" => text.contains(&needle),
                "startswith" => text.starts_with(&needle),
                _ => text.ends_with(&needle),
            };
            Value::Bool(is_in && !needle.is_empty())
        }
        "after" | "before" => {
            let (text, search) = arguments.two_texts(["subject", "search"])?;
            let parts = text.split_once(&search).filter(|_| !search.is_empty());
            Value::text(parts.map_or(text.as_str(), |(before, after)| if name == "after" { after } else { before }))
        }
        _ => return Err(format!("`Str::{name}()`")),
    })
}

fn ascii(text: &str, has_ascii: bool) -> Result<String> {
    if has_ascii {
        return Ok(slug::ascii(text));
    }
    slug::ascii_before_7(text).ok_or_else(|| format!("`Str::ascii({text:?})` of a Laravel before 7"))
}

/// Calls a method of `Str::of(…)` by its lower-case name; the text is the first argument.
pub(in crate::cli::laravel::php) fn fluent(name: &str, mut arguments: Arguments, has_ascii: bool) -> Result {
    match name {
        "tostring" | "value" | "__tostring" => arguments.take(["text"]).and_then(|[text]| given(text)),
        "append" | "prepend" => {
            let mut texts = arguments.values.iter().map(Value::string).collect::<Result<Vec<_>>>()?;
            if name == "prepend" {
                texts.rotate_left(1);
            }
            Ok(Value::Text(texts.concat()))
        }
        "trim" | "ltrim" | "rtrim" => super::call(name, arguments, has_ascii),
        "replace" if arguments.values.len() == 3 => {
            arguments.values.rotate_left(1);
            call(name, arguments, has_ascii)
        }
        _ => call(name, arguments, has_ascii),
    }
}
