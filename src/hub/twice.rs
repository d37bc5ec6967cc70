//! Detects an event that arrives over two of Laravel's broadcast connections (`broadcastVia(['redis', 'pusher'])`): clients
//! receive it twice. Nothing shows whether that is intended, so it is reported and sent.
//!
//! Input: events of all ingresses, and in a cluster those that other nodes received over HTTP. Output: a warning.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::event::Event;
use crate::warn_throttled;

/// Maximum time between the two: Laravel publishes to one connection after the other.
const WINDOW: Duration = Duration::from_secs(2);
/// Number of recent events that are compared.
const KEPT: usize = 32;
/// Larger data, in bytes, is not compared.
const MAX_BYTES: usize = 16 * 1024;

/// Recent events, once events arrive over both Redis and HTTP.
#[derive(Debug, Default)]
pub(super) struct Twice {
    /// The ways in which events have arrived: [`BY_REDIS`] and [`BY_HTTP`].
    ways: AtomicU8,
    lately: Mutex<VecDeque<Seen>>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    way: u8,
    channel: String,
    name: String,
    data: String,
}

const BY_REDIS: u8 = 1;
const BY_HTTP: u8 = 2;

impl Twice {
    /// Warns of an event that also arrived the other way a moment ago.
    pub(super) fn see(&self, event: &Event<'_>, is_by_http: bool) {
        let way = if is_by_http { BY_HTTP } else { BY_REDIS };
        // Most servers receive events in one way only, and pay nothing.
        if self.ways.load(Ordering::Relaxed) & way == 0 {
            self.ways.fetch_or(way, Ordering::Relaxed);
        }
        if self.ways.load(Ordering::Relaxed) != BY_REDIS | BY_HTTP || event.data.get().len() > MAX_BYTES {
            return;
        }
        let now = Instant::now();
        let mut lately = self.lately.lock();
        lately.retain(|seen| now.duration_since(seen.at) < WINDOW);
        let is_it = |seen: &Seen| {
            seen.way != way && seen.channel == event.channel && seen.name == event.name && is_same(&seen.data, event.data.get())
        };
        if let Some(at) = lately.iter().position(is_it) {
            lately.remove(at);
            let hint = "does broadcastVia() of the event name two connections? One is enough for the clients of both protocols";
            warn_throttled!(
                class = 0,
                key = &event.name,
                event = &*event.name,
                channel = event.channel,
                hint,
                "an event came over Redis and over HTTP, and goes out twice"
            );
            return;
        }
        if lately.len() == KEPT {
            lately.pop_front();
        }
        let (channel, name, data) = (event.channel.to_owned(), event.name.clone().into_owned(), event.data.get().to_owned());
        lately.push_back(Seen { at: now, way, channel, name, data });
    }
}

/// Whether two events have the same data. Over Redis, Laravel adds the socket to it.
fn is_same(one: &str, other: &str) -> bool {
    let plain = |json: &str| {
        serde_json::from_str(json).map(|mut data: Map<String, Value>| {
            data.remove("socket");
            data
        })
    };
    one == other || matches!((plain(one), plain(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_in_the_data_makes_no_difference() {
        assert!(is_same(r#"{"order":{"id":1},"socket":null}"#, r#"{"order":{"id":1}}"#));
        assert!(is_same("[1]", "[1]"));
        assert!(!is_same(r#"{"order":{"id":1},"socket":null}"#, r#"{"order":{"id":2}}"#));
        assert!(!is_same("[1]", "[2]"));
    }
}
