//! What the endpoint is for: `PUBLISH`, and the script that Laravel broadcasts with.
//!
//! Input: channels and payloads, where they arrived. Output: events by way of the publisher, and the answer.

use super::Shared;
use super::reply::Reply;
use crate::hub::Socket;

/// What Laravel has sent to several channels at once since 5.8 (`RedisBroadcaster::broadcastMultipleChannelsScript`), without
/// blanks: the payload is the first argument, the others are the channels.
const SCRIPT: &[u8] = b"fori=2,#ARGVdoredis.call('publish',ARGV[i],ARGV[1])end";

/// Whether a script is Laravel's. Forks and versions of it differ in blanks alone.
fn is_laravels(script: &[u8]) -> bool {
    script.iter().filter(|byte| !byte.is_ascii_whitespace()).eq(SCRIPT)
}

impl<S: Socket> Shared<S> {
    /// `PUBLISH`
    pub(super) async fn publish(&self, channel: &[u8], payload: &[u8]) -> Reply {
        match self.publisher.publish(channel, payload).await {
            Ok(count) => Reply::count(count),
            Err(error) => Reply::error(error),
        }
    }

    /// `EVAL`; `rest` is the number of keys, of which Laravel sends none, and the arguments.
    pub(super) async fn eval<'a>(&self, script: &[u8], mut rest: impl Iterator<Item = &'a [u8]>) -> Reply {
        let (keys, payload) = (rest.next(), rest.next());
        let (true, Some(b"0"), Some(payload)) = (is_laravels(script), keys, payload) else {
            return Reply::error("only Laravel's broadcast script runs here; this endpoint stores no data");
        };
        for channel in rest {
            if let refused @ Reply::Error(_) = self.publish(channel, payload).await {
                return refused;
            }
        }
        Reply::Null
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laravels_script_is_known_however_it_is_laid_out() {
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
