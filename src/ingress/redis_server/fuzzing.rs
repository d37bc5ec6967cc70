//! What must hold for anything that a Redis client sends. Input: bytes. Output: a panic when it does not.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_range as decode2;
use redis_protocol::resp3::decode::complete::decode_range as decode3;

use super::Shared;
use super::connection::{Connection, Next};
use super::frame::{Command, FrameError, Framer};
use super::reply::Protocol;
use super::script::Script;
use crate::config::Config;
use crate::fuzzing::Nobody;

/// Largest command, low enough to be met by short inputs.
const LIMIT: usize = 2_000;
/// What a framer may hold of a command that is not complete: the longest line without an end.
const MAX_PENDING_BYTES: usize = 64 * 1024;
/// What a framer may keep of memory, whatever lengths are announced.
const MAX_MEMORY_BYTES: usize = 256 * 1024;

type Read = (Vec<Command>, Option<FrameError>);

/// Commands out of bytes: the same ones however the bytes are cut, within the limits; written again they are read as
/// the same.
pub fn resp(bytes: &[u8]) {
    let whole = read(bytes, bytes.len().max(1));
    let size = bytes.first().map_or(1, |first| usize::from(*first) % 7 + 1);
    assert_eq!(read(bytes, size), whole, "in pieces of {size}");
    let written: Vec<u8> = whole.0.iter().flat_map(encode).collect();
    let again = read(&written, usize::MAX);
    if again.1.is_none() {
        assert_eq!(again.0, whole.0);
    } else {
        // A line typed by hand is shorter than the list that says the same.
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

/// Commands of one connection: each is answered with whole frames of the protocol that is spoken.
pub fn redis_commands(bytes: &[u8]) {
    static SHARED: OnceLock<Arc<Shared<Nobody>>> = OnceLock::new();
    let shared =
        SHARED.get_or_init(|| Arc::new(Shared::new(&Config::default(), crate::fuzzing::hub(), None).expect("defaults can be used")));
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
            let protocol = connection.protocol;
            reply.encode(protocol, &mut out);
            assert!(are_frames(&out.freeze(), protocol), "the answer to {command:?} is no RESP");
            if next == Next::Close {
                break;
            }
        }
    });
}

/// Whether bytes are one or more frames and nothing else.
fn are_frames(bytes: &Bytes, protocol: Protocol) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match protocol {
            Protocol::Resp2 => decode2(rest).ok().flatten().map(|(_, length)| length),
            Protocol::Resp3 => decode3(rest).ok().flatten().map(|(_, length)| length),
        };
        match length {
            Some(length) if length > 0 => at += length,
            _ => return false,
        }
    }
    at > 0
}

/// A script: what it publishes is what it was given, and blanks or comments around it change nothing.
pub fn lua_script(text: &[u8]) {
    let Ok(script) = Script::parse(text) else { return };
    let around = Script::parse(&[b"-- a comment\n  ", text, b"\n"].concat()).expect("blanks and comments say nothing");
    let (keys, args): ([&[u8]; 1], [&[u8]; 3]) = ([b"key"], [b"payload", b"a", b"b"]);
    let run = script.run(&keys, &args);
    assert_eq!(run, around.run(&keys, &args));
    if let Ok(publishes) = run {
        assert!(publishes.returned.is_none_or(|number| number < publishes.messages.len()));
        let is_number = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<usize>().is_ok());
        let is_part = |bytes: &[u8]| bytes.is_empty() || text.windows(bytes.len()).any(|part| part == bytes);
        let is_known = |bytes: &[u8]| keys.contains(&bytes) || args.contains(&bytes) || is_part(bytes) || is_number(bytes);
        assert!(publishes.messages.iter().all(|(channel, payload)| is_known(channel) && is_known(payload)));
    }
    let _ = script.run(&[], &[]);
}
