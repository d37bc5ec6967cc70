//! Splits PHP into tokens. Input: the text of a file. Output: tokens with their positions, without comments.

use std::ops::Range;

/// A token and its byte range.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: Range<usize>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// `$name`, without the `$`.
    Variable(String),
    /// A word: `return`, `Illuminate\Support\Str`, `PHP_OS`.
    Name(String),
    Number(String),
    /// A quoted string or a heredoc.
    Text(Vec<Piece>),
    Sign(&'static str),
}

/// A part of a string: literal text or an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    Plain(String),
    Code(Vec<Token>),
}

/// Operators and punctuation; longer ones come before their prefixes.
const SIGNS: [&str; 54] = [
    "<=>", "===", "!==", "...", "??=", "?->", "**=", "=>", "->", "::", "==", "!=", "<>", "<=", ">=", "&&", "||", "??", ".=", "+=", "-=",
    "*=", "/=", "++", "--", "<<", ">>", "**", "|>", "#[", "(", ")", "[", "]", "{", "}", ",", ";", ":", "?", ".", "+", "-", "*", "/", "%",
    "=", "<", ">", "!", "&", "|", "@", "^",
];

/// A character that is none of the signs; no expression contains it.
const UNKNOWN: &str = "\0";

/// The tokens of a file. Text outside of PHP tags is skipped.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let start = text.find("<?php").map_or(0, |start| start + "<?php".len());
    let mut lexer = Lexer { text, at: start, tokens: Vec::new() };
    while lexer.step() {}
    lexer.tokens
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn push(&mut self, kind: Kind, len: usize) {
        self.tokens.push(Token { kind, at: self.at..self.at + len });
        self.at += len;
    }

    fn skip_past(&mut self, end: &str) {
        self.at += self.rest().find(end).map_or(self.rest().len(), |at| at + end.len());
    }

    /// Reads one token; `false` at the end.
    fn step(&mut self) -> bool {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return false };
        match first {
            '#' if !rest.starts_with("#[") => self.skip_past("\n"),
            '/' if rest.starts_with("//") => self.skip_past("\n"),
            '/' if rest.starts_with("/*") => self.skip_past("*/"),
            '?' if rest.starts_with("?>") => {
                self.push(Kind::Sign(";"), 2);
                self.skip_past("<?php");
            }
            '\'' => {
                let (text, len) = single_quoted(rest);
                self.push(Kind::Text(vec![Piece::Plain(text)]), len);
            }
            '"' => {
                let len = closing_quote(rest);
                let inner = rest[1..len].strip_suffix('"').unwrap_or(&rest[1..len]);
                self.push(Kind::Text(template(inner, true)), len);
            }
            '<' if rest.starts_with("<<<") => match heredoc(rest) {
                Some((pieces, len)) => self.push(Kind::Text(pieces), len),
                None => self.push(Kind::Sign("<<"), 2),
            },
            '$' if rest[1..].starts_with(is_word_start) => {
                let len = 1 + word_len(&rest[1..]);
                self.push(Kind::Variable(rest[1..len].to_owned()), len);
            }
            c if c.is_ascii_digit() => {
                let len = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))).unwrap_or(rest.len());
                // A trailing dot is the concatenation operator.
                let text = rest[..len].trim_end_matches('.');
                self.push(Kind::Number(text.to_owned()), text.len());
            }
            c if is_word_start(c) || c == '\\' && rest[1..].starts_with(is_word_start) => {
                let len = rest.find(|c: char| !(is_word(c) || c == '\\')).unwrap_or(rest.len());
                self.push(Kind::Name(rest[..len].trim_start_matches('\\').to_owned()), len);
            }
            c if c.is_whitespace() => self.at += c.len_utf8(),
            c => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
                Some(sign) => self.push(Kind::Sign(sign), sign.len()),
                None => self.push(Kind::Sign(UNKNOWN), c.len_utf8()),
            },
        }
        true
    }
}

fn is_word_start(c: char) -> bool {
    c.is_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_word(c: char) -> bool {
    is_word_start(c) || c.is_ascii_digit()
}

fn word_len(text: &str) -> usize {
    text.find(|c| !is_word(c)).unwrap_or(text.len())
}

/// A single-quoted string and its length in bytes; its only escapes are `\'` and `\\`.
fn single_quoted(text: &str) -> (String, usize) {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '\'' => return (value, index + 1),
            '\\' => match chars.next() {
                Some((_, escaped @ ('\'' | '\\'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => {}
            },
            c => value.push(c),
        }
    }
    (value, text.len())
}

/// The length in bytes of a double-quoted string, including the quotes.
fn closing_quote(text: &str) -> usize {
    let mut is_escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// `<<<X … X` or `<<<'X' … X`, and its length in bytes.
fn heredoc(text: &str) -> Option<(Vec<Piece>, usize)> {
    let (head, body) = text.split_once('\n')?;
    let label = head[3..].trim();
    let is_nowdoc = label.starts_with('\'');
    let label = label.trim_matches(['\'', '"']);
    if label.is_empty() || !label.chars().all(is_word) {
        return None;
    }
    let mut lines = Vec::new();
    let mut at = head.len() + 1;
    for line in body.split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        if line[indent..].strip_prefix(label).is_some_and(|behind| !behind.starts_with(is_word)) {
            let cut =
                |line: &&str| line.get(indent.min(line.len() - line.trim_start_matches([' ', '\t']).len())..).unwrap_or("").to_owned();
            let inner = lines.iter().map(cut).collect::<String>();
            let inner = inner.strip_suffix('\n').map_or(inner.as_str(), |inner| inner.strip_suffix('\r').unwrap_or(inner));
            let pieces = if is_nowdoc { vec![Piece::Plain(inner.to_owned())] } else { template(inner, false) };
            return Some((pieces, at + indent + label.len()));
        }
        lines.push(line);
        at += line.len();
    }
    None
}

/// The parts of a string with escapes and variables.
fn template(text: &str, is_quoted: bool) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let code = match c {
            '\\' => {
                let used = escape(rest, is_quoted, &mut plain);
                rest = &rest[used..];
                continue;
            }
            '{' if rest[1..].starts_with('$') => braces(rest).map(|len| (tokens_of(&rest[1..len - 1]), len)),
            // `${name}`
            '$' if rest[1..].starts_with('{') => braces(&rest[1..]).map(|len| (tokens_of(&format!("${}", &rest[2..len])), len + 1)),
            '$' if rest[1..].starts_with(is_word_start) => {
                let len = 1 + word_len(&rest[1..]);
                Some(simple(rest, len))
            }
            _ => None,
        };
        match code {
            Some((code, len)) => {
                if !plain.is_empty() {
                    pieces.push(Piece::Plain(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Code(code));
                rest = &rest[len..];
            }
            None => {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Plain(plain));
    }
    pieces
}

/// `$name`, `$name[key]` or `$name->key` in a string.
fn simple(text: &str, name_len: usize) -> (Vec<Token>, usize) {
    let behind = &text[name_len..];
    if let Some(end) = behind.strip_prefix('[').and_then(|behind| behind.find(']')) {
        let key = &behind[1..=end];
        let is_bare = key.starts_with(is_word_start);
        let key = if is_bare { format!("'{key}'") } else { key.to_owned() };
        return (tokens_of(&format!("{}[{key}]", &text[..name_len])), name_len + end + 2);
    }
    if let Some(behind) = behind.strip_prefix("->").filter(|behind| behind.starts_with(is_word_start)) {
        let len = name_len + 2 + word_len(behind);
        return (tokens_of(&text[..len]), len);
    }
    (tokens_of(&text[..name_len]), name_len)
}

fn tokens_of(code: &str) -> Vec<Token> {
    let mut lexer = Lexer { text: code, at: 0, tokens: Vec::new() };
    while lexer.step() {}
    lexer.tokens
}

/// The number of bytes up to and including the brace that closes the first one.
fn braces(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some(index + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Reads an escape at the start of `text` and returns its length in bytes.
fn escape(text: &str, is_quoted: bool, plain: &mut String) -> usize {
    let mut chars = text.chars();
    chars.next();
    let Some(c) = chars.next() else {
        plain.push('\\');
        return 1;
    };
    let simple = match c {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'v' => Some('\u{b}'),
        'e' => Some('\u{1b}'),
        'f' => Some('\u{c}'),
        '\\' | '$' => Some(c),
        '"' if is_quoted => Some(c),
        _ => None,
    };
    if let Some(c) = simple {
        plain.push(c);
        return 2;
    }
    let numeric = |digits: &str, radix, used| {
        let code = u32::from_str_radix(digits, radix).ok()?;
        Some((char::from_u32(if radix == 8 { code & 0xff } else { code })?, used))
    };
    let found = match c {
        'u' => text[2..].strip_prefix('{').and_then(|rest| rest.find('}').and_then(|end| numeric(&rest[..end], 16, end + 4))),
        'x' => {
            let digits: String = text[2..].chars().take(2).take_while(char::is_ascii_hexdigit).collect();
            numeric(&digits, 16, 2 + digits.len())
        }
        '0'..='7' => {
            let digits: String = text[1..].chars().take(3).take_while(|c| ('0'..='7').contains(c)).collect();
            numeric(&digits, 8, 1 + digits.len())
        }
        _ => None,
    };
    match found {
        Some((c, used)) => {
            plain.push(c);
            used
        }
        None => {
            plain.extend(['\\', c]);
            1 + c.len_utf8()
        }
    }
}
