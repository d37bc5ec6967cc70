//! Client events ("whispers"): from one socket of a guarded channel to the others in it.

use std::sync::Arc;

use serde_json::value::RawValue;
use tracing::debug;

use super::rules::Rule;
use super::subscribe::shown;
use super::{Hub, Observation, Socket};
use crate::channel::ChannelKind;
use crate::config::Whispers;
use crate::event::{Event, SocketId};
use crate::metrics::Refusal;
use crate::warn_throttled;

/// A client event as it came from a socket.
#[derive(Debug, Clone, Copy)]
pub struct Whisper<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The event's name, `client-…`.
    pub event: &'a str,
    /// Its data.
    pub data: &'a RawValue,
    /// Parts of the data are not in it, but in binary attachments.
    pub is_binary: bool,
}

/// Whether an event with this name is a client event.
pub(super) fn is_whisper(name: &str) -> bool {
    name.starts_with("client-")
}

impl<S: Socket> Hub<S> {
    /// Relays a client event to the others in its channel. An event that breaks a rule is dropped and counted.
    ///
    /// Compat: the name must start with `client-`. The original accepts any name that contains it
    /// (`src/channels/channel.ts:97`), which lets a client imitate events of the application.
    ///
    /// # Errors
    /// [`Refusal`] with the rule that the whisper breaks.
    pub fn whisper(self: &Arc<Self>, from: SocketId, whisper: Whisper<'_>) -> Result<(), Refusal> {
        let Whisper { channel, event, data, .. } = whisper;
        let rules = self.rules.load();
        let rule = rules.of(channel);
        let done = self.judge_whisper(from, whisper, &rule).and_then(|user| {
            let relayed = Event { channel, name: event.into(), data, except: Some(from), user: user.as_deref().map(Into::into) };
            if !self.relay(&relayed, &rule) {
                return Err(Refusal::WhisperQueue);
            }
            self.observers.tell(|| Observation::Whispered { channel, socket: from, name: event, data, user: user.as_deref() });
            Ok(())
        });
        match done {
            Ok(()) => {
                self.metrics.whispers.inc();
            }
            Err(cause) => {
                // Cut, because the names of refused whispers have no maximum length, and their number has no limit.
                let (channel, event) = (shown(channel), shown(event));
                self.metrics.refusal(cause);
                self.observers.tell(|| Observation::Refused { channel, socket: from, cause, status: None, reason: None });
                debug!(socket_id = %from, channel, event, ?cause, "whisper dropped");
                let hint = match cause.limit() {
                    Some(key) => Some(format!("a whisper exceeds `{key}`: raise it if the page is not at fault")),
                    None if cause == Refusal::Whisper && whisper.is_binary => {
                        Some("whispers with binary data are not relayed: send it as text, for example in base64".to_owned())
                    }
                    None if cause == Refusal::Whisper && rule.behaviour.whispers == Whispers::Off => {
                        Some("`whispers` is \"off\" in the rule of this channel in `[[channels]]`".to_owned())
                    }
                    None if cause == Refusal::Whisper && !rule.is_guarded() => {
                        Some("whispers go through private and presence channels alone".to_owned())
                    }
                    None => None,
                };
                if let Some(hint) = hint {
                    self.tell_of_limit(from, channel, cause, &hint);
                }
            }
        }
        done
    }

    /// Returns the sender's user, in presence channels and where whispers are stamped.
    fn judge_whisper(&self, from: SocketId, whisper: Whisper<'_>, rule: &Rule<'_>) -> Result<Option<Arc<str>>, Refusal> {
        let limits = self.limits.load();
        let has_name = is_whisper(whisper.event) && whisper.event.len() as u64 <= limits.event_name;
        if !has_name || !rule.is_guarded() || rule.behaviour.whispers == Whispers::Off {
            return Err(Refusal::Whisper);
        }
        let session = self.session(from).ok_or(Refusal::Whisper)?;
        // Compat: the original relays attachments. Neither Pusher's protocol nor the other nodes' Redis messages have a place for them.
        if !session.is_in(whisper.channel) || whisper.is_binary {
            return Err(Refusal::Whisper);
        }
        if whisper.data.get().len() as u64 > limits.whisper_bytes {
            return Err(Refusal::WhisperSize);
        }
        if !session.socket.allowance().may_whisper() {
            return Err(Refusal::WhisperRate);
        }
        if rule.kind() != ChannelKind::Presence && !rule.stamps() {
            return Ok(None);
        }
        // A socket that has joined, but whose grant is not stored yet, would appear without a user.
        let user = session.state().user_in(whisper.channel).ok_or(Refusal::Whisper)?;
        if user.is_none() {
            let (channel, hint) = (whisper.channel, "let the callback in routes/channels.php return an array instead of true");
            warn_throttled!(
                class = 0,
                key = channel,
                channel,
                hint,
                "a whisper is stamped with null: its sender's grant does not name the user"
            );
        }
        Ok(user)
    }
}
