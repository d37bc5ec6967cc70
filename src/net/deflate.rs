//! Deflate (RFC 1951) for what many clients get: each text is compressed once, whether polls or websockets carry it.
//!
//! Input: answers to polls, frames of websockets, and messages of clients that are compressed. Output: gzip for polls
//! (RFC 1952), the bytes of a compressed message for websockets (RFC 7692), and what a client's message says.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};
use parking_lot::Mutex;

/// Larger texts are left as they are: compressing one would keep a core for too long.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// Texts that were compressed of late, with what came of them.
const KEPT_TEXTS: usize = 16;

/// What gzip has before the compressed bytes: no name, no time, any system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// What a flush ends with; messages of websockets leave it out (RFC 7692, 7.2.1).
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];

/// The last block, an empty one.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Behind the last block gzip has a checksum and a length.
const GZIP_END_BYTES: usize = FLUSHED.len() + LAST_BLOCK.len() + 8;

static LATELY: Mutex<VecDeque<Lately>> = parking_lot::const_mutex(VecDeque::new());

/// A text, and what came of it, once somebody has compressed it.
struct Lately(Bytes, Arc<OnceLock<Deflated>>);

thread_local! {
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::default(), false));
}

/// A text as it was compressed, in all forms.
#[derive(Debug, Clone)]
pub(crate) struct Deflated(Bytes);

impl Deflated {
    /// Compresses a text, or finds it among those that were compressed of late: equal ones come close together, so those
    /// who want the same wait for the first.
    #[must_use]
    pub(crate) fn of(plain: &Bytes) -> Self {
        let deflated = {
            let mut lately = LATELY.lock();
            match lately.iter().find(|Lately(known, _)| known == plain) {
                Some(Lately(_, deflated)) => Arc::clone(deflated),
                None => {
                    if lately.len() == KEPT_TEXTS {
                        lately.pop_front();
                    }
                    let deflated = Arc::default();
                    lately.push_back(Lately(plain.clone(), Arc::clone(&deflated)));
                    deflated
                }
            }
        };
        // Without the lock: other texts are compressed meanwhile.
        deflated.get_or_init(|| COMPRESS.with_borrow_mut(|compress| Self::new(compress, plain))).clone()
    }

    fn new(compress: &mut Compress, plain: &[u8]) -> Self {
        compress.reset();
        let mut packed = Vec::with_capacity(GZIP_HEAD.len() + plain.len() / 2 + GZIP_END_BYTES);
        packed.extend_from_slice(&GZIP_HEAD);
        loop {
            let read = usize::try_from(compress.total_in()).expect("no more than there is");
            compress.compress_vec(&plain[read..], &mut packed, FlushCompress::Sync).expect("any bytes can be compressed");
            // With room left, everything is read and flushed.
            if packed.len() < packed.capacity() {
                break;
            }
            packed.reserve(packed.len());
        }
        debug_assert!(packed.ends_with(&FLUSHED), "a flush ends so");
        let mut crc = Crc::new();
        crc.update(plain);
        packed.extend_from_slice(&LAST_BLOCK);
        packed.extend_from_slice(&crc.sum().to_le_bytes());
        packed.extend_from_slice(&crc.amount().to_le_bytes());
        Self(packed.into())
    }

    /// As a file of gzip.
    #[must_use]
    pub(crate) fn gzip(self) -> Bytes {
        self.0
    }

    /// As the payload of a message.
    #[must_use]
    pub(crate) fn message(&self) -> &[u8] {
        &self.0[GZIP_HEAD.len()..self.0.len() - GZIP_END_BYTES]
    }
}

/// What is wrong with a compressed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// It says more than it may.
    TooLarge,
    /// It is not compressed by the rules.
    Malformed,
}

thread_local! {
    static INFLATE: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// What a message of a websocket says, if that has at most `most` bytes. No more than that and a byte is ever made of it,
/// in steps, each no longer than all before it.
///
/// # Errors
/// [`InflateError`].
pub(crate) fn inflate(message: &[u8], most: usize) -> Result<Vec<u8>, InflateError> {
    // What a flush ends with belongs to a block that began in the message. As `ws`, this reads nothing at all as an empty text.
    if message.is_empty() {
        return Ok(Vec::new());
    }
    let packed = [message, &FLUSHED, &LAST_BLOCK].concat();
    INFLATE.with_borrow_mut(|inflate| {
        inflate.reset(false);
        let mut plain = Vec::with_capacity(packed.len().saturating_mul(2).min(most.saturating_add(1)));
        let position = |inflate: &Decompress| (usize::try_from(inflate.total_in()).unwrap_or(usize::MAX), inflate.total_out());
        loop {
            let before = position(inflate);
            let rest = packed.get(before.0..).unwrap_or_default();
            match inflate.decompress_vec(rest, &mut plain, FlushDecompress::None) {
                Ok(_) if plain.len() > most => return Err(InflateError::TooLarge),
                Ok(Status::StreamEnd) => return Ok(plain),
                Ok(_) if plain.len() == plain.capacity() => {
                    plain.reserve_exact(plain.len().max(64).min(most + 1 - plain.len()));
                }
                Ok(_) if position(inflate) != before => {}
                Ok(_) | Err(_) => return Err(InflateError::Malformed),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn gunzip(packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        GzDecoder::new(packed).read_to_end(&mut plain).unwrap();
        plain
    }

    #[test]
    fn equal_texts_are_compressed_once() {
        let text = Bytes::from("equal texts ".repeat(100));
        let first = Deflated::of(&text).gzip();
        let second = Deflated::of(&Bytes::from(text.to_vec())).gzip();
        assert_eq!(first.as_ptr(), second.as_ptr());
    }

    #[test]
    fn a_bomb_is_put_out_before_it_takes_memory() {
        let bomb = Deflated::new(&mut Compress::new(Compression::best(), false), &vec![b'0'; 50_000_000]);
        assert!(bomb.message().len() < 60_000);
        assert_eq!(inflate(bomb.message(), 1_000_000), Err(InflateError::TooLarge));
        let exact = Deflated::of(&Bytes::from(vec![b'0'; 1000]));
        assert_eq!(inflate(exact.message(), 999), Err(InflateError::TooLarge));
        let plain = inflate(exact.message(), 1000).unwrap();
        assert_eq!((plain.len(), plain.capacity() <= 1001), (1000, true));
    }

    #[test]
    fn what_is_not_compressed_by_the_rules_is_refused() {
        // A block of a kind that there is not; a copy of what is not there; the beginning of a block that does not end.
        for message in [&[7][..], &[0x02, 0x7f, 0], &[0xed, 0xc1]] {
            assert_eq!(inflate(message, 1000), Err(InflateError::Malformed), "{message:?}");
        }
        // Of RFC 7692, 7.2.3: in one block, in two, stored, with a last block.
        for message in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        ] {
            assert_eq!(inflate(message, 5).unwrap(), b"Hello", "{message:?}");
        }
        assert_eq!(inflate(&[0], 0).unwrap(), b"");
        assert_eq!(inflate(&[], 0).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn what_is_compressed_reads_the_same(plain in prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..5000)) {
            let deflated = Deflated::of(&Bytes::from(plain.clone()));
            prop_assert_eq!(&inflate(deflated.message(), plain.len()).unwrap(), &plain);
            prop_assert_eq!(gunzip(&deflated.gzip()), plain);
        }

        #[test]
        fn no_message_says_more_than_it_may(message in prop::collection::vec(any::<u8>(), 0..200), most in 0_usize..2000) {
            if let Ok(plain) = inflate(&message, most) {
                prop_assert!(plain.len() <= most && plain.capacity() <= most.max(64) + 1);
            }
        }
    }
}
