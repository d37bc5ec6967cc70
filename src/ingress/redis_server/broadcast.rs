//! What the endpoint is for: `PUBLISH`, and the script that Laravel broadcasts with.
//!
//! Input: channels and payloads, where they arrived. Output: events by way of the publisher, the same for those who
//! watch, and the answer.

use super::Shared;
use super::reply::Reply;
use super::script::{Publishes, Script};
use crate::hub::Socket;

impl<S: Socket> Shared<S> {
    /// `PUBLISH`
    pub(super) async fn publish(&self, channel: &[u8], payload: &[u8]) -> Reply {
        match self.deliver(channel, payload).await {
            Ok(count) => Reply::count(count),
            Err(reply) => reply,
        }
    }

    async fn deliver(&self, channel: &[u8], payload: &[u8]) -> Result<usize, Reply> {
        let count = self.publisher.publish(channel, payload).await.map_err(Reply::error)?;
        self.watchers.tell(channel, payload);
        Ok(count)
    }

    /// `EVAL`; `rest` is the number of keys, the keys, and the arguments.
    pub(super) async fn eval(&self, script: &Script, rest: &[&[u8]]) -> Reply {
        let count = std::str::from_utf8(rest[0]).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(count) = count else { return Reply::error("value is not an integer or out of range") };
        if count > rest.len() - 1 {
            return Reply::error("Number of keys can't be greater than number of args");
        }
        let (keys, args) = rest[1..].split_at(count);
        let Publishes { messages, returned } = match script.run(keys, args) {
            Ok(publishes) => publishes,
            Err(error) => return Reply::error(error),
        };
        let mut answer = Reply::Null;
        for (number, (channel, payload)) in messages.iter().enumerate() {
            match self.deliver(channel, payload).await {
                Ok(count) if returned == Some(number) => answer = Reply::count(count),
                Ok(_) => {}
                Err(reply) => return reply,
            }
        }
        answer
    }
}
