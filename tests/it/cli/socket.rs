//! A passive websocket client: it answers no heartbeats and reads only when told to.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::DEADLINE;

pub(super) struct Socket(TcpStream);

impl Socket {
    /// A client that is connected to the namespace.
    pub(super) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout is set");
        let mut socket = Self(stream);
        let upgrade = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.0.write_all(upgrade.as_bytes()).expect("the server reads");
        socket.wait_for("0{");
        socket.send("40");
        socket.wait_for("40{");
        socket
    }

    /// Sends a packet of less than 126 bytes, masked with zeros.
    pub(super) fn send(&mut self, packet: &str) {
        let length = u8::try_from(packet.len()).expect("a short packet");
        let frame = [&[0x81, 0x80 | length, 0, 0, 0, 0], packet.as_bytes()].concat();
        self.0.write_all(&frame).expect("the server reads");
    }

    /// Reads until this text arrives.
    fn wait_for(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            let mut bytes = [0; 4096];
            let length = self.0.read(&mut bytes).expect("the server answers");
            assert!(length > 0, "the server closed the connection before `{text}`: {seen}");
            seen += &String::from_utf8_lossy(&bytes[..length]);
        }
    }
}
