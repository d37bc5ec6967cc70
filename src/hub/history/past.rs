//! What a node received before all nodes took a new name, for a node that has just started.
//!
//! Input: the history of a node that was in step. Output: parts that another node adds in front of its own history.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::epochs::Epoch;
use super::{History, Sent};
use crate::clock::milliseconds;
use crate::event::SocketId;

/// The events that a node received before all nodes took a new name, for a node that did not. Numbers are counted back from there.
#[derive(Debug, Serialize, Deserialize)]
struct Past {
    /// Events up to here are missing.
    lost: u64,
    /// The epochs' names, and where each begins and ends.
    epochs: Vec<(u64, u64, u64)>,
}

/// An event of a [`Past`].
#[derive(Debug, Serialize, Deserialize)]
struct PastEvent {
    number: u64,
    channel: String,
    is_flat: bool,
    except: Option<SocketId>,
    /// Milliseconds since it was sent.
    age: u64,
}

impl History {
    /// Whether another node may have events that were sent before this one received anything.
    pub(in crate::hub) fn lacks_past(&self) -> bool {
        let last = self.epochs.epoch();
        if last.is_shared { self.wants_past(last.name) } else { last.lacks_past() }
    }

    /// Whether the events from before all nodes adopted this name are missing here, and only those.
    pub(in crate::hub) fn wants_past(&self, name: u64) -> bool {
        let at = self.epochs.list.iter().rposition(|epoch| epoch.name == name);
        let before = at.and_then(|at| self.epochs.list.get(at.checked_sub(1)?));
        before.is_some_and(|before| before.lacks_past() && before.end.is_some_and(|end| self.lost <= end))
    }

    /// What this node received before all nodes adopted this name, in parts: a [`Past`], and events, each as a line of JSON
    /// followed by its bytes. `None` when this node was out of step with the others then.
    pub(in crate::hub) fn past(&self, name: u64, max_bytes: usize) -> Option<Vec<Vec<u8>>> {
        let at = self.epochs.list.iter().rposition(|epoch| epoch.name == name)?;
        let end = self.epochs.list[at].begin;
        let is_bar = |epoch: &Epoch| !epoch.is_shared && !epoch.is_filled && !epoch.is_empty();
        let first = self.epochs.list.range(..at).rposition(is_bar).map_or(0, |bar| bar + 1);
        let begin = self.lost.max(self.epochs.list.get(first).filter(|_| first < at)?.begin);
        if begin > end {
            return None;
        }
        let (mut lost, mut bytes, mut events) = (begin, 0, Vec::new());
        for sent in self.sent.iter().rev().skip_while(|sent| sent.number > end).take_while(|sent| sent.number > begin) {
            let event = PastEvent {
                number: end - sent.number,
                channel: String::from_utf8_lossy(&sent.channel).into_owned(),
                is_flat: sent.is_flat,
                except: sent.except,
                age: milliseconds(sent.at.elapsed()),
            };
            let mut part = serde_json::to_vec(&event).expect("texts and numbers serialize");
            part.push(b'\n');
            part.extend_from_slice(&sent.frame);
            bytes += part.len();
            if bytes > max_bytes {
                lost = sent.number;
                break;
            }
            events.push(part);
        }
        let epochs = self
            .epochs
            .list
            .range(first..at)
            .filter(|epoch| epoch.is_shared)
            .map(|epoch| (epoch.name, end - epoch.begin, end - epoch.end.unwrap_or(end)));
        let past = Past { lost: end - lost, epochs: epochs.collect() };
        events.push(serde_json::to_vec(&past).expect("numbers serialize"));
        events.reverse();
        Some(events)
    }

    /// Adds what another node received before all adopted this name. `false`: it does not fit what was received here.
    pub(in crate::hub) fn take_up(&mut self, name: u64, parts: &[Vec<u8>]) -> bool {
        let Some(at) = self.epochs.list.iter().rposition(|epoch| epoch.name == name) else { return false };
        let end = self.epochs.list[at].begin;
        let past = parts.split_first().and_then(|(past, events)| Some((serde_json::from_slice::<Past>(past).ok()?, events)));
        // Nothing was missed since, so counted back from the name, this node's messages have the same numbers on both nodes.
        let Some((past, events)) = past.filter(|_| self.wants_past(name)) else { return false };
        self.epochs.list[at - 1].is_filled = true;
        while let Some(own) = self.sent.pop_front_if(|own| own.number <= end) {
            self.bytes -= own.frame.len() as u64;
        }
        let now = Instant::now();
        for part in events.iter().rev() {
            let Some(line) = part.iter().position(|byte| *byte == b'\n') else { return false };
            let Ok(event) = serde_json::from_slice::<PastEvent>(&part[..line]) else { return false };
            let frame = Bytes::copy_from_slice(&part[line + 1..]);
            self.bytes += frame.len() as u64;
            let at = now.checked_sub(Duration::from_millis(event.age)).unwrap_or(now);
            let (number, channel) = (end.saturating_sub(event.number), event.channel.into());
            self.sent.push_front(Sent { number, at, channel, is_flat: event.is_flat, except: event.except, frame });
        }
        for (name, begin, ended) in past.epochs.into_iter().rev() {
            let [begin, ended] = [begin, ended].map(|back| end.saturating_sub(back));
            let mut epoch = Epoch::new(name, begin, true);
            epoch.end = Some(ended);
            self.epochs.list.push_front(epoch);
        }
        self.lost = end.saturating_sub(past.lost);
        self.forget(now);
        true
    }
}
