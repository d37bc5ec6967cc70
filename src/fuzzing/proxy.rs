//! Fuzz target for the first bytes of a proxy's connection. Input: bytes. Output: a panic if an assertion fails.

use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;

use crate::server::proxy_protocol::{Start, accept, parse};

/// Maximum length of a header; longer ones are not waited for.
const MAX_BYTES: usize = 4096;

/// A PROXY protocol header, or anything else: the result does not depend on how the bytes are split, and the bytes after
/// the header are read unchanged.
pub fn proxy_header(bytes: &[u8]) {
    let start = parse(bytes);
    match &start {
        Start::Header(length, client) => {
            assert!(*length <= bytes.len().min(MAX_BYTES));
            assert_eq!(parse(&bytes[..*length]), start);
            assert!((0..*length).all(|end| parse(&bytes[..end]) == Start::Incomplete), "part of a header is incomplete");
            if let Some(client) = client {
                let kind = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                let line = format!("PROXY {kind} {} ::1 {} 80\r\n", client.ip(), client.port());
                assert_eq!(parse(line.as_bytes()), Start::Header(line.len(), Some(*client)));
            }
        }
        Start::Incomplete => assert!(bytes.len() < MAX_BYTES),
        Start::Other | Start::Invalid => assert_eq!(parse(&[bytes, b"more"].concat()), start),
    }
    let whole = read(bytes, bytes.len());
    let cut = bytes.first().map_or(0, |first| usize::from(*first) % 20).min(bytes.len());
    assert_eq!(read(bytes, cut), whole, "cut at {cut}");
    match (start, whole) {
        (Start::Header(length, client), Some((found, rest))) => assert_eq!((client, &bytes[length..]), (found, &rest[..])),
        (Start::Invalid, None) => {}
        (Start::Other | Start::Incomplete, Some((None, rest))) => assert_eq!(rest, bytes),
        (start, whole) => panic!("{start:?} was read as {whole:?}"),
    }
}

/// The client, and the bytes after the header; `None` if the connection is refused.
fn read(bytes: &[u8], cut: usize) -> Option<(Option<std::net::SocketAddr>, Vec<u8>)> {
    let (first, second) = bytes.split_at(cut);
    let reading = async {
        let (client, mut stream) = accept(first.chain(second)).await.ok()?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok()?;
        Some((client, rest))
    };
    reading.now_or_never().expect("all bytes are there")
}
