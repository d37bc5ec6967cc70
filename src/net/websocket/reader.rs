//! [`Reader`]: parses a client's websocket messages (RFC 6455, 5.2 to 5.6), including compressed ones (RFC 7692).
//!
//! Input: received bytes. Output: complete messages, most of them without a copy. Nothing is kept between messages: an idle
//! client costs no buffer.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::TEXT_OPCODE;
use crate::net::deflate::{InflateError, inflate};

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const FINAL: u8 = 0x80;
/// Set in the first frame of a compressed message.
const DEFLATED: u8 = 0x40;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;

/// Maximum payload of a control frame.
const MAX_CONTROL_BYTES: usize = 125;

/// Largest buffer kept while the rest of a frame is outstanding, whatever it held before.
const KEPT_BYTES: usize = 1024;

/// How many bytes a second decompression may add to a client's messages. 1 KB on the wire can become 1 MB, which costs as much
/// as 1 MB; real clients compress text to a tenth at best, and send little.
const INFLATED_PER_SECOND: NonZeroU32 = NonZeroU32::new(1_000_000).expect("it is not zero");

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// To be answered with the same bytes.
    Ping(&'a [u8]),
    Pong,
    /// The end, with the code for the answer.
    Close(Option<u16>),
}

/// The rule that a client violated. The connection ends with its code (RFC 6455, 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Violation {
    Protocol,
    /// A text that is not UTF-8, or compressed data that is none.
    Data,
    TooLarge,
    /// Compressed messages expand by more than [`INFLATED_PER_SECOND`].
    TooMuch,
}

impl Violation {
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Protocol => PROTOCOL_ERROR,
            Self::Data => 1007,
            Self::TooLarge => 1009,
            Self::TooMuch => 1008,
        }
    }
}

const PROTOCOL_ERROR: u16 = 1002;

impl From<InflateError> for Violation {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::TooLarge => Self::TooLarge,
            InflateError::Malformed => Self::Data,
        }
    }
}

/// Parses the messages of one client.
#[derive(Debug)]
pub(super) struct Reader {
    /// Maximum size of a message, both compressed and decompressed.
    max_bytes: usize,
    /// Compressed messages were agreed on.
    inflates: bool,
    /// Limits how much compressed messages expand; created with the first one.
    inflation: Option<Box<DefaultDirectRateLimiter>>,
    /// An incomplete frame.
    rest: Vec<u8>,
    /// An incomplete message of several frames.
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {
    is_text: bool,
    is_deflated: bool,
    data: Vec<u8>,
    /// How much of an uncompressed text is known to be UTF-8.
    valid: usize,
}

/// The header of a frame.
struct Head {
    first: u8,
    mask: [u8; 4],
    bytes: usize,
    payload: usize,
}

impl Head {
    /// `None`: the header is incomplete.
    fn parse(bytes: &[u8], max_bytes: usize) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (length, rest) = match second & !MASKED {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u16::from_be_bytes(*length).into(), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            length => (length.into(), rest),
        };
        if !matches!(first & OPCODE, CONTINUATION | TEXT_OPCODE | BINARY | CLOSE | PING | PONG) {
            return Err(Violation::Protocol);
        }
        let payload = usize::try_from(length).ok().filter(|length| *length <= max_bytes).ok_or(Violation::TooLarge)?;
        if second & MASKED == 0 {
            return Err(Violation::Protocol);
        }
        let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        Ok(Some(Self { first: *first, mask: *mask, bytes: bytes.len() - rest.len(), payload }))
    }
}

impl Reader {
    /// Accepts messages of up to `max_bytes`, and compressed ones if `inflates`.
    pub(super) const fn new(max_bytes: usize, inflates: bool) -> Self {
        Self { max_bytes, inflates, inflation: None, rest: Vec::new(), partial: None }
    }

    /// Parses received bytes and passes each complete message to `each`.
    ///
    /// # Errors
    /// [`Violation`], and the errors of `each`.
    pub(super) fn take<E: From<Violation>>(
        &mut self,
        arrived: &mut [u8],
        mut each: impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.rest.is_empty() {
            let used = self.frames(arrived, &mut each)?;
            self.rest.extend_from_slice(&arrived[used..]);
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.rest);
        all.extend_from_slice(arrived);
        let used = self.frames(&mut all, &mut each)?;
        if used < all.len() {
            all.drain(..used);
            if used > 0 {
                all.shrink_to(KEPT_BYTES);
            }
            self.rest = all;
        }
        Ok(())
    }

    /// Parses all complete frames and returns their length.
    fn frames<E: From<Violation>>(&mut self, bytes: &mut [u8], each: &mut impl FnMut(Message<'_>) -> Result<(), E>) -> Result<usize, E> {
        let mut used = 0;
        while let Some(head) = Head::parse(&bytes[used..], self.max_bytes)? {
            self.check(&head)?;
            let begin = used + head.bytes;
            let Some(payload) = bytes[begin..].get_mut(..head.payload) else { break };
            unmask(payload, head.mask);
            self.frame(head.first, payload, each)?;
            used = begin + head.payload;
        }
        Ok(used)
    }

    /// Whether a frame is allowed here, checked before any of it is kept.
    fn check(&self, head: &Head) -> Result<(), Violation> {
        let opcode = head.first & OPCODE;
        let is_right = match opcode {
            CONTINUATION => self.partial.is_some(),
            TEXT_OPCODE | BINARY => self.partial.is_none(),
            CLOSE | PING | PONG => head.first & FINAL != 0 && head.payload <= MAX_CONTROL_BYTES,
            _ => false,
        };
        let may_be_deflated = self.inflates && matches!(opcode, TEXT_OPCODE | BINARY);
        let reserved = head.first & RESERVED;
        if is_right && (reserved == 0 || reserved == DEFLATED && may_be_deflated) { Ok(()) } else { Err(Violation::Protocol) }
    }

    fn frame<E: From<Violation>>(
        &mut self,
        first: u8,
        payload: &[u8],
        each: &mut impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (opcode, is_final) = (first & OPCODE, first & FINAL != 0);
        match opcode {
            CLOSE => each(Message::Close(answer_to_close(payload)?)),
            PING => each(Message::Ping(payload)),
            PONG => each(Message::Pong),
            CONTINUATION => {
                let mut partial = self.partial.take().ok_or(Violation::Protocol)?;
                partial.add(payload, self.max_bytes, is_final)?;
                if !is_final {
                    self.partial = Some(partial);
                    return Ok(());
                }
                self.message(partial.is_text, partial.is_deflated, &partial.data, each)
            }
            _ => {
                let (is_text, is_deflated) = (opcode == TEXT_OPCODE, first & DEFLATED != 0);
                if is_final {
                    return self.message(is_text, is_deflated, payload, each);
                }
                let mut partial = Partial { is_text, is_deflated, data: Vec::new(), valid: 0 };
                partial.add(payload, self.max_bytes, false)?;
                self.partial = Some(Box::new(partial));
                Ok(())
            }
        }
    }

    fn message<E: From<Violation>>(
        &mut self,
        is_text: bool,
        is_deflated: bool,
        data: &[u8],
        each: &mut impl FnMut(Message<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let inflated;
        let data = if is_deflated {
            inflated = inflate(data, self.max_bytes).map_err(Violation::from)?;
            self.grow(inflated.len().saturating_sub(data.len()))?;
            &inflated
        } else {
            data
        };
        if is_text { each(Message::Text(std::str::from_utf8(data).map_err(|_| Violation::Data)?)) } else { each(Message::Binary(data)) }
    }

    /// Accounts for the bytes that a compressed message gained by decompression.
    fn grow(&mut self, bytes: usize) -> Result<(), Violation> {
        let Some(bytes) = u32::try_from(bytes).ok().and_then(NonZeroU32::new) else { return Ok(()) };
        let inflation = self.inflation.get_or_insert_with(|| {
            let most = u32::try_from(self.max_bytes).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX);
            Box::new(RateLimiter::direct(Quota::per_second(INFLATED_PER_SECOND).allow_burst(most.max(INFLATED_PER_SECOND))))
        });
        if matches!(inflation.check_n(bytes), Ok(Ok(()))) { Ok(()) } else { Err(Violation::TooMuch) }
    }
}

impl Partial {
    /// Appends a frame's payload. Invalid UTF-8 is rejected with the frame that contains it.
    fn add(&mut self, payload: &[u8], max_bytes: usize, is_last: bool) -> Result<(), Violation> {
        if payload.len() > max_bytes - self.data.len() {
            return Err(Violation::TooLarge);
        }
        self.data.extend_from_slice(payload);
        if self.is_text && !self.is_deflated && !is_last {
            self.valid += match std::str::from_utf8(&self.data[self.valid..]) {
                Ok(text) => text.len(),
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => return Err(Violation::Data),
            };
        }
        Ok(())
    }
}

/// The code that answers a CLOSE: the client's own, if a code that may be sent.
fn answer_to_close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::Protocol),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    std::str::from_utf8(reason).map_err(|_| Violation::Data)?;
    Ok(Some(if matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) { code } else { PROTOCOL_ERROR }))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let key = u32::from_ne_bytes(mask);
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Cursor, Read, Write};

    use bytes::Bytes;
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
    use tokio_tungstenite::tungstenite::{Error, Message as TheirMessage};

    use super::*;
    use crate::net::deflate::Deflated;

    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A frame of a client.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = payload.len();
        let mut frame = match length {
            0..126 => vec![first, MASKED | length as u8],
            126..=0xffff => [&[first, MASKED | 126][..], &(length as u16).to_be_bytes()].concat(),
            _ => [&[first, MASKED | 127][..], &(length as u64).to_be_bytes()].concat(),
        };
        frame.extend_from_slice(&MASK);
        let start = frame.len();
        frame.extend_from_slice(payload);
        unmask(&mut frame[start..], MASK);
        frame
    }

    /// The messages read from bytes that come in pieces of this size, as text; and how it ends.
    fn heard(reader: &mut Reader, bytes: &[u8], piece: usize) -> (Vec<String>, Result<(), Violation>) {
        let mut heard = Vec::new();
        let result = bytes.to_vec().chunks_mut(piece).try_for_each(|piece| {
            reader.take(piece, |message| {
                heard.push(match message {
                    Message::Text(text) => format!("text {text}"),
                    Message::Binary(data) => format!("binary {data:?}"),
                    Message::Ping(data) => format!("ping {data:?}"),
                    Message::Pong => "pong".to_owned(),
                    Message::Close(code) => format!("close {code:?}"),
                });
                Ok::<_, Violation>(())
            })
        });
        (heard, result)
    }

    fn read(bytes: &[u8], inflates: bool) -> (Vec<String>, Result<(), Violation>) {
        heard(&mut Reader::new(1000, inflates), bytes, usize::MAX)
    }

    #[test]
    fn a_decompression_bomb_is_accepted_once_but_not_repeatedly() {
        let bomb = frame(0xc1, Deflated::of(&Bytes::from(vec![b'0'; 900_000])).message());
        assert!(bomb.len() < 2000);
        let (heard, result) = heard(&mut Reader::new(1_000_000, true), &bomb.repeat(10), usize::MAX);
        assert_eq!((heard.len(), result), (1, Err(Violation::TooMuch)));
    }

    #[test]
    fn an_idle_client_keeps_no_memory() {
        let mut reader = Reader::new(1_000_000, true);
        let large = frame(0x81, &[b'x'; 100_000]);
        assert_eq!(heard(&mut reader, &large, 1000).0.len(), 1);
        assert_eq!(reader.rest.capacity(), 0);
        let two = [large, frame(0x81, b"two")].concat();
        assert_eq!(heard(&mut reader, &two[..two.len() - 1], 1000).0.len(), 1);
        assert!(reader.rest.capacity() <= 2 * KEPT_BYTES, "{}", reader.rest.capacity());
        assert_eq!(heard(&mut reader, &two[two.len() - 1..], 1000).0, ["text two"]);
    }

    #[test]
    fn compressed_messages_are_read_only_if_agreed_on() {
        let deflated = Deflated::of(&Bytes::from("é".repeat(100)));
        let (begin, end) = deflated.message().split_at(3);
        let text = format!("text {}", "é".repeat(100));
        let frames = [frame(0xc1, deflated.message()), frame(0x41, begin), frame(0x89, b"?"), frame(0x80, end), frame(0x81, b"x")].concat();
        for piece in [1, 7, usize::MAX] {
            let (heard, result) = heard(&mut Reader::new(1000, true), &frames, piece);
            assert_eq!((heard, result), (vec![text.clone(), "ping [63]".to_owned(), text.clone(), "text x".to_owned()], Ok(())));
        }
        assert_eq!(read(&frames, false), (vec![], Err(Violation::Protocol)));
        let bomb = Deflated::of(&Bytes::from(vec![b'0'; 100_000]));
        assert_eq!(read(&frame(0xc1, bomb.message()), true), (vec![], Err(Violation::TooLarge)));
        assert_eq!(read(&frame(0xc1, &[7]), true), (vec![], Err(Violation::Data)));
        assert_eq!(read(&frame(0xc1, &[]), true), (vec!["text ".to_owned()], Ok(())));
        assert_eq!(read(&frame(0xc1, Deflated::of(&Bytes::from_static(b"\xff")).message()), true), (vec![], Err(Violation::Data)));
        // Only the first frame of a message says that it is compressed, and no control frame does.
        for wrong in [[frame(0x41, begin), frame(0xc0, end)].concat(), frame(0xc9, b""), frame(0xe1, begin)] {
            assert_eq!(read(&wrong, true), (vec![], Err(Violation::Protocol)));
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_refused_by_its_header() {
        assert_eq!(read(&[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], false).1, Err(Violation::TooLarge));
        assert_eq!(read(&[0x82, 0xfe, 3, 0xe9], false).1, Err(Violation::TooLarge));
        assert_eq!(read(&[0x8b, 0xfe, 3, 0xe9], false).1, Err(Violation::Protocol), "an unknown kind of frame, however large");
        assert_eq!(read(&[0x82, 0xfe, 3, 0xe8], false).1, Ok(()));
        let parts = [frame(0x02, &[0; 600]), frame(0x80, &[0; 401])].concat();
        assert_eq!(read(&parts, false), (vec![], Err(Violation::TooLarge)));
    }

    #[test]
    fn close_codes_that_may_not_be_sent_are_violations() {
        for (payload, expected) in [
            (&[][..], Ok(None)),
            (&[3], Err(Violation::Protocol)),
            (&[3, 0xe8], Ok(Some(1000))),
            (&[3, 0xe9, b'b', b'y', b'e'], Ok(Some(1001))),
            (&[3, 0xed], Ok(Some(1002))),
            (&[0, 1], Ok(Some(1002))),
            (&[0x13, 0x88], Ok(Some(1002))),
            (&[0x0f, 0xa0], Ok(Some(4000))),
            (&[3, 0xe8, 0xff], Err(Violation::Data)),
        ] {
            assert_eq!(answer_to_close(payload), expected, "{payload:?}");
        }
    }

    /// A stream for tungstenite.
    struct Stream(Cursor<Vec<u8>>);

    impl Read for Stream {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Like [`heard`], with tungstenite.
    fn heard_by_tungstenite(bytes: &[u8]) -> (Vec<String>, Result<(), Violation>) {
        let config = WebSocketConfig::default().max_message_size(Some(1000)).max_frame_size(Some(1000));
        let mut context = WebSocketContext::new(Role::Server, Some(config));
        let mut stream = Stream(Cursor::new(bytes.to_vec()));
        let mut heard = Vec::new();
        loop {
            heard.push(match context.read(&mut stream) {
                Ok(TheirMessage::Text(text)) => format!("text {text}"),
                Ok(TheirMessage::Binary(data)) => format!("binary {:?}", &data[..]),
                Ok(TheirMessage::Ping(data)) => format!("ping {:?}", &data[..]),
                Ok(TheirMessage::Pong(_)) => "pong".to_owned(),
                Ok(TheirMessage::Close(close)) => {
                    heard.push(format!("close {:?}", close.map(|close| u16::from(close.code))));
                    return (heard, Ok(()));
                }
                Ok(TheirMessage::Frame(_)) => unreachable!("reads give messages"),
                Err(Error::Capacity(_)) => return (heard, Err(Violation::TooLarge)),
                Err(Error::Utf8(_)) => return (heard, Err(Violation::Data)),
                Err(Error::Protocol(error)) if error.to_string().contains("without closing handshake") => return (heard, Ok(())),
                Err(Error::Protocol(_)) => return (heard, Err(Violation::Protocol)),
                Err(error) => panic!("{error}"),
            });
        }
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            8 => prop::sample::select(vec![0x81_u8, 0x01, 0x80, 0x00, 0x82, 0x02, 0x89, 0x8a]),
            1 => Just(0x88_u8),
            1 => any::<u8>(),
        ];
        let payload = prop_oneof![
            4 => "[a-zé😀]{0,20}".prop_map(String::into_bytes),
            2 => prop::collection::vec(any::<u8>(), 0..8),
            1 => prop::collection::vec(any::<u8>(), 120..1002),
        ];
        (first, payload).prop_map(|(first, payload)| frame(first, &payload))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn frames_are_read_as_by_tungstenite(frames in prop::collection::vec(any_frame(), 0..8), piece in 1_usize..2000) {
            let bytes = frames.concat();
            let (mut ours, mut result) = heard(&mut Reader::new(1000, false), &bytes, piece);
            // Neither reads on after a CLOSE.
            if let Some(close) = ours.iter().position(|message| message.starts_with("close")) {
                ours.truncate(close + 1);
                result = Ok(());
            }
            prop_assert_eq!((ours, result), heard_by_tungstenite(&bytes));
        }

        #[test]
        fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..300), inflates in any::<bool>(), piece in 1_usize..300) {
            let whole = read(&bytes, inflates);
            prop_assert_eq!(heard(&mut Reader::new(1000, inflates), &bytes, piece), whole);
        }
    }
}
