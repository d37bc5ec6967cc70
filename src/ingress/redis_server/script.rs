//! [`Script`]: the Lua that Laravel broadcasts with, understood by what it does.
//!
//! Input: the text of `EVAL` or `SCRIPT LOAD`, later keys and arguments. Output: what the script publishes. Loops over
//! `KEYS` or `ARGV` and calls of `publish` are known, in any order and layout; nothing else is.

use std::borrow::Cow;

use bytes::Bytes;

mod lex;

use lex::{Token, tokens};

/// Statements and turns of loops in one run: a script must not turn a small command into endless work. Laravel's takes
/// two for a channel.
const MAX_STEPS: usize = 200_000;
/// Longest text of a script, in bytes. Laravel's has about a hundred; scripts are kept, for all clients.
const LONGEST: usize = 16 * 1024;
/// Loops within loops.
const DEEPEST: usize = 4;

/// A name of a channel or a payload: part of the command, or of the script.
type Text<'a> = Cow<'a, [u8]>;

/// A script that publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    /// As it was sent.
    text: Bytes,
    statements: Vec<Statement>,
}

/// It is another script than Laravel's for broadcasting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("only scripts that publish, as Laravel's broadcasters send them, run here; this is no Redis to keep data in")]
pub(super) struct UnknownScript;

/// It asks for more than there is: a key or argument that was not given, or too much work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the script publishes to, or publishes, an argument that is not there, or too often")]
pub(super) struct RunError;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Statement {
    /// `for i = 2, #ARGV do … end`
    Count { index: String, from: usize, list: List, body: Vec<Self> },
    /// `for _, channel in ipairs(KEYS) do … end`
    Each { index: String, item: String, list: List, body: Vec<Self> },
    /// `local payload = ARGV[1]`
    Let { name: String, value: Value },
    /// `redis.call('publish', channel, payload)`; with `return`, its count is the answer.
    Publish { channel: Value, payload: Value, is_returned: bool },
    /// `return` of a constant.
    Return,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Keys,
    Args,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// `ARGV[1]`
    At(List, usize),
    /// `ARGV[i]`
    AtIndex(List, String),
    /// A name bound by a loop or by `local`.
    Name(String),
    Text(String),
}

/// What a run publishes: channels and payloads in order, and which of them gives the answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Publishes<'a> {
    pub(super) messages: Vec<(Text<'a>, Text<'a>)>,
    pub(super) returned: Option<usize>,
}

impl Script {
    pub(super) fn parse(text: &[u8]) -> Result<Self, UnknownScript> {
        if text.len() > LONGEST {
            return Err(UnknownScript);
        }
        let tokens = std::str::from_utf8(text).ok().and_then(tokens).ok_or(UnknownScript)?;
        let mut parser = Parser { tokens: &tokens };
        let statements = parser.block(0).ok_or(UnknownScript)?;
        let publishes = statements.iter().any(Statement::publishes);
        if parser.tokens.is_empty() && publishes { Ok(Self { text: Bytes::copy_from_slice(text), statements }) } else { Err(UnknownScript) }
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn run<'a>(&'a self, keys: &'a [&'a [u8]], args: &'a [&'a [u8]]) -> Result<Publishes<'a>, RunError> {
        let mut run = Run { keys, args, names: Vec::new(), out: Publishes::default(), steps: 0, is_over: false };
        run.block(&self.statements)?;
        Ok(run.out)
    }
}

impl Statement {
    fn publishes(&self) -> bool {
        match self {
            Self::Count { body, .. } | Self::Each { body, .. } => body.iter().any(Self::publishes),
            Self::Publish { .. } => true,
            Self::Let { .. } | Self::Return => false,
        }
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
}

impl Parser<'_> {
    fn take(&mut self) -> Option<&Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn is_next(&self, text: &str) -> bool {
        self.tokens.first().is_some_and(|token| token.is(text))
    }

    /// Takes the token if it is this one.
    fn skip(&mut self, text: &str) -> bool {
        let is_it = self.is_next(text);
        if is_it {
            self.take();
        }
        is_it
    }

    fn expect(&mut self, text: &str) -> Option<()> {
        self.skip(text).then_some(())
    }

    fn name(&mut self) -> Option<String> {
        match self.take()? {
            Token::Word(word) => Some(word.clone()),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<usize> {
        match self.take()? {
            Token::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// Statements up to `end`, or to the end of the script.
    fn block(&mut self, depth: usize) -> Option<Vec<Statement>> {
        let mut statements = Vec::new();
        while !self.tokens.is_empty() && !self.is_next("end") {
            if self.skip(";") {
                continue;
            }
            statements.push(self.statement(depth)?);
        }
        Some(statements)
    }

    fn statement(&mut self, depth: usize) -> Option<Statement> {
        if self.skip("for") {
            return (depth < DEEPEST).then(|| self.repeat(depth))?;
        }
        if self.skip("local") {
            let name = self.name()?;
            self.expect("=")?;
            return if self.is_next("redis") { self.publish(false) } else { Some(Statement::Let { name, value: self.value()? }) };
        }
        if self.skip("return") {
            if self.is_next("redis") {
                return self.publish(true);
            }
            let is_constant = matches!(self.tokens.first(), None | Some(Token::Number(_) | Token::Text(_)))
                || ["nil", "true", "false", "end"].iter().any(|word| self.is_next(word));
            if !self.tokens.is_empty() && !self.is_next("end") {
                self.take();
            }
            return is_constant.then_some(Statement::Return);
        }
        self.publish(false)
    }

    fn repeat(&mut self, depth: usize) -> Option<Statement> {
        let index = self.name()?;
        if self.skip("=") {
            let from = self.number()?;
            self.expect(",")?;
            self.expect("#")?;
            let list = self.list()?;
            if self.skip(",") && self.number()? != 1 {
                return None;
            }
            return Some(Statement::Count { index, from, list, body: self.body(depth)? });
        }
        self.expect(",")?;
        let item = self.name()?;
        self.expect("in")?;
        let of = self.name()?;
        if of != "ipairs" && of != "pairs" {
            return None;
        }
        self.expect("(")?;
        let list = self.list()?;
        self.expect(")")?;
        Some(Statement::Each { index, item, list, body: self.body(depth)? })
    }

    fn body(&mut self, depth: usize) -> Option<Vec<Statement>> {
        self.expect("do")?;
        let body = self.block(depth + 1)?;
        self.expect("end")?;
        Some(body)
    }

    fn list(&mut self) -> Option<List> {
        match self.name()?.as_str() {
            "KEYS" => Some(List::Keys),
            "ARGV" => Some(List::Args),
            _ => None,
        }
    }

    fn publish(&mut self, is_returned: bool) -> Option<Statement> {
        self.expect("redis")?;
        self.expect(".")?;
        let call = self.name()?;
        if call != "call" && call != "pcall" {
            return None;
        }
        self.expect("(")?;
        let Token::Text(command) = self.take()? else { return None };
        if !command.eq_ignore_ascii_case("publish") && !command.eq_ignore_ascii_case("spublish") {
            return None;
        }
        self.expect(",")?;
        let channel = self.value()?;
        self.expect(",")?;
        let payload = self.value()?;
        self.expect(")")?;
        Some(Statement::Publish { channel, payload, is_returned })
    }

    fn value(&mut self) -> Option<Value> {
        let name = match self.take()? {
            Token::Text(text) => return Some(Value::Text(text.clone())),
            Token::Word(name) => name.clone(),
            _ => return None,
        };
        let list = match name.as_str() {
            "KEYS" => List::Keys,
            "ARGV" => List::Args,
            _ => return Some(Value::Name(name)),
        };
        self.expect("[")?;
        let value = match self.take()? {
            Token::Number(number) => Value::At(list, *number),
            Token::Word(index) => Value::AtIndex(list, index.clone()),
            _ => return None,
        };
        self.expect("]")?;
        Some(value)
    }
}

/// What a name stands for.
#[derive(Clone)]
enum Bound<'a> {
    Index(usize),
    Bytes(Text<'a>),
}

struct Run<'a> {
    keys: &'a [&'a [u8]],
    args: &'a [&'a [u8]],
    names: Vec<(&'a str, Bound<'a>)>,
    out: Publishes<'a>,
    steps: usize,
    /// A `return` was met.
    is_over: bool,
}

impl<'a> Run<'a> {
    fn list(&self, list: List) -> &'a [&'a [u8]] {
        match list {
            List::Keys => self.keys,
            List::Args => self.args,
        }
    }

    /// Lua counts from 1.
    fn at(&self, list: List, index: usize) -> Result<Text<'a>, RunError> {
        index.checked_sub(1).and_then(|index| self.list(list).get(index)).map(|bytes| Cow::Borrowed(*bytes)).ok_or(RunError)
    }

    fn bound(&self, name: &str) -> Result<Bound<'a>, RunError> {
        self.names.iter().rev().find(|(bound, _)| *bound == name).map(|(_, value)| value.clone()).ok_or(RunError)
    }

    fn value(&self, value: &'a Value) -> Result<Text<'a>, RunError> {
        match value {
            Value::At(list, index) => self.at(*list, *index),
            Value::AtIndex(list, name) => match self.bound(name)? {
                Bound::Index(index) => self.at(*list, index),
                Bound::Bytes(_) => Err(RunError),
            },
            Value::Name(name) => match self.bound(name)? {
                Bound::Index(index) => Ok(Cow::Owned(index.to_string().into_bytes())),
                Bound::Bytes(bytes) => Ok(bytes),
            },
            Value::Text(text) => Ok(Cow::Borrowed(text.as_bytes())),
        }
    }

    fn step(&mut self) -> Result<(), RunError> {
        self.steps += 1;
        if self.steps > MAX_STEPS { Err(RunError) } else { Ok(()) }
    }

    fn block(&mut self, statements: &'a [Statement]) -> Result<(), RunError> {
        let outer = self.names.len();
        for statement in statements {
            if self.is_over {
                break;
            }
            self.step()?;
            match statement {
                Statement::Count { index, from, list, body } => {
                    for number in *from..=self.list(*list).len() {
                        self.turn([(index.as_str(), Bound::Index(number))], body)?;
                    }
                }
                Statement::Each { index, item, list, body } => {
                    for number in 1..=self.list(*list).len() {
                        let item = (item.as_str(), Bound::Bytes(self.at(*list, number)?));
                        self.turn([(index.as_str(), Bound::Index(number)), item], body)?;
                    }
                }
                Statement::Let { name, value } => {
                    let value = self.value(value)?;
                    self.names.push((name, Bound::Bytes(value)));
                }
                Statement::Publish { channel, payload, is_returned } => {
                    if *is_returned {
                        self.out.returned = Some(self.out.messages.len());
                        self.is_over = true;
                    }
                    let message = (self.value(channel)?, self.value(payload)?);
                    self.out.messages.push(message);
                }
                Statement::Return => self.is_over = true,
            }
        }
        self.names.truncate(outer);
        Ok(())
    }

    /// One turn of a loop, with the names it binds.
    fn turn<const N: usize>(&mut self, names: [(&'a str, Bound<'a>); N], body: &'a [Statement]) -> Result<(), RunError> {
        if self.is_over {
            return Ok(());
        }
        self.step()?;
        let outer = self.names.len();
        self.names.extend(names);
        self.block(body)?;
        self.names.truncate(outer);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
