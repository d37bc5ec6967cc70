//! The PROXY protocol, versions 1 and 2: a TCP proxy sends the client's address in a header before the client's data.
//!
//! Input: the first bytes of a connection from a trusted proxy. Output: the client's address, and the bytes after the header.
//! Neither HTTP nor TLS can begin like these headers, so the header is optional for a trusted proxy.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::net::replay::Replay;

/// First bytes of version 2.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Maximum length of a version 1 line in bytes, including the line end; defined by the protocol.
const MAX_LINE_BYTES: usize = 107;

/// Maximum length of a version 2 header; proxies add extensions after the addresses.
const MAX_HEADER_BYTES: usize = 4096;

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// There is no header.
    Other,
    /// More bytes are needed to decide.
    Incomplete,
    /// A header of this many bytes, with the client's address unless the connection is the proxy's own.
    Header(usize, Option<SocketAddr>),
    /// It begins like a header but is not valid.
    Invalid,
}

/// Parses the first bytes of a connection.
#[must_use]
pub(crate) fn parse(bytes: &[u8]) -> Start {
    if bytes.starts_with(SIGNATURE) {
        version_2(bytes)
    } else if bytes.starts_with(b"PROXY ") {
        version_1(bytes)
    } else if SIGNATURE.starts_with(bytes) || b"PROXY ".starts_with(bytes) {
        Start::Incomplete
    } else {
        Start::Other
    }
}

/// `PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n`, or `PROXY UNKNOWN…\r\n`.
fn version_1(bytes: &[u8]) -> Start {
    let Some(end) = bytes.windows(2).take(MAX_LINE_BYTES - 1).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_LINE_BYTES { Start::Incomplete } else { Start::Invalid };
    };
    let Ok(line) = str::from_utf8(&bytes[..end]) else { return Start::Invalid };
    let fields: Vec<&str> = line.split(' ').collect();
    let client = match fields[..] {
        [_, "UNKNOWN", ..] => None,
        [_, "TCP4" | "TCP6", source, _, port, _] => match (source.parse::<IpAddr>(), port.parse::<u16>()) {
            (Ok(source), Ok(port)) => Some(SocketAddr::new(source, port)),
            _ => return Start::Invalid,
        },
        _ => return Start::Invalid,
    };
    Start::Header(end + 2, client)
}

/// Signature, command, family, length, and binary addresses.
fn version_2(bytes: &[u8]) -> Start {
    let rest = &bytes[SIGNATURE.len()..];
    let [command, family, high, low, body @ ..] = rest else { return Start::Incomplete };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let total = SIGNATURE.len() + 4 + length;
    if command >> 4 != 2 || total > MAX_HEADER_BYTES {
        return Start::Invalid;
    }
    let Some(body) = body.get(..length) else { return Start::Incomplete };
    let client = match (command & 0x0f, family) {
        // The proxy's own health checks.
        (0, _) => None,
        (1, 0x11) => match body {
            [a, b, c, d, _, _, _, _, high, low, ..] => {
                Some(SocketAddr::new(Ipv4Addr::new(*a, *b, *c, *d).into(), u16::from_be_bytes([*high, *low])))
            }
            _ => return Start::Invalid,
        },
        (1, 0x21) => match (body.first_chunk::<16>(), body.get(32..34)) {
            (Some(source), Some(port)) => Some(SocketAddr::new(Ipv6Addr::from(*source).into(), u16::from_be_bytes([port[0], port[1]]))),
            _ => return Start::Invalid,
        },
        (1, _) => None,
        _ => return Start::Invalid,
    };
    Start::Header(total, client)
}

/// Reads a header, if there is one. Returns the client's address, and the stream with everything after the header.
///
/// # Errors
/// When reading fails, or the header is invalid.
pub(crate) async fn accept<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<(Option<SocketAddr>, Replay<S>)> {
    let mut bytes = Vec::new();
    loop {
        // If the stream ends with an incomplete header, its bytes are passed on unchanged.
        let is_over = stream.read_buf(&mut bytes).await? == 0;
        match parse(&bytes) {
            Start::Incomplete if !is_over => {}
            Start::Incomplete | Start::Other => return Ok((None, Replay::new(bytes, 0, stream))),
            Start::Header(length, client) => return Ok((client, Replay::new(bytes, length, stream))),
            Start::Invalid => return Err(io::Error::new(io::ErrorKind::InvalidData, "no valid PROXY protocol header")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[0x20 | command, family], &length, body].concat()
    }

    #[test]
    fn headers_of_both_versions_give_the_client() {
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n";
        assert_eq!(parse(line), Start::Header(line.len(), Some("192.0.2.1:5000".parse().unwrap())));
        let line = b"PROXY TCP6 2001:db8::1 ::1 5000 443\r\nGET /";
        assert_eq!(parse(line), Start::Header(line.len() - 5, Some("[2001:db8::1]:5000".parse().unwrap())));
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Start::Header(15, None));
        let header = v2(1, 0x11, &[192, 0, 2, 1, 198, 51, 100, 2, 0x13, 0x88, 1, 187]);
        assert_eq!(parse(&header), Start::Header(28, Some("192.0.2.1:5000".parse().unwrap())));
        let mut body = [0; 39];
        body[15] = 9;
        body[33] = 80;
        assert_eq!(parse(&v2(1, 0x21, &body)), Start::Header(55, Some("[::9]:80".parse().unwrap())));
        assert_eq!(parse(&v2(0, 0, &[])), Start::Header(16, None));
        assert_eq!(parse(&v2(1, 0x31, &[0; 216])), Start::Header(232, None));
    }

    #[test]
    fn part_of_a_header_waits_for_the_rest() {
        for whole in [b"PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\n".to_vec(), v2(1, 0x11, &[0; 12])] {
            for end in 0..whole.len() {
                assert_eq!(parse(&whole[..end]), Start::Incomplete, "{end} of {whole:?}");
            }
        }
    }

    #[test]
    fn other_protocols_are_left_alone_and_bad_headers_refused() {
        for other in ["GET / HTTP/1.1", "POST /", "PRI * HTTP/2", "\u{16}\u{3}\u{1}", "PROXIES /"] {
            assert_eq!(parse(other.as_bytes()), Start::Other, "{other}");
        }
        for line in ["PROXY TCP4 a b 1 2\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 70000 2\r\n", "PROXY \r\n", "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n"]
        {
            assert_eq!(parse(line.as_bytes()), Start::Invalid, "{line}");
        }
        assert_eq!(parse(&[b"PROXY ".as_slice(), &[b'x'; MAX_LINE_BYTES]].concat()), Start::Invalid);
        assert_eq!(parse(&v2(1, 0x11, &[0; 5])), Start::Invalid);
        assert_eq!(parse(&v2(7, 0x11, &[0; 12])), Start::Invalid);
        assert_eq!(parse(&[SIGNATURE, &[0x31, 0x11, 0, 0]].concat()), Start::Invalid);
        assert_eq!(parse(&v2(1, 0x11, &[0; MAX_HEADER_BYTES])), Start::Invalid);
    }

    #[tokio::test]
    async fn what_follows_is_read_as_if_nothing_had_been() {
        for (sent, client, rest) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 5000 443\r\nGET /", Some("192.0.2.1:5000"), "GET /"),
            ("PROXY UNKNOWN\r\n", None, ""),
            ("GET /", None, "GET /"),
            ("PRO", None, "PRO"),
            ("", None, ""),
        ] {
            let (found, mut stream) = accept(sent.as_bytes()).await.unwrap();
            assert_eq!(found, client.map(|client| client.parse().unwrap()), "{sent}");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, rest, "{sent}");
        }
    }
}
