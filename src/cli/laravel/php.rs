//! Reads the array that a PHP config file returns, as far as it is made of arrays, texts, numbers, `env(…)`,
//! `Str::slug(…)` and `.` between them; anything else is an unknown value. Input: PHP text. Output: a tree.

/// A value in a config file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Php {
    /// An array; a list has no keys.
    Array(Vec<(Option<String>, Self)>),
    /// Text or a number.
    Text(String),
    Null,
    /// `env('NAME', default)`.
    Env(String, Box<Self>),
    /// `Str::slug(text, separator)`.
    Slug(Box<Self>, String),
    /// Values with `.` between them.
    Joined(Vec<Self>),
    /// Something that only PHP can tell.
    Unknown,
}

impl Php {
    /// The array behind `return`.
    pub(super) fn parse(text: &str) -> Self {
        let tokens = tokens(text);
        let start = tokens.iter().position(|token| *token == Token::Word("return".to_owned()));
        let mut parser = Parser { tokens: &tokens[start.map_or(tokens.len(), |start| start + 1)..] };
        parser.value()
    }

    /// The value below these keys.
    pub(super) fn at(&self, keys: &[&str]) -> Option<&Self> {
        let [first, rest @ ..] = keys else { return Some(self) };
        let Self::Array(items) = self else { return None };
        let (_, value) = items.iter().find(|(key, _)| key.as_deref() == Some(first))?;
        value.at(rest)
    }

    /// The text it comes to; `None` for null and for what cannot be known.
    pub(super) fn text(&self, variable: &impl Fn(&str) -> Option<String>) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Env(name, default) => variable(name).or_else(|| default.text(variable)),
            Self::Slug(text, separator) => Some(slug(&text.text(variable)?, separator)),
            Self::Joined(parts) => parts.iter().map(|part| part.text(variable)).collect(),
            Self::Array(_) | Self::Null | Self::Unknown => None,
        }
    }
}

/// Laravel's `Str::slug`, for ASCII.
fn slug(text: &str, separator: &str) -> String {
    let other = if separator == "_" { "-" } else { "_" };
    let text = text.to_lowercase().replace('@', &format!("{separator}at{separator}")).replace(other, separator);
    let kept: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || c.is_whitespace() || separator.contains(*c)).collect();
    let is_gap = |c: char| c.is_whitespace() || separator.contains(c);
    kept.split(is_gap).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(separator)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Text(String),
    /// A name or a number.
    Word(String),
    Sign(char),
    Arrow,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let used = match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '\'' | '"' => {
                let (text, used) = quoted(rest, first);
                tokens.push(Token::Text(text));
                used
            }
            '=' if rest.starts_with("=>") => {
                tokens.push(Token::Arrow);
                2
            }
            c if is_word(c) => {
                let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                end
            }
            c if c.is_whitespace() => c.len_utf8(),
            c => {
                tokens.push(Token::Sign(c));
                c.len_utf8()
            }
        };
        rest = &rest[used..];
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | ':' | '\\' | '$')
}

/// A quoted text and the bytes it takes, quotes included.
fn quoted(text: &str, quote: char) -> (String, usize) {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c if c == quote => return (value, index + 1),
            c => value.push(c),
        }
    }
    (value, text.len())
}

struct Parser<'a> {
    tokens: &'a [Token],
}

impl Parser<'_> {
    fn next(&mut self) -> Option<&Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn eat(&mut self, token: &Token) -> bool {
        let eats = self.tokens.first() == Some(token);
        if eats {
            self.next();
        }
        eats
    }

    /// A value up to the `,`, `=>` or closing bracket behind it.
    fn value(&mut self) -> Php {
        let mut parts = vec![self.part()];
        while self.eat(&Token::Sign('.')) {
            parts.push(self.part());
        }
        if !self.at_end() {
            self.skip();
            return Php::Unknown;
        }
        if parts.len() == 1 { parts.remove(0) } else { Php::Joined(parts) }
    }

    fn at_end(&self) -> bool {
        matches!(self.tokens.first(), None | Some(Token::Arrow | Token::Sign(',' | ']' | ')' | ';')))
    }

    /// Passes over the rest of something that is not understood.
    fn skip(&mut self) {
        let mut depth = 0_usize;
        while depth > 0 || !self.at_end() {
            match self.next() {
                Some(Token::Sign('(' | '[' | '{')) => depth += 1,
                Some(Token::Sign(')' | ']' | '}')) => depth = depth.saturating_sub(1),
                Some(_) => {}
                None => return,
            }
        }
    }

    fn part(&mut self) -> Php {
        match self.tokens {
            [Token::Text(text), ..] => {
                let text = text.clone();
                self.next();
                Php::Text(text)
            }
            [Token::Sign('['), ..] => {
                self.next();
                self.array(']')
            }
            // A cast: `(string) …`.
            [Token::Sign('('), Token::Word(_), Token::Sign(')'), rest @ ..] => {
                self.tokens = rest;
                self.part()
            }
            [Token::Word(name), Token::Sign('('), rest @ ..] => {
                let name = name.clone();
                self.tokens = rest;
                self.call(&name)
            }
            [Token::Word(word), ..] => {
                let word = word.clone();
                self.next();
                match word.to_ascii_lowercase().as_str() {
                    "null" => Php::Null,
                    _ if word.bytes().all(|byte| byte.is_ascii_digit()) => Php::Text(word),
                    _ => Php::Unknown,
                }
            }
            _ => Php::Unknown,
        }
    }

    fn array(&mut self, close: char) -> Php {
        let mut items = Vec::new();
        while !self.tokens.is_empty() && !self.eat(&Token::Sign(close)) {
            let first = self.value();
            if self.eat(&Token::Arrow) {
                let key = if let Php::Text(key) = first { Some(key) } else { None };
                items.push((key, self.value()));
            } else {
                items.push((None, first));
            }
            // A sign that fits nowhere must not hold us up.
            if !self.eat(&Token::Sign(',')) && self.tokens.first() != Some(&Token::Sign(close)) {
                self.next();
            }
        }
        Php::Array(items)
    }

    fn call(&mut self, name: &str) -> Php {
        let Php::Array(arguments) = self.array(')') else { return Php::Unknown };
        if name == "array" {
            return Php::Array(arguments);
        }
        let mut arguments = arguments.into_iter().map(|(_, value)| value);
        match (name.rsplit('\\').next().unwrap_or(name), arguments.next(), arguments.next()) {
            ("env", Some(Php::Text(name)), default) => Php::Env(name, Box::new(default.unwrap_or(Php::Null))),
            ("Str::slug" | "str_slug", Some(text), separator) => {
                let separator = if let Some(Php::Text(separator)) = separator { separator } else { "-".to_owned() };
                Php::Slug(Box::new(text), separator)
            }
            _ => Php::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_those_of_laravel() {
        assert_eq!(slug("My  Great_App!", "_"), "my_great_app");
        assert_eq!(slug("My-App", "_"), "my_app");
        assert_eq!(slug("me@home", "-"), "me-at-home");
        assert_eq!(slug(" Laravel ", "-"), "laravel");
    }

    #[test]
    fn what_is_not_understood_is_unknown_and_the_rest_goes_on() {
        let php =
            Php::parse("<?php return ['a' => fn ($x) => [$x, 1], 'b' => 'c', 'd' => env('X', 5) ?: 6, 'e' => \"f\\\"g\", 'h' => PHP_OS];");
        assert_eq!(php.at(&["b"]), Some(&Php::Text("c".into())));
        assert_eq!(php.at(&["e"]), Some(&Php::Text("f\"g".into())));
        assert_eq!(php.at(&["d"]), Some(&Php::Unknown));
        assert_eq!(php.at(&["h"]), Some(&Php::Unknown));
        assert_eq!(php.at(&["x"]), None);
    }

    #[test]
    fn any_text_is_read_to_its_end() {
        for text in ["", "<?php", "return [", "return ['a' => [", "return ]]])", "return ['a' 'b' => ,, )", "return ['\\"] {
            Php::parse(text);
        }
    }
}
