//! Commands as clients send them, whole and in pieces, and invalid bytes.

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1_000_000;

fn all(framer: &mut Framer) -> Result<Vec<Command>, FrameError> {
    let mut commands = Vec::new();
    while framer.next(LIMIT)? {
        commands.push(framer.arguments().to_owned());
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
fn invalid_commands_have_specific_errors() {
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
    assert_eq!(read(&[b'x'; MAX_INLINE_BYTES]), Err(FrameError::Inline));
}

#[test]
fn the_limit_covers_all_arguments_together() {
    let command = encode(&vec![vec![b'x'; 1_000]; 1_100]);
    assert_eq!(read(&command), Err(FrameError::TooLarge(LIMIT)));
}

proptest! {
    #[test]
    fn any_bytes_are_handled(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
        let mut framer = Framer::default();
        for chunk in chunks {
            framer.space().extend_from_slice(&chunk);
            if all(&mut framer).is_err() {
                break;
            }
        }
    }

    #[test]
    fn bytes_that_look_like_commands_are_handled(bytes in "([*$][0-9-]{0,3}\r\n|[a-z]{0,4}\r\n){0,20}", cut in 0_usize..100) {
        let mut framer = Framer::default();
        let (first, second) = bytes.as_bytes().split_at(cut.min(bytes.len()));
        framer.space().extend_from_slice(first);
        let early = all(&mut framer);
        framer.space().extend_from_slice(second);
        if let Ok(mut commands) = early {
            // Where the bytes are split makes no difference.
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
