//! The purpose of the endpoint: `PUBLISH`, and Laravel's broadcast script.
//!
//! Input: channels and payloads, borrowed from the read buffer. Output: events for the hub, which sends them on to
//! the other nodes if there are any, and the reply.

use super::Shared;
use super::reply::Reply;
use crate::cluster::BusError;
use crate::hub::Socket;
use crate::ingress::redis::{PRESENCE_UPDATES, receive, without_prefix};
use crate::metrics::Source;

/// Laravel's script for several channels since 5.8 (`RedisBroadcaster::broadcastMultipleChannelsScript`), without whitespace:
/// the payload is the first argument, the others are the channels.
const SCRIPT: &[u8] = b"fori=2,#ARGVdoredis.call('publish',ARGV[i],ARGV[1])end";

/// Whether a script is Laravel's. Its versions and forks differ only in whitespace.
fn is_laravels(script: &[u8]) -> bool {
    script.iter().filter(|byte| !byte.is_ascii_whitespace()).eq(SCRIPT)
}

impl<S: Socket> Shared<S> {
    /// `PUBLISH`
    pub(super) async fn publish(&self, channel: &[u8], payload: &[u8]) -> Reply {
        match self.name_of(channel) {
            Some(name) => self.send(&[name], payload).await.map_or_else(Reply::error, Reply::count),
            None => Reply::count(0),
        }
    }

    /// `EVAL`; `rest` is the number of keys, which is 0 in Laravel, and the arguments.
    pub(super) async fn eval<'a>(&self, script: &[u8], mut rest: impl Iterator<Item = &'a [u8]>) -> Reply {
        let (keys, payload) = (rest.next(), rest.next());
        let (true, Some(b"0"), Some(payload)) = (is_laravels(script), keys, payload) else {
            return Reply::error("only Laravel's broadcast script runs here; this endpoint stores no data");
        };
        let names: Vec<_> = rest.filter_map(|channel| self.name_of(channel)).collect();
        self.send(&names, payload).await.map_or_else(Reply::error, |_| Reply::Null)
    }

    async fn send(&self, channels: &[&str], payload: &[u8]) -> Result<usize, BusError> {
        self.hub.forward(channels, payload, |channel| receive(&self.hub, Source::RedisServer, channel, payload)).await
    }

    /// The channel without prefix; `None` for one that has no events.
    fn name_of<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        let Ok(channel) = std::str::from_utf8(channel) else {
            self.hub.drop_message(None, Source::RedisServer, &"the name of the channel is not UTF-8");
            return None;
        };
        // A publisher that uses no prefix means the same channel.
        let name = without_prefix(channel, &self.key_prefix).unwrap_or(channel);
        (name != PRESENCE_UPDATES).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laravels_script_is_recognized_with_any_whitespace() {
        for script in [
            "for i = 2, #ARGV do\n  redis.call('publish', ARGV[i], ARGV[1])\nend",
            "    for i = 2, #ARGV do\r\n      redis.call('publish', ARGV[i], ARGV[1])\r\n    end\r\n",
        ] {
            assert!(is_laravels(script.as_bytes()), "{script}");
        }
        for script in [
            "",
            "return 1",
            "for i = 2, #ARGV do redis.call('publish', ARGV[i], ARGV[1]) end return 1",
            "for i = 2, #ARGV do redis.call('del', ARGV[i], ARGV[1]) end",
        ] {
            assert!(!is_laravels(script.as_bytes()), "{script}");
        }
    }
}
