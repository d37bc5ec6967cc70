//! [`Framer`]: commands out of the bytes of a connection.
//!
//! Input: bytes as they arrive. Output: commands as lists of arguments, or the first thing that is no command. Every
//! length is checked as soon as it is announced, and commands are flat lists, so that neither memory nor stack depends
//! on what a client says it will send. The frames themselves are decoded by `redis_protocol`.

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;

/// Arguments of one command: a broadcast to more channels than anybody has.
const MOST_ARGUMENTS: i64 = 65_536;
/// `*12345\r\n`: no announced number has more digits than fit here.
const LONGEST_HEADER: usize = 32;
/// A command typed by hand.
const LONGEST_INLINE: usize = 64 * 1024;
/// What is read at once.
const CHUNK: usize = 16 * 1024;
/// Words that a browser's or other HTTP request begins with. A page could make a browser send one here, with commands
/// in its body.
const HTTP_WORDS: [&str; 9] = ["get", "post", "put", "patch", "delete", "head", "options", "connect", "host:"];

/// What a TLS client begins with.
pub(super) const TLS_HANDSHAKE: u8 = 0x16;

/// The name of a command and its arguments.
pub(super) type Command = Vec<Bytes>;

/// What is no command; the connection cannot be understood any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("Protocol error: invalid multibulk length")]
    Count,
    #[error("Protocol error: invalid bulk length")]
    Length,
    #[error("Protocol error: expected '$', got '{0}'")]
    NoBulk(char),
    #[error("Protocol error: too big inline request")]
    Inline,
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    #[error("the command is larger than redisServer.maxMessageBytes ({0})")]
    TooLarge(usize),
    #[error("this port speaks Redis, not HTTP")]
    Http,
    #[error("this port speaks no TLS: set redisServer.tls, or connect without")]
    Tls,
    #[error("Protocol error: {0}")]
    Invalid(String),
}

/// Commands out of bytes.
#[derive(Debug, Default)]
pub(super) struct Framer {
    buffer: BytesMut,
    /// Where to look next in the list that has begun, and how many of its elements are still to come.
    at: usize,
    missing: Option<usize>,
}

impl Framer {
    /// Room for what comes next.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * CHUNK {
            // A large command was here; its memory goes back.
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(CHUNK);
        &mut self.buffer
    }

    /// Bytes of a command that is not complete.
    pub(super) fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// The next command, `None` until there is one. `limit` is for its bytes, all in all.
    pub(super) fn next(&mut self, limit: usize) -> Result<Option<Command>, FrameError> {
        loop {
            let command = match self.buffer.first() {
                None => return Ok(None),
                Some(b'*') => self.list(limit)?,
                Some(&TLS_HANDSHAKE) => return Err(FrameError::Tls),
                Some(_) => self.inline()?,
            };
            match command {
                // Empty lines and lists say nothing.
                Some(command) if command.is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    /// `*2\r\n$4\r\nPING\r\n$2\r\nhi\r\n`
    fn list(&mut self, limit: usize) -> Result<Option<Command>, FrameError> {
        let mut missing = match self.missing {
            Some(missing) => missing,
            None => {
                let Some((count, next)) = self.number(1)? else { return Ok(None) };
                let count = count.filter(|count| *count <= MOST_ARGUMENTS).ok_or(FrameError::Count)?;
                self.at = next;
                usize::try_from(count).unwrap_or(0)
            }
        };
        while missing > 0 {
            self.missing = Some(missing);
            match self.buffer.get(self.at) {
                None => return Ok(None),
                Some(b'$') => {}
                Some(other) => return Err(FrameError::NoBulk(char::from(*other))),
            }
            let Some((length, start)) = self.number(self.at + 1)? else { return Ok(None) };
            let length = length.and_then(|length| usize::try_from(length).ok()).ok_or(FrameError::Length)?;
            let end = start.saturating_add(length).saturating_add(2);
            if end > limit {
                return Err(FrameError::TooLarge(limit));
            }
            if end > self.buffer.len() {
                return Ok(None);
            }
            self.at = end;
            missing -= 1;
        }
        let frame = self.buffer.split_to(self.at).freeze();
        (self.at, self.missing) = (0, None);
        arguments(&frame).map(Some)
    }

    /// The number from `start` to the end of its line, `None` if it is none; and where the next line begins.
    fn number(&self, start: usize) -> Result<Option<(Option<i64>, usize)>, FrameError> {
        let rest = &self.buffer[start.min(self.buffer.len())..];
        let rest = &rest[..rest.len().min(LONGEST_HEADER)];
        let end = rest.iter().position(|byte| *byte == b'\r').filter(|end| *end + 1 < rest.len());
        match end {
            Some(end) if rest[end + 1] != b'\n' => Err(FrameError::Length),
            Some(end) => {
                let number = std::str::from_utf8(&rest[..end]).ok().and_then(|text| text.parse().ok());
                Ok(Some((number, start + end + 2)))
            }
            None if rest.len() == LONGEST_HEADER => Err(FrameError::Length),
            None => Ok(None),
        }
    }

    /// `PING hi`, as typed into telnet.
    fn inline(&mut self) -> Result<Option<Command>, FrameError> {
        let Some(end) = self.buffer.iter().take(LONGEST_INLINE).position(|byte| *byte == b'\n') else {
            return if self.buffer.len() >= LONGEST_INLINE { Err(FrameError::Inline) } else { Ok(None) };
        };
        let line = self.buffer.split_to(end + 1);
        let line = String::from_utf8_lossy(&line);
        let words = words(line.trim())?;
        if words.first().is_some_and(|word| HTTP_WORDS.iter().any(|http| word.eq_ignore_ascii_case(http.as_bytes()))) {
            return Err(FrameError::Http);
        }
        Ok(Some(words))
    }
}

/// Words of a line; quotes keep blanks together.
fn words(line: &str) -> Result<Command, FrameError> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            quote @ ('"' | '\'') => rest[1..].split_once(quote).ok_or(FrameError::Quotes)?,
            _ => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        words.push(Bytes::copy_from_slice(word.as_bytes()));
        rest = after.trim_start();
    }
    Ok(words)
}

fn arguments(frame: &Bytes) -> Result<Command, FrameError> {
    let decoded = decode_range(frame).map_err(|error| FrameError::Invalid(error.to_string()))?;
    let Some((RangeFrame::Array(items), _)) = decoded else {
        // `*0` and `*-1`
        return Ok(Vec::new());
    };
    let argument = |item: RangeFrame| match item {
        RangeFrame::BulkString((start, end)) => Ok(frame.slice(start..end)),
        _ => Err(FrameError::Length),
    };
    items.into_iter().map(argument).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1_000_000;

    fn all(framer: &mut Framer) -> Result<Vec<Command>, FrameError> {
        let mut commands = Vec::new();
        while let Some(command) = framer.next(LIMIT)? {
            commands.push(command);
        }
        Ok(commands)
    }

    fn read(bytes: &[u8]) -> Result<Vec<Command>, FrameError> {
        let mut framer = Framer::default();
        framer.space().extend_from_slice(bytes);
        all(&mut framer)
    }

    fn encode(command: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
        for argument in command {
            bytes.extend(format!("${}\r\n", argument.len()).bytes());
            bytes.extend(argument);
            bytes.extend(b"\r\n");
        }
        bytes
    }

    #[test]
    fn commands_come_as_lists_or_lines() {
        let commands = read(b"*2\r\n$4\r\nPING\r\n$2\r\nhi\r\n\r\n*0\r\nPUBLISH 'a b' \"{}\"\r\nPING\n").unwrap();
        let expected: [&[&str]; 3] = [&["PING", "hi"], &["PUBLISH", "a b", "{}"], &["PING"]];
        assert_eq!(commands, expected);
    }

    #[test]
    fn what_cannot_be_a_command_says_why() {
        for (bytes, error) in [
            ("*1\r\n$99999999999\r\n", FrameError::TooLarge(LIMIT)),
            ("*1\r\n$-5\r\n", FrameError::Length),
            ("*1\r\n$x\r\n", FrameError::Length),
            ("*99999999\r\n", FrameError::Count),
            ("*x\r\n", FrameError::Count),
            ("*1\r\n*1\r\n*1\r\n", FrameError::NoBulk('*')),
            ("*1\r\n:5\r\n", FrameError::NoBulk(':')),
            ("*11111111111111111111111111111111111111", FrameError::Length),
            ("PUBLISH 'a", FrameError::Quotes),
            ("POST / HTTP/1.1\r\n", FrameError::Http),
            ("Host: localhost\r\n", FrameError::Http),
            ("\u{16}\u{3}\u{1}", FrameError::Tls),
        ] {
            let line = if bytes.starts_with("PUBLISH") { format!("{bytes}\r\n") } else { bytes.to_owned() };
            assert_eq!(read(line.as_bytes()), Err(error), "{bytes}");
        }
        assert_eq!(read(&[b'x'; LONGEST_INLINE]), Err(FrameError::Inline));
    }

    #[test]
    fn the_limit_is_for_all_arguments_together() {
        let command = encode(&vec![vec![b'x'; 1_000]; 1_100]);
        assert_eq!(read(&command), Err(FrameError::TooLarge(LIMIT)));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let mut framer = Framer::default();
            for chunk in chunks {
                framer.space().extend_from_slice(&chunk);
                if all(&mut framer).is_err() {
                    break;
                }
            }
        }

        #[test]
        fn no_bytes_that_look_like_commands_break_it(bytes in "([*$][0-9-]{0,3}\r\n|[a-z]{0,4}\r\n){0,20}", cut in 0_usize..100) {
            let mut framer = Framer::default();
            let (first, second) = bytes.as_bytes().split_at(cut.min(bytes.len()));
            framer.space().extend_from_slice(first);
            let early = all(&mut framer);
            framer.space().extend_from_slice(second);
            if let Ok(mut commands) = early {
                // Where the bytes are cut makes no difference.
                let rest = all(&mut framer);
                let whole = read(bytes.as_bytes());
                prop_assert_eq!(rest.is_ok(), whole.is_ok());
                if let (Ok(rest), Ok(whole)) = (rest, whole) {
                    commands.extend(rest);
                    prop_assert_eq!(commands, whole);
                }
            }
        }

        #[test]
        fn commands_arrive_as_they_were_sent(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5), 1..5),
            size in 1_usize..50,
        ) {
            let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
            let mut framer = Framer::default();
            let mut read = Vec::new();
            for chunk in bytes.chunks(size) {
                framer.space().extend_from_slice(chunk);
                read.extend(all(&mut framer).unwrap());
            }
            prop_assert_eq!(read, commands);
            prop_assert_eq!(framer.pending(), 0);
        }
    }
}
