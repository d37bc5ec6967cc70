//! What was sent lately, for those who come back: events in the order of their delivery, in the bytes that went out.
//!
//! Input: events as they are sent. Output: those that a client missed, all or none. An offset is `<epoch>-<number>`: the
//! epoch is this process's, so that offsets of another one are known as such.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::channel::ChannelName;
use crate::config::RecoveryConfig;
use crate::event::SocketId;

/// A place in the order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// Which process counts.
    pub epoch: u32,
    /// The number of the event.
    pub number: u64,
}

impl Offset {
    fn parse(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once('-')?;
        Some(Self { epoch: u32::from_str_radix(epoch, 16).ok()?, number: number.parse().ok()? })
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}", self.epoch, self.number)
    }
}

/// An event that was sent.
#[derive(Debug)]
struct Sent {
    number: u64,
    at: Instant,
    channel: ChannelName,
    /// It went to everyone, whatever the channels.
    is_flat: bool,
    except: Option<SocketId>,
    frame: Bytes,
}

/// What was sent lately.
#[derive(Debug)]
pub(super) struct History {
    epoch: u32,
    /// Of the newest event.
    number: u64,
    sent: VecDeque<Sent>,
    bytes: u64,
    window: Duration,
    max_events: usize,
    max_bytes: u64,
}

impl History {
    pub(super) fn new(config: &RecoveryConfig) -> Self {
        Self {
            epoch: rand::random(),
            number: 0,
            sent: VecDeque::new(),
            bytes: 0,
            window: config.window.0,
            max_events: usize::try_from(config.events).unwrap_or(usize::MAX),
            max_bytes: config.bytes.0,
        }
    }

    /// The place of the newest event.
    pub(super) const fn newest(&self) -> Offset {
        Offset { epoch: self.epoch, number: self.number }
    }

    /// The place of the next event.
    pub(super) const fn next(&mut self) -> Offset {
        self.number += 1;
        self.newest()
    }

    /// Keeps an event that is sent with [`Self::next`].
    pub(super) fn keep(&mut self, channel: ChannelName, is_flat: bool, except: Option<SocketId>, frame: Bytes) {
        self.bytes += frame.len() as u64;
        self.sent.push_back(Sent { number: self.number, at: Instant::now(), channel, is_flat, except, frame });
        self.forget();
    }

    fn forget(&mut self) {
        let now = Instant::now();
        while let Some(oldest) = self.sent.front() {
            let is_kept = self.sent.len() <= self.max_events && self.bytes <= self.max_bytes && now - oldest.at <= self.window;
            if is_kept {
                break;
            }
            self.bytes -= oldest.frame.len() as u64;
            self.sent.pop_front();
        }
    }

    /// The number in an offset that a client brings; `None` when it is another process's, or none.
    pub(super) fn position(&self, offset: &str) -> Option<u64> {
        let offset = Offset::parse(offset)?;
        (offset.epoch == self.epoch && offset.number <= self.number).then_some(offset.number)
    }

    /// What came after `position`, for a socket that is in these channels: each with the number from which on. `None`: some
    /// of it is not kept any more.
    pub(super) fn missed(&mut self, position: u64, socket: SocketId, since: impl Fn(&ChannelName) -> Option<u64>) -> Option<Vec<Bytes>> {
        self.forget();
        let oldest = self.sent.front().map_or(self.number + 1, |sent| sent.number);
        if oldest > position + 1 {
            return None;
        }
        let is_missed = |sent: &&Sent| {
            let is_for = sent.is_flat || since(&sent.channel).is_some_and(|since| sent.number > since);
            sent.except != Some(socket) && is_for
        };
        let first = self.sent.partition_point(|sent| sent.number <= position);
        Some(self.sent.range(first..).filter(is_missed).map(|sent| sent.frame.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::{ByteSize, Seconds};

    fn history(events: u64, bytes: u64) -> History {
        History::new(&RecoveryConfig {
            events,
            bytes: ByteSize(bytes),
            window: Seconds(Duration::from_secs(60)),
            ..RecoveryConfig::default()
        })
    }

    fn send(history: &mut History, channel: &str, except: Option<SocketId>) -> Offset {
        let offset = history.next();
        history.keep(channel.into(), false, except, Bytes::from(offset.number.to_string()));
        offset
    }

    const SOCKET: SocketId = SocketId::new(1, 1);

    #[tokio::test(start_paused = true)]
    async fn what_was_missed_comes_once_and_only_from_own_channels() {
        let mut history = history(100, 1000);
        let first = send(&mut history, "a", None);
        send(&mut history, "b", None);
        send(&mut history, "late", None);
        send(&mut history, "a", Some(SOCKET));
        send(&mut history, "late", None);
        let position = history.position(&first.to_string()).unwrap();
        let since = |channel: &ChannelName| match channel.as_str() {
            "a" => Some(0),
            "late" => Some(3),
            _ => None,
        };
        assert_eq!(history.missed(position, SOCKET, since).unwrap(), ["5"]);
        assert_eq!(history.missed(0, SOCKET, since).unwrap(), ["1", "5"]);
        assert_eq!(history.missed(5, SOCKET, since).unwrap(), [""; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn never_a_part() {
        let mut history = history(2, 1000);
        for _ in 0..3 {
            send(&mut history, "a", None);
        }
        assert!(history.missed(0, SOCKET, |_| Some(0)).is_none());
        assert_eq!(history.missed(1, SOCKET, |_| Some(0)).unwrap().len(), 2);
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(history.missed(1, SOCKET, |_| Some(0)).is_none());
        assert_eq!(history.missed(3, SOCKET, |_| Some(0)).unwrap().len(), 0);
        let mut small = self::history(100, 2);
        for _ in 0..3 {
            send(&mut small, "a", None);
        }
        assert!(small.missed(0, SOCKET, |_| Some(0)).is_none());
    }

    #[test]
    fn offsets_of_others_are_none() {
        let mut history = history(2, 1000);
        let own = send(&mut history, "a", None);
        assert_eq!(history.position(&own.to_string()), Some(1));
        let other = Offset { epoch: own.epoch.wrapping_add(1), number: 1 };
        for offset in ["", "-", "1", "x-1", "1-x", &other.to_string(), &Offset { number: 2, ..own }.to_string(), "9-99999999999999999999"] {
            assert_eq!(history.position(offset), None, "{offset}");
        }
    }
}
