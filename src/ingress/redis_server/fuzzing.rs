//! Fuzz targets for the bytes that Redis clients send. Input: bytes. Output: a panic if an assertion fails.

use std::sync::{Arc, OnceLock};

use bytes::BytesMut;

use super::Shared;
use super::connection::{Connection, Next};
use super::frame::{Command, FrameError, Framer};
use crate::config::Config;
use crate::fuzzing::Nobody;

/// Largest command, low enough to be reached by short inputs.
const LIMIT: usize = 2_000;
/// Maximum size of an incomplete command in the framer: the longest line without an end.
const MAX_PENDING_BYTES: usize = 64 * 1024;
/// Maximum capacity of the framer, whatever lengths are announced.
const MAX_MEMORY_BYTES: usize = 256 * 1024;

type Read = (Vec<Command>, Option<FrameError>);

/// Parses commands: the result does not depend on how the bytes are split, limits hold, and commands survive encoding and
/// parsing.
pub fn resp(bytes: &[u8]) {
    let whole = read(bytes, bytes.len().max(1));
    let size = bytes.first().map_or(1, |first| usize::from(*first) % 7 + 1);
    assert_eq!(read(bytes, size), whole, "in pieces of {size}");
    let written: Vec<u8> = whole.0.iter().flat_map(encode).collect();
    let again = read(&written, usize::MAX);
    if again.1.is_none() {
        assert_eq!(again.0, whole.0);
    } else {
        // An inline command is shorter than the list form of the same command.
        assert_eq!(again.1, Some(FrameError::TooLarge(LIMIT)));
    }
}

fn read(bytes: &[u8], size: usize) -> Read {
    let (mut framer, mut commands) = (Framer::default(), Vec::new());
    for piece in bytes.chunks(size) {
        framer.space().extend_from_slice(piece);
        loop {
            match framer.next(LIMIT) {
                Ok(true) => {
                    assert!(framer.arguments().len() > 0);
                    commands.push(framer.arguments().to_owned());
                }
                Ok(false) => break,
                Err(error) => return (commands, Some(error)),
            }
        }
        assert!(framer.pending() <= MAX_PENDING_BYTES && framer.space().capacity() <= MAX_MEMORY_BYTES);
    }
    (commands, None)
}

fn encode(command: &Command) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        bytes.extend(format!("${}\r\n", argument.len()).bytes());
        bytes.extend_from_slice(argument);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// Commands of one connection: each is answered with complete frames of the negotiated protocol.
pub fn redis_commands(bytes: &[u8]) {
    static SHARED: OnceLock<Arc<Shared<Nobody>>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| Arc::new(Shared::new(&Config::default(), crate::fuzzing::hub(), None)));
    let mut connection = Connection::new(Arc::clone(shared));
    crate::fuzzing::block_on(async {
        connection.framer.space().extend_from_slice(bytes);
        while let Ok(true) = connection.framer.next(LIMIT) {
            let command = connection.framer.arguments().to_owned();
            let (reply, next) = match connection.broadcast().await {
                Some(reply) => (reply, Next::Go),
                None => connection.take(command.clone()).await,
            };
            let mut out = BytesMut::new();
            reply.encode(connection.protocol, &mut out);
            assert!(is_one_frame(&out), "the answer to {command:?} is not valid RESP");
            if next == Next::Close {
                break;
            }
        }
    });
}

/// Whether the bytes are exactly one reply to a Redis client.
fn is_one_frame(mut bytes: &[u8]) -> bool {
    let parsed = redis::Parser::new().parse_value(&mut bytes);
    // An error reply is a value, too.
    parsed.is_ok_and(|_| bytes.is_empty())
}
