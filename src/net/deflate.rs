//! Deflate (RFC 1951) for messages with many receivers: each text is compressed once, for polls and websockets alike.
//!
//! Input: poll responses, websocket frames, and compressed messages from clients. Output: gzip for polls (RFC 1952), the
//! payload of a compressed websocket message (RFC 7692), and decompressed client messages.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};
use parking_lot::Mutex;

/// Larger texts are not compressed: one would occupy a core for too long.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// Number of recently compressed texts that are cached.
const KEPT_TEXTS: usize = 16;

/// The gzip header: no name, no time, unknown operating system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// What a sync flush ends with; websocket messages omit it (RFC 7692, 7.2.1).
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];

/// An empty final block.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// Bytes after the compressed text in gzip: the flush, the final block, a checksum and a length.
const GZIP_END_BYTES: usize = FLUSHED.len() + LAST_BLOCK.len() + 8;

static CACHE: Mutex<VecDeque<Cached>> = parking_lot::const_mutex(VecDeque::new());

/// A cached text, and its compressed form once that is computed.
struct Cached(Bytes, Arc<OnceLock<Deflated>>);

thread_local! {
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::default(), false));
}

/// A compressed text, from which both formats are cut.
#[derive(Debug, Clone)]
pub(crate) struct Deflated(Bytes);

impl Deflated {
    /// Compresses a text, or takes it from the cache. Receivers of one event ask at about the same time: all but the first wait
    /// for its result.
    #[must_use]
    pub(crate) fn of(plain: &Bytes) -> Self {
        let deflated = {
            let mut cache = CACHE.lock();
            match cache.iter().find(|Cached(known, _)| known == plain) {
                Some(Cached(_, deflated)) => Arc::clone(deflated),
                None => {
                    if cache.len() == KEPT_TEXTS {
                        cache.pop_front();
                    }
                    let deflated = Arc::default();
                    cache.push_back(Cached(plain.clone(), Arc::clone(&deflated)));
                    deflated
                }
            }
        };
        // Outside the lock, so that other texts can be compressed meanwhile.
        deflated.get_or_init(|| COMPRESS.with_borrow_mut(|compress| Self::new(compress, plain))).clone()
    }

    fn new(compress: &mut Compress, plain: &[u8]) -> Self {
        compress.reset();
        let mut packed = Vec::with_capacity(GZIP_HEAD.len() + plain.len() / 2 + GZIP_END_BYTES);
        packed.extend_from_slice(&GZIP_HEAD);
        loop {
            let read = usize::try_from(compress.total_in()).expect("no more than there is");
            compress.compress_vec(&plain[read..], &mut packed, FlushCompress::Sync).expect("any bytes can be compressed");
            // Spare capacity means that all input is read and flushed.
            if packed.len() < packed.capacity() {
                break;
            }
            packed.reserve(packed.len());
        }
        debug_assert!(packed.ends_with(&FLUSHED), "a sync flush ends with an empty stored block");
        let mut crc = Crc::new();
        crc.update(plain);
        packed.extend_from_slice(&LAST_BLOCK);
        packed.extend_from_slice(&crc.sum().to_le_bytes());
        packed.extend_from_slice(&crc.amount().to_le_bytes());
        Self(packed.into())
    }

    /// As a gzip file.
    #[must_use]
    pub(crate) fn gzip(self) -> Bytes {
        self.0
    }

    /// As the payload of a websocket message.
    #[must_use]
    pub(crate) fn message(&self) -> &[u8] {
        &self.0[GZIP_HEAD.len()..self.0.len() - GZIP_END_BYTES]
    }
}

/// Why a compressed message is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// It decompresses to more than the limit.
    TooLarge,
    /// It is not valid deflate data.
    Malformed,
}

thread_local! {
    static INFLATE: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Decompresses a websocket message, up to `most` bytes. At most one byte more is ever produced, and each step at most
/// doubles the buffer.
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
    fn a_decompression_bomb_is_stopped_before_it_takes_memory() {
        let bomb = Deflated::new(&mut Compress::new(Compression::best(), false), &vec![b'0'; 50_000_000]);
        assert!(bomb.message().len() < 60_000);
        assert_eq!(inflate(bomb.message(), 1_000_000), Err(InflateError::TooLarge));
        let exact = Deflated::of(&Bytes::from(vec![b'0'; 1000]));
        assert_eq!(inflate(exact.message(), 999), Err(InflateError::TooLarge));
        let plain = inflate(exact.message(), 1000).unwrap();
        assert_eq!((plain.len(), plain.capacity() <= 1001), (1000, true));
    }

    #[test]
    fn invalid_deflate_data_is_refused() {
        // An invalid block type; a copy from before the beginning; a block that is cut off.
        for message in [&[7][..], &[0x02, 0x7f, 0], &[0xed, 0xc1]] {
            assert_eq!(inflate(message, 1000), Err(InflateError::Malformed), "{message:?}");
        }
        // The examples of RFC 7692, 7.2.3: one block, two blocks, stored, with a final block.
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
        fn compressed_texts_decompress_to_themselves(plain in prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..5000)) {
            let deflated = Deflated::of(&Bytes::from(plain.clone()));
            prop_assert_eq!(&inflate(deflated.message(), plain.len()).unwrap(), &plain);
            prop_assert_eq!(gunzip(&deflated.gzip()), plain);
        }

        #[test]
        fn no_message_exceeds_the_limit(message in prop::collection::vec(any::<u8>(), 0..200), most in 0_usize..2000) {
            if let Ok(plain) = inflate(&message, most) {
                prop_assert!(plain.len() <= most && plain.capacity() <= most.max(64) + 1);
            }
        }
    }
}
