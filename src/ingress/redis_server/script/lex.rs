//! Lua as far as Laravel's scripts go: words, numbers, texts, signs; blanks and comments fall away.

/// One piece of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Number(usize),
    Text(String),
    Sign(char),
}

impl Token {
    /// Whether it is this word or sign.
    pub(super) fn is(&self, text: &str) -> bool {
        match self {
            Self::Word(word) => word == text,
            Self::Sign(sign) => text.chars().eq([*sign]),
            Self::Number(_) | Self::Text(_) => false,
        }
    }
}

/// The pieces of a script; `None` for what is no such Lua.
pub(super) fn tokens(script: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = script.trim_start();
    while let Some(first) = rest.chars().next() {
        let end_of = |is_part: fn(char) -> bool| rest.find(|character| !is_part(character)).unwrap_or(rest.len());
        rest = match first {
            '-' if rest.starts_with("--") => rest.split_once('\n').map_or("", |(_, after)| after),
            '\'' | '"' => {
                let (text, after) = rest[1..].split_once(first)?;
                if text.contains('\\') {
                    return None;
                }
                tokens.push(Token::Text(text.to_owned()));
                after
            }
            '0'..='9' => {
                let (number, after) = rest.split_at(end_of(|character| character.is_ascii_digit()));
                tokens.push(Token::Number(number.parse().ok()?));
                after
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let (word, after) = rest.split_at(end_of(|character| character.is_ascii_alphanumeric() || character == '_'));
                tokens.push(Token::Word(word.to_owned()));
                after
            }
            '=' | ',' | '#' | '(' | ')' | '[' | ']' | '.' | ';' => {
                tokens.push(Token::Sign(first));
                &rest[1..]
            }
            _ => return None,
        };
        rest = rest.trim_start();
    }
    Some(tokens)
}
