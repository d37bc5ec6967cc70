//! Messages from Redis: those of Laravel's broadcaster, and those of other nodes, which have the same form.
//!
//! Input: a channel and a payload. Output: the channel without prefix, and for the hub what may be an event; see [`message_of`].

use std::sync::Arc;

use tracing::{debug, warn};

use crate::cluster::envelope::{MessageError, message_of};
use crate::hub::{Hub, Socket};
use crate::metrics::Source;
use crate::warn_throttled;

/// Passes a message of a channel (without prefix) to the hub. Returns how many sockets it reached.
pub(in crate::ingress) fn receive<S: Socket>(hub: &Arc<Hub<S>>, source: Source, channel: &str, payload: &[u8]) -> usize {
    let received = hub.receive(channel, source, || message_of(channel, payload));
    received.unwrap_or_else(|error| {
        hub.drop_message(Some(channel), source, &error);
        match &error {
            // Other programs may use the same Redis for their own channels.
            MessageError::Malformed(cause) if hub.subscription_count(channel) > 0 => {
                let hint = "Laravel sends {\"event\":…,\"data\":…}: what else publishes to this channel?";
                warn_throttled!(class = 0, key = channel, channel, %cause, hint, "skipped a message for clients: it is not an event");
            }
            MessageError::Malformed(cause) => debug!(channel, %cause, "skipped a message that is not an event"),
            MessageError::Reserved(_) => warn!(channel, %error, "skipped an event; rename it with broadcastAs()"),
        }
        0
    })
}

/// The name of a channel after the prefix; `None` if the channel does not start with it.
///
/// An empty prefix is not compared: with a C library that uses AVX-512, comparing an empty string, which has no memory, takes
/// longer than comparing a hundred bytes.
pub(in crate::ingress) fn without_prefix<'a>(channel: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() { Some(channel) } else { channel.strip_prefix(prefix) }
}
