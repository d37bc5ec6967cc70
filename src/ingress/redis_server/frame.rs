//! [`Framer`]: parses commands from the bytes of a connection.
//!
//! Input: received bytes. Output: commands as lists of arguments, or the first protocol error. Every length is checked as
//! soon as it is announced, and commands are flat lists, so neither memory nor stack depends on the lengths that a client
//! announces. Arguments stay in the read buffer: reading one needs no allocation.

use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};

/// Arguments of one command; more than a broadcast to many channels needs.
const MAX_ARGUMENTS: i64 = 65_536;
/// `*12345\r\n`: no announced number has more digits than fit here.
const MAX_HEADER_BYTES: usize = 32;
/// Longest command typed by hand.
const MAX_INLINE_BYTES: usize = 64 * 1024;
/// Capacity for argument positions that is kept for the next command.
const KEPT_PLACES: usize = 16;
/// First words of HTTP requests. Without this check, a web page could make a browser send an HTTP request to this port with
/// commands in its body.
const HTTP_WORDS: [&str; 9] = ["get", "post", "put", "patch", "delete", "head", "options", "connect", "host:"];

/// First byte of a TLS client.
pub(super) const TLS_HANDSHAKE: u8 = 0x16;

/// The name of a command and its arguments, copied out of the read buffer.
pub(super) type Command = Vec<Bytes>;

/// A protocol error, after which the stream cannot be parsed any further.
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
    #[error("this port does not speak TLS: set redisServer.tls, or connect without TLS")]
    Tls,
}

/// Parses commands.
#[derive(Debug, Default)]
pub(super) struct Framer {
    buffer: BytesMut,
    /// Start of the current command; bytes before it are processed.
    start: usize,
    /// Parse position and positions of the arguments, both relative to `start`; then the number of arguments still missing.
    at: usize,
    arguments: Vec<Range<usize>>,
    missing: Option<usize>,
    /// Whether [`Self::next`] has found a complete command.
    is_found: bool,
}

/// The arguments of a command in the read buffer, beginning with its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arguments<'a> {
    bytes: &'a [u8],
    places: &'a [Range<usize>],
}

impl<'a> Arguments<'a> {
    pub(super) fn len(self) -> usize {
        self.places.len()
    }

    pub(super) fn get(self, index: usize) -> &'a [u8] {
        &self.bytes[self.places[index].clone()]
    }

    pub(super) fn iter(self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        self.places.iter().map(move |place| &self.bytes[place.clone()])
    }

    pub(super) fn to_owned(self) -> Command {
        self.iter().map(Bytes::copy_from_slice).collect()
    }
}

impl Framer {
    /// The buffer for the next read. Releases the bytes of processed commands.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        self.pass();
        if self.start == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.advance(self.start);
        }
        self.start = 0;
        &mut self.buffer
    }

    /// Bytes of an incomplete command.
    pub(super) fn pending(&self) -> usize {
        if self.is_found { 0 } else { self.buffer.len() - self.start }
    }

    /// Looks for the next command; false if there is none yet. `limit` is the maximum total size of a command in bytes.
    pub(super) fn next(&mut self, limit: usize) -> Result<bool, FrameError> {
        loop {
            self.pass();
            self.is_found = match self.buffer.get(self.start) {
                None => return Ok(false),
                Some(b'*') => self.list(limit)?,
                Some(&TLS_HANDSHAKE) => return Err(FrameError::Tls),
                Some(_) => self.inline()?,
            };
            // Skips empty lines and lists.
            if !self.is_found || !self.arguments.is_empty() {
                return Ok(self.is_found);
            }
        }
    }

    /// The command that [`Self::next`] has found.
    pub(super) fn arguments(&self) -> Arguments<'_> {
        Arguments { bytes: &self.buffer[self.start..], places: &self.arguments }
    }

    /// Moves past the command that was found.
    fn pass(&mut self) {
        if self.is_found {
            self.start += self.at;
            (self.at, self.missing, self.is_found) = (0, None, false);
            self.arguments.clear();
            self.arguments.shrink_to(KEPT_PLACES);
        }
    }

    /// `*2\r\n$4\r\nPING\r\n$2\r\nhi\r\n`
    fn list(&mut self, limit: usize) -> Result<bool, FrameError> {
        let bytes = &self.buffer[self.start..];
        let mut missing = match self.missing {
            Some(missing) => missing,
            None => {
                let Some((count, next)) = number(bytes, 1)? else { return Ok(false) };
                let count = count.filter(|count| *count <= MAX_ARGUMENTS).ok_or(FrameError::Count)?;
                self.at = next;
                usize::try_from(count).unwrap_or(0)
            }
        };
        while missing > 0 {
            self.missing = Some(missing);
            match bytes.get(self.at) {
                None => return Ok(false),
                Some(b'$') => {}
                Some(other) => return Err(FrameError::NoBulk(char::from(*other))),
            }
            let Some((length, first)) = number(bytes, self.at + 1)? else { return Ok(false) };
            let length = length.and_then(|length| usize::try_from(length).ok()).ok_or(FrameError::Length)?;
            let next = first.saturating_add(length).saturating_add(2);
            if next > limit {
                return Err(FrameError::TooLarge(limit));
            }
            if next > bytes.len() {
                return Ok(false);
            }
            if bytes[next - 2..next] != *b"\r\n" {
                return Err(FrameError::Length);
            }
            self.arguments.push(first..next - 2);
            self.at = next;
            missing -= 1;
        }
        Ok(true)
    }

    /// `PING hi`, as typed in telnet.
    fn inline(&mut self) -> Result<bool, FrameError> {
        let bytes = &self.buffer[self.start..];
        let Some(end) = bytes.iter().take(MAX_INLINE_BYTES).position(|byte| *byte == b'\n') else {
            return if bytes.len() >= MAX_INLINE_BYTES { Err(FrameError::Inline) } else { Ok(false) };
        };
        self.at = end + 1;
        words(&bytes[..end], &mut self.arguments)?;
        let first = self.arguments.first().map(|place| &bytes[place.clone()]);
        if first.is_some_and(|word| HTTP_WORDS.iter().any(|http| word.eq_ignore_ascii_case(http.as_bytes()))) {
            return Err(FrameError::Http);
        }
        Ok(true)
    }
}

/// The number from `start` to the end of its line (`None` if invalid), and where the next line begins.
fn number(bytes: &[u8], start: usize) -> Result<Option<(Option<i64>, usize)>, FrameError> {
    let rest = bytes.get(start..).unwrap_or_default();
    let rest = &rest[..rest.len().min(MAX_HEADER_BYTES)];
    let end = rest.iter().position(|byte| *byte == b'\r').filter(|end| *end + 1 < rest.len());
    match end {
        Some(end) if rest[end + 1] != b'\n' => Err(FrameError::Length),
        Some(end) => Ok(Some((parse(&rest[..end]), start + end + 2))),
        None if rest.len() == MAX_HEADER_BYTES => Err(FrameError::Length),
        None => Ok(None),
    }
}

fn parse(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, text),
    };
    // No allowed length has more digits, and this many fit into the type.
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    Some(if is_negative { -number } else { number })
}

/// Positions of the words in a line; quoted words may contain blanks.
fn words(line: &[u8], places: &mut Vec<Range<usize>>) -> Result<(), FrameError> {
    let mut at = 0;
    while let Some(skipped) = line[at..].iter().position(|byte| !byte.is_ascii_whitespace()) {
        at += skipped;
        let (first, length) = match line[at] {
            quote @ (b'"' | b'\'') => {
                let length = line[at + 1..].iter().position(|byte| *byte == quote);
                (at + 1, length.ok_or(FrameError::Quotes)?)
            }
            _ => {
                let length = line[at..].iter().position(u8::is_ascii_whitespace);
                (at, length.unwrap_or(line.len() - at))
            }
        };
        places.push(first..first + length);
        at = (first + length + 1).min(line.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
