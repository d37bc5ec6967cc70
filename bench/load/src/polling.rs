//! Clients that begin by polling, or poll for good: what socket.io-client does, request by request.
//!
//! After the handshake CONNECT goes out by POST, the websocket begins its probe, and the first poll waits, all at the same
//! time. Once the probe is answered, and no request is under way any more, the client changes over; what it has to say
//! meanwhile waits for the websocket.

use std::io::{ErrorKind, Read, Write};

use mio::Token;
use mio::net::TcpStream;

use crate::args::{Proto, Via};
use crate::engine::{BOTH, Engine, GET_BASE, POST_BASE, St, mono_ns, reset};
use crate::{http, ws};

/// A client while it polls.
#[derive(Default)]
pub struct Polling {
    /// Id of the session, empty before the handshake is answered.
    pub sid: String,
    /// Packets that have not been sent yet.
    pub queue: Vec<String>,
    get: Option<Request>,
    post: Option<Request>,
    /// Connections for further requests.
    kept: Vec<TcpStream>,
    /// The probe is answered: no request is begun any more.
    is_changing: bool,
}

/// A request under way.
struct Request {
    sock: TcpStream,
    out: Vec<u8>,
    inbuf: Vec<u8>,
}

/// The two requests that a client may have under way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Get,
    Post,
}

impl Polling {
    fn request(&mut self, kind: Kind) -> &mut Option<Request> {
        match kind {
            Kind::Get => &mut self.get,
            Kind::Post => &mut self.post,
        }
    }

    /// Has all connections close with RST.
    pub fn reset(&self) {
        [&self.get, &self.post]
            .into_iter()
            .flatten()
            .for_each(|request| reset(&request.sock));
        self.kept.iter().for_each(reset);
    }
}

/// The packets of a payload.
fn packets(proto: Proto, mut body: &[u8]) -> Option<Vec<&[u8]>> {
    if proto == Proto::Sio4 {
        return Some(body.split(|byte| *byte == 0x1e).collect());
    }
    let mut packets = Vec::new();
    while !body.is_empty() {
        let colon = memchr::memchr(b':', body)?;
        let length: usize = std::str::from_utf8(&body[..colon]).ok()?.parse().ok()?;
        // In code units of UTF-16; what is sent here is ASCII.
        let end = colon + 1 + length;
        packets.push(body.get(colon + 1..end)?);
        body = &body[end..];
    }
    Some(packets)
}

fn payload(proto: Proto, packets: &[String]) -> String {
    match proto {
        Proto::Sio4 => packets.join("\x1e"),
        _ => packets
            .iter()
            .map(|packet| format!("{}:{packet}", packet.len()))
            .collect(),
    }
}

impl Engine {
    /// The handshake, or the next poll.
    pub fn poll_again(&mut self, i: usize) {
        self.begin(i, Kind::Get, None);
    }

    /// Sends the queued packets, unless a POST is in progress or the websocket will carry them.
    pub fn post(&mut self, i: usize) {
        let proto = self.a.proto;
        let Some(polling) = &mut self.conns[i].polling else {
            return;
        };
        if polling.queue.is_empty() || polling.post.is_some() || polling.is_changing {
            return;
        }
        let body = payload(proto, &std::mem::take(&mut polling.queue));
        self.begin(i, Kind::Post, Some(body));
    }

    fn begin(&mut self, i: usize, kind: Kind, body: Option<String>) {
        let addr = self.addr(i);
        let Some(polling) = &mut self.conns[i].polling else {
            return;
        };
        let path = self.a.path.replace("transport=websocket", "transport=polling");
        let (time, b64) = (
            mono_ns() / 1000,
            if self.a.proto == Proto::Sio3 { "&b64=1" } else { "" },
        );
        let sid = if polling.sid.is_empty() {
            String::new()
        } else {
            format!("&sid={}", polling.sid)
        };
        let (method, entity) = match &body {
            None => ("GET", String::new()),
            Some(body) => (
                "POST",
                format!(
                    "Content-type: text/plain;charset=UTF-8\r\nContent-Length: {}\r\n",
                    body.len()
                ),
            ),
        };
        let connection = if self.a.keep_alive { "keep-alive" } else { "close" };
        let head = format!(
            "{method} {path}&t={time:x}{b64}{sid} HTTP/1.1\r\nUser-Agent: node-XMLHttpRequest\r\nAccept: */*\r\nOrigin: http://127.0.0.1\r\nCookie: laravel_session={i}\r\n{entity}Host: {}\r\nConnection: {connection}\r\n\r\n",
            addr
        );
        let token = Token(i + if kind == Kind::Get { GET_BASE } else { POST_BASE });
        let registry = self.poll.registry();
        let opened = match polling.kept.pop() {
            Some(mut sock) => registry.reregister(&mut sock, token, BOTH).map(|()| sock),
            None => TcpStream::connect(addr).and_then(|mut sock| {
                registry.register(&mut sock, token, BOTH)?;
                Ok(sock)
            }),
        };
        match opened {
            Ok(sock) => {
                let out = [head.as_bytes(), body.unwrap_or_default().as_bytes()].concat();
                *polling.request(kind) = Some(Request {
                    sock,
                    out,
                    inbuf: Vec::new(),
                });
            }
            Err(e) => self.close(i, format!("connect: {e}")),
        }
    }

    pub fn request_event(&mut self, i: usize, kind: Kind, readable: bool, writable: bool) {
        let Some(request) = self.conns[i]
            .polling
            .as_mut()
            .and_then(|polling| polling.request(kind).as_mut())
        else {
            return;
        };
        if writable && !request.out.is_empty() {
            match request.sock.write(&request.out) {
                Ok(n) => drop(request.out.drain(..n)),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
                Err(e) => return self.close(i, format!("request: {e}")),
            }
        }
        if !readable {
            return;
        }
        let mut buf = std::mem::take(&mut self.buf);
        let read = loop {
            match request.sock.read(&mut buf) {
                Ok(0) => break Err("a connection ended without an answer".to_owned()),
                Ok(n) => {
                    request.inbuf.extend_from_slice(&buf[..n]);
                    if let Some((length, head)) = http::message_len(&request.inbuf) {
                        break Ok(Some((length, head)));
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break Ok(None),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => break Err(format!("answer: {e}")),
            }
        };
        self.buf = buf;
        match read {
            Ok(None) => {}
            Ok(Some((length, head))) => self.answered(i, kind, length, head),
            Err(why) => self.close(i, why),
        }
    }

    fn answered(&mut self, i: usize, kind: Kind, length: usize, head: usize) {
        self.now = mono_ns();
        let polling = self.conns[i].polling.as_mut().expect("it has a request");
        let Request { sock, inbuf, .. } = polling.request(kind).take().expect("it is answered");
        let text = String::from_utf8_lossy(&inbuf[..head]);
        if self.a.keep_alive && !http::header(&text, "connection:").is_some_and(|v| v.eq_ignore_ascii_case("close")) {
            polling.kept.push(sock);
        }
        if !text.starts_with("HTTP/1.1 200") {
            let answer = String::from_utf8_lossy(&inbuf[..length.min(400)]).into_owned();
            return self.close(i, answer);
        }
        match kind {
            Kind::Get => {
                let Some(packets) = packets(self.a.proto, &inbuf[head..length]) else {
                    return self.close(i, "no payload".into());
                };
                packets.into_iter().for_each(|packet| self.message(i, packet));
            }
            Kind::Post => {
                let has_said_all = self.conns[i]
                    .polling
                    .as_ref()
                    .is_some_and(|polling| polling.queue.is_empty());
                self.post(i);
                if has_said_all && self.a.via == Via::PollingOnly && self.conns[i].st == St::Sub {
                    self.fenced(i);
                }
            }
        }
        match &self.conns[i].polling {
            Some(polling) if polling.is_changing => self.change(i),
            Some(_) if kind == Kind::Get => self.poll_again(i),
            _ => {}
        }
    }

    /// The probe is answered.
    pub fn may_change(&mut self, i: usize) {
        if let Some(polling) = &mut self.conns[i].polling {
            polling.is_changing = true;
            self.change(i);
        }
    }

    /// Changes over to the websocket, once no request is under way.
    fn change(&mut self, i: usize) {
        if let Some(polling) = self.conns[i]
            .polling
            .take_if(|polling| polling.get.is_none() && polling.post.is_none())
        {
            self.send(i, ws::TEXT, b"5");
            for packet in &polling.queue {
                self.send(i, ws::TEXT, packet.as_bytes());
            }
            if self.conns[i].st == St::Sub {
                self.send(i, ws::PING, b"fence");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_both_versions() {
        let said = ["40".to_owned(), "42[1]".to_owned()];
        for proto in [Proto::Sio3, Proto::Sio4] {
            let body = payload(proto, &said);
            assert_eq!(packets(proto, body.as_bytes()).unwrap(), [b"40".as_slice(), b"42[1]"]);
        }
        assert!(packets(Proto::Sio3, b"9:40").is_none());
    }
}
