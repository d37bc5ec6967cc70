//! The event loop: one thread, one edge-triggered poll, all connections.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memchr::memmem::{self, FinderRev};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

use crate::args::{Args, Mode, Proto, Pub, Via};
use crate::hist::Hist;
use crate::polling::{Kind, Polling};
use crate::{http, procstat, ws};

/// Tokens below are those of websockets.
pub(crate) const GET_BASE: usize = 1 << 26;
pub(crate) const POST_BASE: usize = 1 << 27;
const PUB_BASE: usize = 1 << 28;
const AUTH_LISTEN: usize = 1 << 29;
const AUTH_BASE: usize = AUTH_LISTEN + 1;
/// Sequence numbers from here on are probes, which show that a subscription is in effect.
const PROBE: u64 = 1_000_000_000_000;
pub(crate) const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum St {
    New,
    /// Waiting for the open packet, then for the namespace or `pusher:connection_established`.
    Open,
    /// `subscribe` sent.
    Sub,
    Ready,
    Closed,
}

/// How far a client's websocket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ws {
    Connecting,
    /// Upgrade request sent.
    Asked,
    Open,
}

pub(crate) struct Conn {
    sock: Option<TcpStream>,
    ws: Ws,
    pub(crate) st: St,
    /// While the client polls.
    pub(crate) polling: Option<Box<Polling>>,
    chan: u32,
    partial: Vec<u8>,
    out: Vec<u8>,
    /// A fragmented message in progress.
    frag: Vec<u8>,
    next_seq: u64,
    recv: u64,
    mis: u64,
    dup: u64,
    probed: bool,
    last_ping: u64,
    socket_id: String,
    /// The user's number in presence channels.
    user: u64,
    /// When a connection that replaces another one was opened, until it is ready.
    since: u64,
    /// How many users the client knows of in its presence channel.
    here: i64,
}

impl Conn {
    fn new(chan: u32, user: u64) -> Self {
        Conn {
            sock: None,
            ws: Ws::Connecting,
            st: St::New,
            polling: None,
            chan,
            partial: Vec::new(),
            out: Vec::new(),
            frag: Vec::new(),
            next_seq: 0,
            recv: 0,
            mis: 0,
            dup: 0,
            probed: false,
            last_ping: 0,
            socket_id: String::new(),
            user,
            since: 0,
            here: 0,
        }
    }
}

#[derive(Default)]
struct Chan {
    name: String,
    members: Vec<u32>,
    sent: u64,
    authed: u32,
    unprobed: u32,
    probe_due: bool,
}

struct PubConn {
    sock: TcpStream,
    out: Vec<u8>,
    at: usize,
    inbuf: Vec<u8>,
    /// HTTP: requests not yet written. One at a time while `serial`, until the first answer that keeps the
    /// connection open; then they are pipelined.
    queue: VecDeque<Vec<u8>>,
    serial: bool,
    waiting: bool,
}

impl PubConn {
    fn open(target: SocketAddr, poll: &Poll, k: usize) -> std::io::Result<TcpStream> {
        let s = std::net::TcpStream::connect(target)?;
        s.set_nodelay(true)?;
        s.set_nonblocking(true)?;
        let mut sock = TcpStream::from_std(s);
        poll.registry().register(&mut sock, Token(PUB_BASE + k), BOTH)?;
        Ok(sock)
    }
}

struct AuthConn {
    sock: TcpStream,
    inbuf: Vec<u8>,
}

/// CPU and wall clock at one moment.
struct Mark {
    at: Instant,
    server: f64,
    user: f64,
    sys: f64,
    own: f64,
    redis: f64,
    busy: f64,
    stolen: f64,
}

pub struct Engine {
    pub(crate) a: Args,
    pub(crate) poll: Poll,
    pub(crate) conns: Vec<Conn>,
    chans: Vec<Chan>,
    pubs: Vec<PubConn>,
    listener: Option<TcpListener>,
    auths: Vec<Option<AuthConn>>,
    auth_free: Vec<usize>,
    /// Auth answers held back: due time, slot, answer.
    auth_due: VecDeque<(u64, usize, u32, bool, String)>,
    auth_count: u64,
    user_count: u64,
    by_name: HashMap<String, u32>,
    /// Channels whose subscriptions are to be probed: due time, channel.
    probes: VecDeque<(u64, u32)>,
    probe_seq: u64,
    pub(crate) buf: Vec<u8>,
    pub(crate) now: u64,
    bytes_in: u64,
    /// So many of the connections may be opened, the first of which are those of `--conns`; others follow, or replace some.
    opening: usize,
    next_conn: usize,
    inflight: usize,
    /// When the first connection was opened.
    began: Instant,
    ready: usize,
    closed: usize,
    probed: usize,
    /// Sequence number of the next message, and of the first measured one.
    seq: u64,
    measure_from: u64,
    msg_left: Vec<u32>,
    completed: u64,
    deliveries: u64,
    warm_deliveries: u64,
    expected: u64,
    joinings: u64,
    errors: Vec<String>,
    pub_errors: u64,
    pub_replies: u64,
    last_progress: u64,
    last_delivery: u64,
    hist: Hist,
    /// From the opening of a connection that replaces another one until it is ready.
    join_hist: Hist,
    churned: u64,
    next_user: u64,
    pad: String,
    finder: FinderRev<'static>,
    body: String,
}

#[inline]
pub(crate) fn mono_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a local struct.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

fn own_cpu() -> f64 {
    let me = std::process::id();
    let (u, s) = procstat::cpu_split(&[me]);
    u + s
}

/// Reads a decimal number that starts at `b[i]`.
#[inline]
fn number(b: &[u8], mut i: usize) -> u64 {
    let mut v = 0u64;
    while i < b.len() && b[i].is_ascii_digit() {
        v = v * 10 + (b[i] - b'0') as u64;
        i += 1;
    }
    v
}

/// The (t, seq) pair of a payload that holds `"seq":N,"t":T` (or `"t":T,"seq":N`), plain or with escaped quotes.
/// Keys are in alphabetical order in what we send, since some servers sort them.
#[inline]
fn stamp(finder: &FinderRev<'_>, p: &[u8]) -> Option<(u64, u64)> {
    let at = finder.rfind(p)?;
    let i = next_digit(p, at + 3, 8)?;
    let seq = number(p, i);
    let mut end = i;
    while end < p.len() && p[end].is_ascii_digit() {
        end += 1;
    }
    if p.get(end) == Some(&b',')
        && let Some(j) = next_digit(p, end + 1, 10)
    {
        return Some((number(p, j), seq));
    }
    let mut j = at;
    while j > 0 && !p[j - 1].is_ascii_digit() {
        j -= 1;
    }
    let end = j;
    while j > 0 && p[j - 1].is_ascii_digit() {
        j -= 1;
    }
    (j < end).then(|| (number(p, j), seq))
}

/// Index of the first digit within `far` bytes from `i`.
#[inline]
fn next_digit(p: &[u8], i: usize, far: usize) -> Option<usize> {
    (i..p.len().min(i + far)).find(|k| p[*k].is_ascii_digit())
}

/// The value that follows `key` (a bare name) in JSON text, whether or not its quotes are escaped.
fn text_after<'a>(p: &'a str, key: &str) -> Option<&'a str> {
    let s = p[p.find(key)? + key.len()..].trim_start_matches(['\\', '"', ':', ' ']);
    Some(&s[..s.find(['"', '\\', '}', ',']).unwrap_or(s.len())])
}

/// Has a connection close with RST, so that thousands of local ports do not stay in TIME_WAIT.
pub(crate) fn reset(s: &TcpStream) {
    let l = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: setsockopt with a correctly sized struct on a descriptor that we own.
    unsafe {
        libc::setsockopt(
            std::os::fd::AsRawFd::as_raw_fd(s),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&l).cast(),
            std::mem::size_of::<libc::linger>() as u32,
        );
    }
}

/// A member as the application describes it.
fn member(user: &str) -> String {
    format!("{{\"user_id\":\"{user}\",\"user_info\":{{\"name\":\"User {user}\"}}}}")
}

/// A subscribe, by which the application is told the user.
fn subscribe_to(head: &str, channel: &str, user: Option<&String>) -> String {
    let headers = user.map_or(String::new(), |user| format!("\"Authorization\":\"{user}\""));
    format!("{head}[\"subscribe\",{{\"channel\":\"{channel}\",\"auth\":{{\"headers\":{{{headers}}}}}}}]")
}

pub fn run(a: Args) -> Result<String, String> {
    let mut e = Engine::new(a).map_err(|e| e.to_string())?;
    e.measure()
}

impl Engine {
    fn new(mut a: Args) -> std::io::Result<Self> {
        if a.private && a.auth_port.is_some() && a.groups < a.conns {
            // A shared private channel is probed once all its members are authorised, so none may wait for others.
            a.inflight = a.conns;
        }
        let poll = Poll::new()?;
        let prefix = match (a.mode, a.private) {
            (Mode::Presence, _) => "presence-",
            (_, true) => "private-",
            _ => "",
        };
        let mut chans: Vec<Chan> = (0..a.groups)
            .map(|i| Chan {
                name: format!("{prefix}{}.{i}", a.channels),
                ..Chan::default()
            })
            .collect();
        let mut conns = Vec::with_capacity(a.conns);
        let opening = a.conns + a.guests;
        for i in 0..opening + a.joins + usize::from(a.visits > 0) {
            let chan = (i % a.groups) as u32;
            if i < a.conns {
                chans[chan as usize].members.push(i as u32);
                chans[chan as usize].unprobed += 1;
            }
            let mut conn = Conn::new(chan, i as u64);
            conn.polling = (a.via != Via::Websocket).then(Box::default);
            conns.push(conn);
        }
        let next_user = conns.len() as u64;
        let by_name = chans
            .iter()
            .enumerate()
            .map(|(i, c)| (c.name.clone(), i as u32))
            .collect();
        let mut listener = None;
        if let Some(port) = a.auth_port {
            let l = std::net::TcpListener::bind(("127.0.0.1", port))?;
            l.set_nonblocking(true)?;
            // std listens with a backlog of 128; a storm of auth requests needs more.
            // SAFETY: listen on a descriptor that we own.
            unsafe { libc::listen(std::os::fd::AsRawFd::as_raw_fd(&l), 4096) };
            let mut l = TcpListener::from_std(l);
            poll.registry()
                .register(&mut l, Token(AUTH_LISTEN), Interest::READABLE)?;
            listener = Some(l);
        }
        let mut pubs = Vec::new();
        let (target, n) = match a.publish {
            Pub::Redis => (a.redis, 1),
            Pub::Http | Pub::Pusher => (Some(a.api), a.http_conns),
        };
        if let Some(target) = target {
            for k in 0..n {
                pubs.push(PubConn {
                    sock: PubConn::open(target, &poll, k)?,
                    out: Vec::new(),
                    at: 0,
                    inbuf: Vec::new(),
                    queue: VecDeque::new(),
                    serial: true,
                    waiting: false,
                });
            }
        }
        // {"event":"App\\Events\\Tick","data":{"pad":"","seq":<6>,"t":<13>},"socket":null}
        let pad = "x".repeat(a.size.saturating_sub(92));
        Ok(Engine {
            a,
            poll,
            conns,
            chans,
            pubs,
            listener,
            auths: Vec::new(),
            auth_free: Vec::new(),
            auth_due: VecDeque::new(),
            auth_count: 0,
            user_count: 0,
            by_name,
            probes: VecDeque::new(),
            probe_seq: 0,
            buf: vec![0; 256 * 1024],
            now: mono_ns(),
            bytes_in: 0,
            opening,
            next_conn: 0,
            inflight: 0,
            began: Instant::now(),
            ready: 0,
            closed: 0,
            probed: 0,
            seq: 0,
            measure_from: 0,
            msg_left: Vec::new(),
            completed: 0,
            deliveries: 0,
            warm_deliveries: 0,
            expected: 0,
            joinings: 0,
            errors: Vec::new(),
            pub_errors: 0,
            pub_replies: 0,
            last_progress: mono_ns(),
            last_delivery: 0,
            hist: Hist::new(),
            join_hist: Hist::new(),
            churned: 0,
            next_user,
            pad,
            finder: FinderRev::new(b"seq"),
            body: String::new(),
        })
    }

    fn error(&mut self, e: String) {
        if self.errors.len() < 5 {
            self.errors.push(e);
        }
    }

    fn mark(&self) -> Mark {
        let (busy, stolen) = procstat::machine_busy_seconds();
        let (user, sys) = procstat::cpu_split(&self.a.pids);
        Mark {
            at: Instant::now(),
            server: procstat::cpu_seconds(&self.a.pids),
            user,
            sys,
            own: own_cpu(),
            redis: self.a.redis_pid.map(|p| procstat::cpu_seconds(&[p])).unwrap_or(0.0),
            busy,
            stolen,
        }
    }

    // ---------------------------------------------------------------- event loop

    /// One turn of the loop, waiting at most `ms` milliseconds (0: not at all) for events.
    fn turn(&mut self, wait: Duration, events: &mut Events) -> Result<(), String> {
        if let Err(e) = self.poll.poll(events, Some(wait)) {
            if e.kind() == ErrorKind::Interrupted {
                return Ok(());
            }
            return Err(e.to_string());
        }
        self.now = mono_ns();
        for ev in events.iter() {
            let t = ev.token().0;
            let (readable, writable) = (
                ev.is_readable() || ev.is_read_closed() || ev.is_error(),
                ev.is_writable(),
            );
            if t < GET_BASE {
                self.conn_event(t, readable, writable);
            } else if t < POST_BASE {
                self.request_event(t - GET_BASE, Kind::Get, readable, writable);
            } else if t < PUB_BASE {
                self.request_event(t - POST_BASE, Kind::Post, readable, writable);
            } else if t < AUTH_LISTEN {
                self.pub_event(t - PUB_BASE, ev.is_readable() || ev.is_read_closed(), ev.is_writable())?;
            } else if t == AUTH_LISTEN {
                self.auth_accept()?;
            } else {
                self.auth_event(t - AUTH_BASE);
            }
        }
        self.timers()
    }

    fn timers(&mut self) -> Result<(), String> {
        self.now = mono_ns();
        while let Some((due, ..)) = self.auth_due.front() {
            if *due > self.now {
                break;
            }
            let (_, slot, chan, close, body) = self.auth_due.pop_front().unwrap();
            self.auth_answer(slot, chan, close, &body);
        }
        while let Some((due, chan)) = self.probes.front().copied() {
            if due > self.now {
                break;
            }
            self.probes.pop_front();
            self.chans[chan as usize].probe_due = false;
            if self.chans[chan as usize].unprobed > 0 {
                self.probe(chan)?;
                self.probe_later(chan, 60_000_000);
            }
        }
        Ok(())
    }

    /// Puts a channel in the queue of probes. Delays differ, so the queue is kept sorted by inserting from the back.
    fn probe_later(&mut self, chan: u32, delay: u64) {
        let c = &mut self.chans[chan as usize];
        if c.probe_due {
            return;
        }
        c.probe_due = true;
        let due = self.now + delay;
        let mut i = self.probes.len();
        while i > 0 && self.probes[i - 1].0 > due {
            i -= 1;
        }
        self.probes.insert(i, (due, chan));
    }

    // ---------------------------------------------------------------- connections

    fn open_more(&mut self) {
        let paced = matches!(self.a.mode, Mode::Idle | Mode::Connect)
            .then_some(self.a.rate)
            .flatten();
        let due = paced.map_or(usize::MAX, |rate| (rate * self.began.elapsed().as_secs_f64()) as usize);
        while self.next_conn < self.opening.min(due) && self.inflight < self.a.inflight {
            let i = self.next_conn;
            self.next_conn += 1;
            self.inflight += 1;
            self.conns[i].st = St::Open;
            if self.conns[i].polling.is_some() {
                self.poll_again(i);
            } else {
                self.open_websocket(i);
            }
        }
    }

    /// The members of each channel are spread over the addresses.
    pub(crate) fn addr(&self, i: usize) -> SocketAddr {
        self.a.addrs[i / self.a.groups % self.a.addrs.len()]
    }

    pub(crate) fn open_websocket(&mut self, i: usize) {
        let opened = TcpStream::connect(self.addr(i)).and_then(|mut s| {
            self.poll.registry().register(&mut s, Token(i), BOTH)?;
            Ok(s)
        });
        match opened {
            Ok(s) => self.conns[i].sock = Some(s),
            Err(e) => self.close(i, format!("connect: {e}")),
        }
    }

    pub(crate) fn close(&mut self, i: usize, why: String) {
        let c = &mut self.conns[i];
        if c.st == St::Closed {
            return;
        }
        if !matches!(c.st, St::New | St::Ready) {
            self.inflight -= 1;
        }
        if c.st == St::Ready {
            self.ready -= 1;
        }
        c.st = St::Closed;
        c.sock = None;
        c.polling = None;
        self.closed += 1;
        self.error(why);
    }

    /// Ends a connection, if there is one, and opens another one for a new user. Not to be called while events are handled: some
    /// may be about the old one.
    fn replace(&mut self, i: usize, says_goodbye: bool) {
        match self.conns[i].st {
            St::New => {}
            St::Open | St::Sub => self.inflight -= 1,
            St::Ready => self.ready -= 1,
            St::Closed => self.closed -= 1,
        }
        if says_goodbye {
            self.send(i, ws::TEXT, b"41");
        }
        self.conns[i].sock.iter().for_each(reset);
        self.conns[i] = Conn::new(self.conns[i].chan, self.next_user);
        self.next_user += 1;
        self.inflight += 1;
        self.conns[i].st = St::Open;
        self.conns[i].since = mono_ns();
        self.open_websocket(i);
    }

    fn conn_event(&mut self, i: usize, readable: bool, writable: bool) {
        if writable {
            let addr = self.addr(i);
            let c = &mut self.conns[i];
            if let Some(s) = c.sock.as_ref().filter(|_| c.ws == Ws::Connecting) {
                if let Ok(Some(e)) = s.take_error() {
                    self.close(i, format!("connect: {e}"));
                    return;
                }
                let _ = s.set_nodelay(true);
                c.ws = Ws::Asked;
                let sid = c.polling.as_ref().map_or(String::new(), |p| format!("&sid={}", p.sid));
                let req = format!(
                    "GET {}{sid} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://127.0.0.1\r\nCookie: laravel_session={i}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                    self.a.path, addr
                );
                c.out.extend_from_slice(req.as_bytes());
            }
            if !self.conns[i].out.is_empty() {
                self.flush(i);
            }
        }
        if readable {
            self.read_conn(i);
        }
    }

    fn flush(&mut self, i: usize) {
        let c = &mut self.conns[i];
        let Some(s) = c.sock.as_mut() else { return };
        let mut at = 0;
        let mut fail = None;
        while at < c.out.len() {
            match s.write(&c.out[at..]) {
                Ok(n) => at += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    fail = Some(e);
                    break;
                }
            }
        }
        c.out.drain(..at);
        if c.out.is_empty() && c.out.capacity() > 4096 {
            c.out = Vec::new();
        }
        if let Some(e) = fail {
            self.close(i, format!("write: {e}"));
        }
    }

    /// Sends a packet of Engine.IO, or an event of Pusher, by what carries the client.
    fn say(&mut self, i: usize, text: &str) {
        match &mut self.conns[i].polling {
            Some(polling) => {
                polling.queue.push(text.to_owned());
                self.post(i);
            }
            None => self.send(i, ws::TEXT, text.as_bytes()),
        }
    }

    pub(crate) fn send(&mut self, i: usize, opcode: u8, payload: &[u8]) {
        let c = &mut self.conns[i];
        if c.sock.is_none() {
            return;
        }
        ws::put_frame(&mut c.out, opcode, payload);
        self.flush(i);
    }

    fn read_conn(&mut self, i: usize) {
        let mut buf = std::mem::take(&mut self.buf);
        loop {
            let Some(s) = self.conns[i].sock.as_mut() else { break };
            match s.read(&mut buf) {
                Ok(0) => {
                    self.close(i, "server closed a connection".into());
                    break;
                }
                Ok(n) => {
                    self.now = mono_ns();
                    self.bytes_in += n as u64;
                    self.bytes(i, &buf[..n]);
                    if n < buf.len() {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    self.close(i, format!("read: {e}"));
                    break;
                }
            }
        }
        self.buf = buf;
    }

    fn bytes(&mut self, i: usize, data: &[u8]) {
        if self.conns[i].partial.is_empty() {
            let used = self.consume(i, data);
            if used < data.len() {
                self.conns[i].partial.extend_from_slice(&data[used..]);
            }
        } else {
            let mut p = std::mem::take(&mut self.conns[i].partial);
            p.extend_from_slice(data);
            let used = self.consume(i, &p);
            if used < p.len() {
                p.drain(..used);
                self.conns[i].partial = p;
            }
        }
    }

    fn consume(&mut self, i: usize, mut b: &[u8]) -> usize {
        let all = b.len();
        if self.conns[i].ws == Ws::Asked {
            let Some(end) = memmem::find(b, b"\r\n\r\n") else {
                return 0;
            };
            if !b.starts_with(b"HTTP/1.1 101") {
                let head = String::from_utf8_lossy(&b[..b.len().min(300)]).into_owned();
                self.close(i, format!("upgrade refused: {head}"));
                return all;
            }
            self.conns[i].ws = Ws::Open;
            if self.conns[i].polling.is_some() {
                self.send(i, ws::TEXT, b"2probe");
            }
            b = &b[end + 4..];
        }
        while let Some(f) = ws::next_frame(b) {
            if f.fin && f.opcode == ws::TEXT {
                self.message(i, f.payload);
            } else {
                self.odd_frame(i, f.fin, f.opcode, f.payload);
            }
            if self.conns[i].st == St::Closed {
                return all;
            }
            b = &b[f.len..];
        }
        all - b.len()
    }

    fn odd_frame(&mut self, i: usize, fin: bool, opcode: u8, payload: &[u8]) {
        match opcode {
            ws::PING => self.send(i, ws::PONG, payload),
            ws::PONG => {
                if self.conns[i].st == St::Sub && payload == b"fence" {
                    self.fenced(i);
                }
            }
            ws::CLOSE => {
                let text = String::from_utf8_lossy(payload.get(2..).unwrap_or(b"")).into_owned();
                self.close(i, format!("server sent close: {text}"));
            }
            _ => {
                self.conns[i].frag.extend_from_slice(payload);
                if fin {
                    let m = std::mem::take(&mut self.conns[i].frag);
                    self.message(i, &m);
                }
            }
        }
    }

    #[inline]
    pub(crate) fn message(&mut self, i: usize, p: &[u8]) {
        if self.conns[i].st == St::Ready || self.conns[i].st == St::Sub {
            if let Some((t, seq)) = stamp(&self.finder, p) {
                self.delivery(i, t, seq);
                return;
            }
        }
        self.control(i, p);
    }

    #[inline]
    fn delivery(&mut self, i: usize, t: u64, seq: u64) {
        if i >= self.a.conns {
            return;
        }
        if seq >= PROBE {
            self.probe_seen(i);
            return;
        }
        let c = &mut self.conns[i];
        if seq < c.next_seq {
            c.mis += 1;
        } else {
            c.next_seq = seq + 1;
        }
        self.last_progress = self.now;
        if seq >= self.measure_from {
            c.recv += 1;
            self.deliveries += 1;
            self.last_delivery = self.now;
            self.hist.add(self.now.saturating_sub(t));
        } else {
            self.warm_deliveries += 1;
        }
        match self.msg_left.get_mut(seq as usize) {
            Some(left) if *left > 0 => {
                *left -= 1;
                if *left == 0 {
                    self.completed += 1;
                }
            }
            _ => self.conns[i].dup += 1,
        }
    }

    fn probe_seen(&mut self, i: usize) {
        let c = &mut self.conns[i];
        if c.probed {
            return;
        }
        c.probed = true;
        let waiting = c.st == St::Sub;
        self.probed += 1;
        let chan = c.chan as usize;
        self.chans[chan].unprobed -= 1;
        if waiting {
            self.set_ready(i);
        }
    }

    fn set_ready(&mut self, i: usize) {
        let c = &mut self.conns[i];
        if c.st != St::Sub {
            return;
        }
        c.st = St::Ready;
        c.last_ping = self.now;
        if c.since > 0 {
            self.join_hist
                .add(self.now.saturating_sub(std::mem::take(&mut c.since)));
        }
        self.inflight -= 1;
        self.ready += 1;
        self.last_progress = self.now;
        self.open_more();
    }

    /// The server has handled everything that we sent before the fence.
    pub(crate) fn fenced(&mut self, i: usize) {
        let by_auth = self.a.private && self.a.auth_port.is_some();
        if self.a.mode != Mode::Presence && !self.a.ack_join && !by_auth {
            self.set_ready(i);
        }
    }

    fn event_head(&self) -> String {
        if self.a.nsp.is_empty() {
            "42".into()
        } else {
            format!("42{},", self.a.nsp)
        }
    }

    fn subscribe(&mut self, i: usize) {
        let chan = &self.chans[self.conns[i].chan as usize].name;
        let sid = &self.conns[i].socket_id;
        let id = format!("{}-{}", self.a.channels, self.conns[i].user);
        let user = member(&id);
        let presence = self.a.mode == Mode::Presence;
        let token = self.a.token || (self.a.proto == Proto::Pusher && (self.a.private || presence));
        let mut extra = String::new();
        if token {
            let text = if presence {
                format!("{sid}:{chan}:{user}")
            } else {
                format!("{sid}:{chan}")
            };
            let sig = format!("{}:{}", self.a.key, http::hmac_hex(&self.a.secret, &text));
            let name = if self.a.proto == Proto::Pusher { "auth" } else { "token" };
            extra = format!(",\"{name}\":\"{sig}\"");
            if presence {
                extra += &format!(",\"channel_data\":{}", serde_json::to_string(&user).unwrap());
            }
        }
        let text = match self.a.proto {
            Proto::Pusher => format!("{{\"event\":\"pusher:subscribe\",\"data\":{{\"channel\":\"{chan}\"{extra}}}}}"),
            _ if token => format!("{}[\"subscribe\",{{\"channel\":\"{chan}\"{extra}}}]", self.event_head()),
            _ => subscribe_to(&self.event_head(), chan, presence.then_some(&id)),
        };
        // The list of members is the last answer.
        let also = (self.a.both).then(|| subscribe_to("42", &format!("presence-{chan}"), Some(&id)));
        let c = &mut self.conns[i];
        c.st = St::Sub;
        if c.polling.is_some() {
            return self.say(i, &text);
        }
        ws::put_frame(&mut c.out, ws::TEXT, text.as_bytes());
        if let Some(also) = also {
            ws::put_frame(&mut c.out, ws::TEXT, also.as_bytes());
        } else if self.a.proto != Proto::Pusher && !self.a.ack_join && !presence {
            ws::put_frame(&mut c.out, ws::PING, b"fence");
        }
        self.flush(i);
    }

    /// For a client that has just left its channel.
    fn subscribe_again(&mut self, i: usize) {
        if self.conns[i].st == St::Ready {
            self.ready -= 1;
            self.inflight += 1;
        }
        self.subscribe(i);
    }

    fn control(&mut self, i: usize, p: &[u8]) {
        let st = self.conns[i].st;
        let text = String::from_utf8_lossy(p);
        if self.a.proto == Proto::Pusher {
            let head = &text[..text.len().min(400)];
            if head.contains("pusher:connection_established") {
                self.conns[i].socket_id = text_after(&text, "socket_id").unwrap_or("").to_owned();
                if st == St::Open {
                    self.subscribe(i);
                }
            } else if head.contains("pusher_internal:subscription_succeeded") {
                self.set_ready(i);
            } else if head.contains("member_added") {
                self.joinings += 1;
                self.last_progress = self.now;
            } else if head.contains("pusher:ping") {
                self.say(i, "{\"event\":\"pusher:pong\",\"data\":{}}");
            } else if head.contains("pusher:error") {
                self.error(head.to_owned());
            }
            return;
        }
        match p.first() {
            Some(b'0') => {
                if let Some(polling) = &mut self.conns[i].polling {
                    polling.sid = text_after(&text, "\"sid\"").unwrap_or("").to_owned();
                }
                if self.a.proto == Proto::Sio4 {
                    let t = if self.a.nsp.is_empty() {
                        "40".to_owned()
                    } else {
                        format!("40{},", self.a.nsp)
                    };
                    self.say(i, &t);
                }
                if self.a.via == Via::Polling {
                    self.open_websocket(i);
                }
            }
            Some(b'2') if self.a.proto == Proto::Sio4 => self.say(i, "3"),
            Some(b'3') if p == b"3probe" => self.may_change(i),
            Some(b'4') if p.starts_with(b"40") => {
                if let Some(k) = text.find("\"sid\":\"") {
                    let s = &text[k + 7..];
                    self.conns[i].socket_id = s.split('"').next().unwrap_or("").to_owned();
                }
                if st == St::Open {
                    self.subscribe(i);
                }
            }
            Some(b'4') if p.starts_with(b"44") => self.error(text.chars().take(200).collect()),
            Some(b'4') => {
                let head: String = text.chars().take(80).collect();
                if head.contains("\"presence:subscribed\"") {
                    self.conns[i].here = memmem::find_iter(p, "\"user_id\"").count() as i64;
                    self.last_progress = self.now;
                    self.set_ready(i);
                } else if head.contains("\"presence:joining\"") {
                    self.conns[i].here += 1;
                    self.joinings += 1;
                    self.last_progress = self.now;
                } else if head.contains("\"presence:leaving\"") {
                    self.conns[i].here -= 1;
                    self.last_progress = self.now;
                } else if head.contains("\"channel:joined\"") {
                    if self.a.ack_join && self.a.mode != Mode::Presence {
                        self.set_ready(i);
                    }
                } else if head.contains("error") || head.contains("socket:info") {
                    self.error(text.chars().take(200).collect());
                }
            }
            _ => {}
        }
    }

    /// Engine.IO 3: the client pings.
    fn client_pings(&mut self) {
        if self.a.proto != Proto::Sio3 {
            return;
        }
        let now = self.now;
        for i in 0..self.conns.len() {
            if self.conns[i].st == St::Ready && now.saturating_sub(self.conns[i].last_ping) > 20_000_000_000 {
                self.conns[i].last_ping = now;
                self.say(i, "2");
            }
        }
    }

    // ---------------------------------------------------------------- publishing

    fn pub_event(&mut self, k: usize, readable: bool, writable: bool) -> Result<(), String> {
        if writable {
            self.pub_flush(k)?;
        }
        if !readable {
            return Ok(());
        }
        let mut buf = std::mem::take(&mut self.buf);
        let redis = self.a.publish == Pub::Redis;
        let mut res = Ok(());
        let mut reopen = false;
        loop {
            match self.pubs[k].sock.read(&mut buf) {
                Ok(0) => {
                    if redis || (self.pubs[k].waiting && self.pubs[k].inbuf.is_empty()) {
                        res = Err("publisher: connection closed".into());
                    } else {
                        reopen = true;
                    }
                    break;
                }
                Ok(n) => {
                    if redis {
                        self.pub_replies += buf[..n].iter().filter(|b| **b == b'\n').count() as u64;
                        if buf[..n].contains(&b'-') {
                            self.pub_errors += 1;
                            self.error(String::from_utf8_lossy(&buf[..n.min(100)]).into_owned());
                        }
                    } else {
                        let mut inbuf = std::mem::take(&mut self.pubs[k].inbuf);
                        inbuf.extend_from_slice(&buf[..n]);
                        let mut at = 0;
                        while let Some((len, head)) = http::message_len(&inbuf[at..]) {
                            let m = &inbuf[at..at + len];
                            let text = String::from_utf8_lossy(&m[..head]);
                            let close =
                                http::header(&text, "connection:").is_some_and(|v| v.eq_ignore_ascii_case("close"));
                            self.pubs[k].waiting = false;
                            self.pubs[k].serial = close;
                            reopen |= close;
                            if m.starts_with(b"HTTP/1.1 2") {
                                self.pub_replies += 1;
                            } else {
                                self.pub_errors += 1;
                                self.error(String::from_utf8_lossy(&m[..m.len().min(400)]).into_owned());
                            }
                            at += len;
                        }
                        inbuf.drain(..at);
                        self.pubs[k].inbuf = inbuf;
                    }
                    if n < buf.len() {
                        break;
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    res = Err(format!("publisher: {e}"));
                    break;
                }
            }
        }
        self.buf = buf;
        res?;
        if reopen {
            self.pubs[k].sock = PubConn::open(self.a.api, &self.poll, k).map_err(|e| format!("publisher: {e}"))?;
            self.pubs[k].inbuf.clear();
            self.pubs[k].waiting = false;
        }
        if redis { Ok(()) } else { self.pub_flush(k) }
    }

    fn pub_flush(&mut self, k: usize) -> Result<(), String> {
        let p = &mut self.pubs[k];
        while !(p.serial && p.waiting) {
            let Some(r) = p.queue.pop_front() else { break };
            p.out.extend_from_slice(&r);
            p.waiting = true;
        }
        while p.at < p.out.len() {
            match p.sock.write(&p.out[p.at..]) {
                Ok(n) => p.at += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("publisher: {e}")),
            }
        }
        p.out.clear();
        p.at = 0;
        Ok(())
    }

    /// Writes one message for a channel into the publisher's buffer.
    fn put_message(&mut self, chan: u32, seq: u64) -> usize {
        use std::fmt::Write as _;
        let t = mono_ns();
        let name = &self.chans[chan as usize].name;
        let k = chan as usize % self.pubs.len();
        let out = &mut self.pubs[k].out;
        self.body.clear();
        let pad = if seq >= PROBE { "" } else { &self.pad };
        match self.a.publish {
            Pub::Redis => {
                let _ = write!(
                    self.body,
                    "{{\"event\":\"App\\\\Events\\\\Tick\",\"data\":{{\"pad\":\"{pad}\",\"seq\":{seq},\"t\":{t}}},\"socket\":null}}"
                );
                let full = self.a.prefix.len() + name.len();
                let _ = write!(
                    out,
                    "*3\r\n$7\r\nPUBLISH\r\n${full}\r\n{}{name}\r\n${}\r\n{}\r\n",
                    self.a.prefix,
                    self.body.len(),
                    self.body
                );
            }
            Pub::Http | Pub::Pusher => {
                let _ = write!(
                    self.body,
                    "{{\"name\":\"App\\\\Events\\\\Tick\",\"channels\":[\"{name}\"],\"data\":\"{{\\\"pad\\\":\\\"{pad}\\\",\\\"seq\\\":{seq},\\\"t\\\":{t}}}\"}}"
                );
                let secret = (self.a.publish == Pub::Pusher).then_some(self.a.secret.as_str());
                let mut request = Vec::with_capacity(self.body.len() + 512);
                http::event_request(
                    &mut request,
                    &self.a.api.to_string(),
                    &self.a.app_id,
                    &self.a.key,
                    secret,
                    &self.body,
                );
                self.pubs[k].queue.push_back(request);
            }
        }
        k
    }

    fn probe(&mut self, chan: u32) -> Result<(), String> {
        if self.pubs.is_empty() {
            return Err("no publisher (--redis or --pub): cannot probe subscriptions".into());
        }
        let seq = PROBE + self.probe_seq;
        self.probe_seq += 1;
        let k = self.put_message(chan, seq);
        self.pub_flush(k)
    }

    /// Publishes the next message; it goes to channel `seq % groups`, or from connection 0 in whisper mode.
    fn publish(&mut self) -> Result<(), String> {
        let seq = self.seq;
        self.seq += 1;
        let chan = (seq % self.chans.len() as u64) as u32;
        let mut targets = self.chans[chan as usize].members.len() as u32;
        if self.a.mode == Mode::Whisper {
            targets -= 1;
            let name = &self.chans[0].name;
            let t = mono_ns();
            let data = format!("{{\"pad\":\"{}\",\"seq\":{seq},\"t\":{t}}}", self.pad);
            let text = match self.a.proto {
                Proto::Pusher => format!("{{\"event\":\"client-tick\",\"channel\":\"{name}\",\"data\":{data}}}"),
                _ => format!(
                    "{}[\"client event\",{{\"channel\":\"{name}\",\"event\":\"client-tick\",\"data\":{data}}}]",
                    self.event_head()
                ),
            };
            self.send(0, ws::TEXT, text.as_bytes());
        } else {
            let k = self.put_message(chan, seq);
            if self.a.mode != Mode::Burst {
                self.pub_flush(k)?;
            }
        }
        self.msg_left.push(targets);
        if seq >= self.measure_from {
            self.chans[chan as usize].sent += 1;
            self.expected += targets as u64;
        }
        Ok(())
    }

    // ---------------------------------------------------------------- auth endpoint

    fn auth_accept(&mut self) -> Result<(), String> {
        loop {
            let Some(l) = &self.listener else { return Ok(()) };
            match l.accept() {
                Ok((mut sock, _)) => {
                    let slot = self.auth_free.pop().unwrap_or_else(|| {
                        self.auths.push(None);
                        self.auths.len() - 1
                    });
                    self.poll
                        .registry()
                        .register(&mut sock, Token(AUTH_BASE + slot), Interest::READABLE)
                        .map_err(|e| e.to_string())?;
                    let _ = sock.set_nodelay(true);
                    self.auths[slot] = Some(AuthConn {
                        sock,
                        inbuf: Vec::new(),
                    });
                    self.auth_event(slot);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(format!("auth accept: {e}")),
            }
        }
    }

    fn auth_drop(&mut self, slot: usize) {
        if self.auths[slot].take().is_some() {
            self.auth_free.push(slot);
        }
    }

    fn auth_event(&mut self, slot: usize) {
        let mut gone = false;
        let mut ready = Vec::new();
        if let Some(c) = self.auths.get_mut(slot).and_then(Option::as_mut) {
            let mut b = [0u8; 8192];
            loop {
                match c.sock.read(&mut b) {
                    Ok(0) => {
                        gone = true;
                        break;
                    }
                    Ok(n) => c.inbuf.extend_from_slice(&b[..n]),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(_) => {
                        gone = true;
                        break;
                    }
                }
            }
            while let Some((len, head)) = http::message_len(&c.inbuf) {
                let head_text = String::from_utf8_lossy(&c.inbuf[..head]);
                let close = http::header(&head_text, "connection:").is_some_and(|v| v.eq_ignore_ascii_case("close"));
                let body = String::from_utf8_lossy(&c.inbuf[head..len]).into_owned();
                let user = http::header(&head_text, "authorization:").map(str::to_owned);
                ready.push((close, body, user));
                c.inbuf.drain(..len);
            }
        }
        for (close, body, user) in ready {
            self.auth_count += 1;
            let name = body
                .split('&')
                .find_map(|kv| kv.strip_prefix("channel_name="))
                .or_else(|| text_after(&body, "channel_name"))
                .unwrap_or("");
            let chan = self.by_name.get(name).copied().unwrap_or(u32::MAX);
            let answer = if name.starts_with("presence-") {
                self.user_count += 1;
                let user = user.unwrap_or_else(|| self.user_count.to_string());
                format!("{{\"channel_data\":{}}}", member(&user))
            } else {
                "true".to_owned()
            };
            let due = self.now + self.a.auth_delay_ms * 1_000_000;
            self.auth_due.push_back((due, slot, chan, close, answer));
        }
        if gone {
            self.auth_drop(slot);
        }
    }

    fn auth_answer(&mut self, slot: usize, chan: u32, close: bool, body: &str) {
        if let Some(c) = self.auths.get_mut(slot).and_then(Option::as_mut) {
            let conn = if close { "close" } else { "keep-alive" };
            let r = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {conn}\r\n\r\n{body}",
                body.len()
            );
            // Answers are small and the peer is waiting for them: one write is enough.
            let ok = c.sock.write(r.as_bytes()).is_ok_and(|n| n == r.len());
            if !ok || close {
                self.auth_drop(slot);
            }
        }
        if self.a.mode == Mode::Presence {
            return;
        }
        if let Some(c) = self.chans.get_mut(chan as usize) {
            c.authed += 1;
            if c.authed as usize >= c.members.len() {
                self.probe_later(chan, 3_000_000);
            }
        }
    }

    // ---------------------------------------------------------------- modes

    /// Connects and subscribes everything. Returns the seconds this took.
    fn setup(&mut self, events: &mut Events) -> Result<f64, String> {
        let start = Instant::now();
        self.began = start;
        let limit = Duration::from_secs_f64(self.a.setup_timeout);
        self.open_more();
        while self.ready + self.closed < self.opening {
            self.turn(Duration::from_millis(5), events)?;
            self.open_more();
            if start.elapsed() > limit {
                return Err(format!(
                    "setup timeout: {} of {} subscribed, {} closed, {} auth requests; {:?}",
                    self.ready, self.opening, self.closed, self.auth_count, self.errors
                ));
            }
        }
        if self.ready == 0 {
            return Err(format!("no connection was subscribed: {:?}", self.errors));
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Makes sure that every subscription is in effect.
    fn sync(&mut self, events: &mut Events) -> Result<(), String> {
        if self.pubs.is_empty() {
            return Ok(());
        }
        let live: usize = self.conns[..self.a.conns].iter().filter(|c| c.st == St::Ready).count();
        for chan in 0..self.chans.len() as u32 {
            if self.chans[chan as usize].unprobed > 0 {
                self.probe(chan)?;
                self.probe_later(chan, 500_000_000);
            }
        }
        let start = Instant::now();
        while self.probed < live {
            self.turn(Duration::from_millis(5), events)?;
            if start.elapsed() > Duration::from_secs(20) {
                return Err(format!(
                    "only {} of {live} connections got a probe; {:?}",
                    self.probed, self.errors
                ));
            }
        }
        self.probes.clear();
        Ok(())
    }

    /// Publishes for `secs` or `count` messages, at the rate or window asked for.
    fn stream(&mut self, count: Option<u64>, secs: f64, events: &mut Events) -> Result<(), String> {
        let first = self.seq;
        let start = mono_ns();
        let end = start + (secs * 1e9) as u64;
        let quiet = (self.a.quiet * 1e9) as u64;
        let mut next_ping = start;
        self.last_progress = start;
        loop {
            let now = mono_ns();
            let sent = self.seq - first;
            let due = (now.saturating_sub(start) as f64 / 1e9 * self.a.churn) as u64;
            while count.is_none() && self.churned < due {
                let next = self.a.conns + self.churned as usize % self.a.guests;
                self.replace(next, self.churned % 2 == 0);
                self.churned += 1;
            }
            if count.map_or(now >= end, |c| sent >= c) {
                return Ok(());
            }
            let mut wait = Duration::from_millis(10);
            if let Some(rate) = self.a.rate {
                let due = start + (sent as f64 * 1e9 / rate) as u64;
                if now >= due {
                    self.publish()?;
                    wait = Duration::ZERO;
                } else {
                    wait = wait.min(Duration::from_nanos(due - now));
                }
            } else {
                if now.saturating_sub(self.last_progress) > quiet {
                    // Some messages will not come: stop waiting for them.
                    self.completed = self.seq;
                    self.error("stalled: gave up waiting for outstanding messages".into());
                    self.last_progress = now;
                }
                while self.seq - self.completed.min(self.seq) < self.a.window
                    && count.is_none_or(|c| self.seq - first < c)
                {
                    self.publish()?;
                }
            }
            self.turn(wait, events)?;
            if self.now > next_ping {
                next_ping = self.now + 1_000_000_000;
                self.client_pings();
            }
        }
    }

    /// Waits until everything expected has come, or nothing has for the quiet time.
    fn drain(&mut self, events: &mut Events) -> Result<(), String> {
        let quiet = (self.a.quiet * 1e9) as u64;
        self.last_progress = mono_ns();
        while self.deliveries < self.expected {
            self.turn(Duration::from_millis(5), events)?;
            if self.now.saturating_sub(self.last_progress) > quiet {
                break;
            }
        }
        Ok(())
    }

    /// Tells `--gate` that everything is connected, and waits until it is opened.
    fn wait_at_gate(&mut self, events: &mut Events) -> Result<(), String> {
        let Some(gate) = self.a.gate.clone() else { return Ok(()) };
        std::fs::write(format!("{gate}.{}", self.a.channels), "").map_err(|e| format!("{gate}: {e}"))?;
        while !std::path::Path::new(&gate).exists() {
            self.turn(Duration::from_millis(20), events)?;
        }
        Ok(())
    }

    /// Measures one part of a run: until `run` is done, and nothing about members has come for the quiet time.
    fn phase(
        &mut self,
        name: &str,
        events: &mut Events,
        run: impl FnOnce(&mut Self, &mut Events) -> Result<(), String>,
    ) -> Result<serde_json::Value, String> {
        let round = |v: f64| (v * 100.0).round() / 100.0;
        let (from, bytes) = (self.mark(), self.bytes_in);
        run(self, events)?;
        let took = from.at.elapsed().as_secs_f64();
        self.last_progress = mono_ns();
        while (self.now.saturating_sub(self.last_progress) as f64) < self.a.quiet * 1e9 {
            self.turn(Duration::from_millis(5), events)?;
        }
        let to = self.mark();
        Ok(json!({
            "phase": name,
            "s": round(took),
            "sent_mb": round((self.bytes_in - bytes) as f64 / 1e6),
            "server_cpu_s": round(to.server - from.server),
            "own_cpu_s": round(to.own - from.own),
            "redis_cpu_s": round(to.redis - from.redis),
            "rss_kib": procstat::rss_kib(&self.a.pids),
        }))
    }

    /// What happens to a presence channel that everybody has joined.
    fn presence_phases(&mut self, events: &mut Events) -> Result<Vec<serde_json::Value>, String> {
        let mut phases = Vec::new();
        if self.a.joins > 0 {
            phases.push(self.phase("joins, one after the other", events, |this, events| {
                (this.a.inflight, this.opening) = (1, this.opening + this.a.joins);
                this.setup(events).map(drop)
            })?);
        }
        if self.a.flaps > 0 {
            let leave = format!("42[\"unsubscribe\",{{\"channel\":\"{}\"}}]", self.chans[0].name);
            phases.push(self.phase("leaves and joins of one member", events, |this, events| {
                for _ in 0..this.a.flaps {
                    this.send(0, ws::TEXT, leave.as_bytes());
                    this.subscribe_again(0);
                    this.idle_for(0.02, events)?;
                }
                Ok(())
            })?);
        }
        let times: &[u32] = if self.a.visits > 0 { &[20, 5] } else { &[] };
        for &ms in times {
            phases.push(
                self.phase(&format!("visits of {ms} ms by new users"), events, |this, events| {
                    let visitor = this.conns.len() - 1;
                    for _ in 0..this.a.visits {
                        this.replace(visitor, false);
                        this.idle_for(f64::from(ms) / 1e3, events)?;
                    }
                    Ok(())
                })?,
            );
        }
        Ok(phases)
    }

    /// How many clients do not know how many users are in their presence channel.
    fn misinformed(&self) -> usize {
        let mut users: Vec<i64> = self.chans.iter().map(|chan| chan.members.len() as i64).collect();
        for guest in self.conns[self.a.conns..].iter().filter(|c| c.st == St::Ready) {
            users[guest.chan as usize] += 1;
        }
        let is_wrong = |c: &&Conn| c.st == St::Ready && c.here != users[c.chan as usize];
        self.conns.iter().filter(is_wrong).count()
    }

    fn idle_for(&mut self, secs: f64, events: &mut Events) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs_f64(secs);
        let mut next_ping = mono_ns();
        while Instant::now() < end {
            self.turn(
                end.saturating_duration_since(Instant::now())
                    .min(Duration::from_millis(20)),
                events,
            )?;
            if self.now > next_ping {
                next_ping = self.now + 1_000_000_000;
                self.client_pings();
            }
        }
        Ok(())
    }

    fn measure(&mut self) -> Result<String, String> {
        let mut events = Events::with_capacity(2048);
        let pids = self.a.pids.clone();
        procstat::reset_peak(&pids);
        let rss0 = procstat::rss_kib(&pids);
        let m0 = self.mark();
        let setup_s = self.setup(&mut events)?;
        let m1 = self.mark();
        let mode = self.a.mode;
        let c = self.a.conns as f64;
        let mut out = json!({
            "mode": self.a.mode_name,
            "label": self.a.label,
            "conns": self.a.conns,
            "ready": self.ready,
        });
        let o = out.as_object_mut().unwrap();
        let round = |v: f64, d: i32| (v * 10f64.powi(d)).round() / 10f64.powi(d);
        let mut from = m0;
        let mut to = m1;
        match mode {
            Mode::Connect => {
                o.insert("setup_s".into(), json!(round(setup_s, 3)));
                o.insert("subscribed_per_s".into(), json!(round(self.ready as f64 / setup_s, 0)));
                o.insert("auth_requests".into(), json!(self.auth_count));
                o.insert(
                    "cpu_us_per_conn".into(),
                    json!(round((to.server - from.server) * 1e6 / c, 1)),
                );
                self.sync(&mut events)?;
                o.insert("verified".into(), json!(self.probed));
            }
            Mode::Presence => {
                o.insert("setup_s".into(), json!(round(setup_s, 3)));
                o.insert("joins_per_s".into(), json!(round(self.ready as f64 / setup_s, 0)));
                // Let the last presence:joining messages come.
                let quiet = 1_000_000_000;
                while self.now.saturating_sub(self.last_progress) < quiet {
                    self.turn(Duration::from_millis(5), &mut events)?;
                }
                to = self.mark();
                o.insert("joining_seen".into(), json!(self.joinings));
                o.insert("joining_full".into(), json!(self.a.conns * (self.a.conns - 1) / 2));
                o.insert(
                    "cpu_us_per_conn".into(),
                    json!(round((to.server - from.server) * 1e6 / c, 1)),
                );
                o.insert("sent_mb".into(), json!(round(self.bytes_in as f64 / 1e6, 1)));
                o.insert("phases".into(), json!(self.presence_phases(&mut events)?));
            }
            Mode::Idle => {
                let connect_cpu = to.server - from.server;
                self.idle_for(self.a.settle, &mut events)?;
                let rss1 = procstat::rss_kib(&pids);
                from = self.mark();
                self.idle_for(self.a.idle_secs, &mut events)?;
                to = self.mark();
                let rss2 = procstat::rss_kib(&pids);
                o.insert("setup_s".into(), json!(round(setup_s, 3)));
                o.insert("rss_before_kib".into(), json!(rss0));
                o.insert("rss_settled_kib".into(), json!(rss1));
                o.insert("rss_end_kib".into(), json!(rss2));
                o.insert(
                    "rss_per_conn_kib".into(),
                    json!(round((rss2 as f64 - rss0 as f64) / c, 2)),
                );
                o.insert("connect_cpu_us_per_conn".into(), json!(round(connect_cpu * 1e6 / c, 1)));
                let secs = to.at.duration_since(from.at).as_secs_f64();
                o.insert(
                    "idle_cpu_percent".into(),
                    json!(round((to.server - from.server) * 100.0 / secs, 2)),
                );
            }
            Mode::Fanout | Mode::Unicast | Mode::Groups | Mode::Burst | Mode::Whisper => {
                self.wait_at_gate(&mut events)?;
                self.sync(&mut events)?;
                if mode != Mode::Burst {
                    self.measure_from = u64::MAX;
                    let warm = self
                        .a
                        .warm
                        .max(if mode == Mode::Unicast { self.a.conns as u64 } else { 0 });
                    self.stream(Some(warm), 0.0, &mut events)?;
                    let t = Instant::now();
                    while self.msg_left.iter().any(|x| *x > 0) && t.elapsed() < Duration::from_secs(3) {
                        self.turn(Duration::from_millis(5), &mut events)?;
                    }
                    self.completed = self.seq;
                }
                self.measure_from = self.seq;
                from = self.mark();
                let began = mono_ns();
                if mode == Mode::Burst {
                    for _ in 0..self.a.msgs.unwrap() {
                        self.publish()?;
                    }
                    for k in 0..self.pubs.len() {
                        self.pub_flush(k)?;
                    }
                } else {
                    self.stream(self.a.msgs, self.a.secs, &mut events)?;
                }
                self.drain(&mut events)?;
                to = self.mark();
                let wall = (self.last_delivery.max(began) - began) as f64 / 1e9;
                let published = self.seq - self.measure_from;
                let mis: u64 = self.conns.iter().map(|c| c.mis).sum();
                let dup: u64 = self.conns.iter().map(|c| c.dup).sum();
                let sender_skips = if mode == Mode::Whisper { 1 } else { 0 };
                let recv = self.conns.iter().skip(sender_skips).map(|c| c.recv);
                let n = self.deliveries.max(1) as f64;
                let cpu = to.server - from.server;
                o.insert("msgs".into(), json!(published));
                o.insert("size".into(), json!(self.a.size));
                match self.a.rate {
                    Some(r) => o.insert("rate".into(), json!(r)),
                    None => o.insert("window".into(), json!(self.a.window)),
                };
                o.insert("wall_s".into(), json!(round(wall, 3)));
                o.insert("deliveries".into(), json!(self.deliveries));
                o.insert(
                    "deliveries_per_s".into(),
                    json!(round(self.deliveries as f64 / wall.max(1e-9), 0)),
                );
                o.insert("lost".into(), json!(self.expected as i64 - self.deliveries as i64));
                o.insert("misordered".into(), json!(mis));
                o.insert("duplicates".into(), json!(dup));
                if mode == Mode::Burst {
                    o.insert("min_per_conn".into(), json!(recv.clone().min()));
                    o.insert("max_per_conn".into(), json!(recv.max()));
                }
                o.insert(
                    "latency_ms".into(),
                    json!({
                        "p50": round(self.hist.quantile_ms(0.5), 3),
                        "p99": round(self.hist.quantile_ms(0.99), 3),
                        "p999": round(self.hist.quantile_ms(0.999), 3),
                        "max": round(self.hist.max_ms(), 3),
                    }),
                );
                o.insert("cpu_us_per_delivery".into(), json!(round(cpu * 1e6 / n, 3)));
                o.insert(
                    "cpu_user_us_per_delivery".into(),
                    json!(round((to.user - from.user) * 1e6 / n, 3)),
                );
                o.insert(
                    "cpu_sys_us_per_delivery".into(),
                    json!(round((to.sys - from.sys) * 1e6 / n, 3)),
                );
                o.insert(
                    "own_cpu_us_per_delivery".into(),
                    json!(round((to.own - from.own) * 1e6 / n, 3)),
                );
                if self.a.both {
                    self.idle_for(self.a.settle, &mut events)?;
                    o.insert("setup_s".into(), json!(round(setup_s, 3)));
                    o.insert("misinformed".into(), json!(self.misinformed()));
                    o.insert("churned".into(), json!(self.churned));
                    o.insert(
                        "join_ms".into(),
                        json!({
                            "p50": round(self.join_hist.quantile_ms(0.5), 3),
                            "p99": round(self.join_hist.quantile_ms(0.99), 3),
                            "max": round(self.join_hist.max_ms(), 3),
                        }),
                    );
                }
                if self.pub_errors > 0 {
                    o.insert("publish_errors".into(), json!(self.pub_errors));
                }
            }
        }
        let secs = to.at.duration_since(from.at).as_secs_f64();
        let other = (to.busy - from.busy) - (to.server - from.server) - (to.own - from.own) - (to.redis - from.redis);
        o.insert("measured_s".into(), json!(round(secs, 3)));
        o.insert("server_cpu_s".into(), json!(round(to.server - from.server, 3)));
        o.insert("own_cpu_s".into(), json!(round(to.own - from.own, 3)));
        o.insert("redis_cpu_s".into(), json!(round(to.redis - from.redis, 3)));
        o.insert("other_cpu_s".into(), json!(round(other, 3)));
        o.insert("stolen_cpu_s".into(), json!(round(to.stolen - from.stolen, 3)));
        if mode != Mode::Idle {
            o.insert("rss_before_kib".into(), json!(rss0));
            o.insert("rss_end_kib".into(), json!(procstat::rss_kib(&pids)));
        }
        o.insert("rss_peak_kib".into(), json!(procstat::peak_kib(&pids)));
        o.insert("closed".into(), json!(self.closed));
        o.insert("errors".into(), json!(self.errors));
        for c in &mut self.conns {
            c.sock.iter().for_each(reset);
            c.polling.iter().for_each(|polling| polling.reset());
            (c.sock, c.polling) = (None, None);
        }
        Ok(out.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_plain_and_escaped() {
        let f = FinderRev::new(b"seq");
        let plain = br#"42["App\\Events\\Tick","load.0",{"pad":"xx","t":123456,"seq":78}]"#;
        assert_eq!(stamp(&f, plain), Some((123456, 78)));
        let sorted = br#"42["App\\Events\\Tick","load.0",{"pad":"xx","seq":78,"t":123456}]"#;
        assert_eq!(stamp(&f, sorted), Some((123456, 78)));
        let esc = br#"{"event":"App\\Events\\Tick","data":"{\"pad\":\"xx\",\"seq\":5,\"t\":99}","channel":"load.0"}"#;
        assert_eq!(stamp(&f, esc), Some((99, 5)));
        let esc = br#"{"event":"App\\Events\\Tick","data":"{\"pad\":\"xx\",\"t\":99,\"seq\":5}","channel":"load.0"}"#;
        assert_eq!(stamp(&f, esc), Some((99, 5)));
        assert_eq!(stamp(&f, b"42[\"channel:joined\",\"load.0\"]"), None);
    }

    #[test]
    fn socket_ids() {
        let p = r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"123.456\",\"activity_timeout\":120}"}"#;
        assert_eq!(text_after(p, "socket_id"), Some("123.456"));
    }
}
