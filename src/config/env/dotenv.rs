//! The `.env` format as Laravel writes it. Input: the text of a file. Output: names and values in order.
//!
//! Nothing is expanded here: `${VAR}` and `$` in passwords are kept.

use std::iter::Peekable;
use std::str::CharIndices;

/// Reads `NAME=value` lines; other lines are skipped, as Laravel's tools do with comments.
pub(super) fn parse(text: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    while !rest.is_empty() {
        let line_end = rest.find('\n').unwrap_or(rest.len());
        let Some((name, value_start)) = name(&rest[..line_end]) else {
            rest = after(rest, line_end);
            continue;
        };
        // A quoted value may span several lines.
        let (value, value_len) = value(&rest[value_start..]);
        pairs.push((name.to_owned(), value));
        let used = value_start + value_len;
        let line_end = rest[used..].find('\n').map_or(rest.len(), |end| used + end);
        rest = after(rest, line_end);
    }
    pairs
}

/// The text after the line break at `line_end`.
fn after(text: &str, line_end: usize) -> &str {
    text.get(line_end + 1..).unwrap_or("")
}

/// The name on this line and where its value starts.
fn name(line: &str) -> Option<(&str, usize)> {
    let (left, _) = line.split_once('=')?;
    let name = left.trim();
    let name = name.strip_prefix("export ").map_or(name, str::trim_start);
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    is_name.then_some((name, left.len() + 1))
}

/// The value at the start of `text` and its length in bytes.
fn value(text: &str) -> (String, usize) {
    let line = text.split('\n').next().unwrap_or("");
    let indent = line.len() - line.trim_start().len();
    let mut chars = text[indent..].char_indices().peekable();
    let quoted = match chars.peek() {
        Some((_, quote @ ('"' | '\''))) => {
            let quote = *quote;
            chars.next();
            until_quote(&mut chars, quote)
        }
        _ => None,
    };
    if let Some((value, len)) = quoted {
        return (value, indent + len);
    }
    let plain = line.trim_start();
    // ` #` starts a comment; a `#` inside a value does not.
    let end = if plain.starts_with('#') { Some(0) } else { plain.find(" #").or_else(|| plain.find("\t#")) };
    (plain[..end.unwrap_or(plain.len())].trim_end().to_owned(), line.len())
}

/// Reads to the closing quote. Double quotes support `\n`, `\r`, `\t`, `\"`, `\\` and `\$`; `None` if there is no closing quote.
fn until_quote(chars: &mut Peekable<CharIndices<'_>>, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    while let Some((index, c)) = chars.next() {
        if c == quote {
            return Some((value, index + 1));
        }
        if c != '\\' || quote == '\'' {
            value.push(c);
            continue;
        }
        match chars.next()?.1 {
            'n' => value.push('\n'),
            'r' => value.push('\r'),
            't' => value.push('\t'),
            escaped @ ('"' | '\\' | '$' | '\'') => value.push(escaped),
            other => value.extend(['\\', other]),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::parse;

    fn one(text: &str) -> String {
        let pairs = parse(text);
        assert_eq!(pairs.len(), 1, "{pairs:?}");
        pairs[0].1.clone()
    }

    #[test]
    fn plain_values_end_at_a_comment_or_the_line() {
        assert_eq!(one("A=b c \n"), "b c");
        assert_eq!(one("A=b # comment"), "b");
        assert_eq!(one("A=pa#ss$word"), "pa#ss$word");
        assert_eq!(one("A=\n"), "");
        assert_eq!(one("A= # nothing\r\n"), "");
        assert_eq!(one("export A = b\r\n"), "b");
        assert_eq!(one("A=a=b=c"), "a=b=c");
    }

    #[test]
    fn quotes_keep_spaces_hashes_and_line_breaks() {
        assert_eq!(one("A=\"b # c\" # comment"), "b # c");
        assert_eq!(one(r#"A="say \"hi\"\n""#), "say \"hi\"\n");
        assert_eq!(one(r"A='back\slash ${X}'"), r"back\slash ${X}");
        assert_eq!(one("A=\"first\nsecond\"\n"), "first\nsecond");
        assert_eq!(one("A=\"never closed\n"), "\"never closed");
    }

    #[test]
    fn comments_and_other_lines_are_passed_over() {
        let pairs = parse("\u{feff}# A=1\n\nnonsense\nB=2\n C=3\nA B=4\n");
        assert_eq!(pairs, [("B".to_owned(), "2".to_owned()), ("C".to_owned(), "3".to_owned())]);
    }
}
