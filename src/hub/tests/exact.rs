//! One step after the other, on one node: exactly which frames each page receives.
//!
//! A model predicts them: a list for a page that joins, one `joining` when a user's first socket joins, one `leaving` when the
//! last one is gone and its grace is over, and nothing else.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;
use tokio::time::Instant;

use super::delays::{Told, told};
use super::simulation::{ROOMS, config};
use super::walk::{in_paused_time, walks};
use super::{Heard, Recorder};
use crate::hub::{Hub, Socket as _};
use crate::metrics::Metrics;
use crate::store::memory::MemoryStore;

#[derive(Debug, Clone, Copy)]
enum Step {
    Connect,
    /// `None`: the application refuses.
    Subscribe {
        page: usize,
        room: usize,
        user: Option<u32>,
    },
    Unsubscribe {
        page: usize,
        room: usize,
    },
    Disconnect {
        page: usize,
    },
    Seconds(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (page, room) = (0..6_usize, 0..ROOMS.len());
    let step = prop_oneof![
        3 => Just(Step::Connect),
        8 => (page.clone(), room.clone(), prop::option::weighted(0.9, 1..4_u32))
            .prop_map(|(page, room, user)| Step::Subscribe { page, room, user }),
        3 => (page.clone(), room).prop_map(|(page, room)| Step::Unsubscribe { page, room }),
        2 => page.prop_map(|page| Step::Disconnect { page }),
        3 => (1..4_u64).prop_map(Step::Seconds),
    ];
    prop::collection::vec(step, 1..80)
}

/// A socket in a channel.
#[derive(Clone)]
struct Entry {
    page: u64,
    user: u32,
    /// The number of its last subscribe, which is the user's data.
    number: u64,
    /// When it leaves; its page has disconnected.
    until: Option<Instant>,
}

impl Entry {
    fn json(&self) -> String {
        format!(r#"{{"user_id":{},"user_info":{}}}"#, self.user, self.number)
    }
}

#[derive(Default)]
struct Model {
    /// In the order of joining.
    rooms: BTreeMap<&'static str, Vec<Entry>>,
    /// What each page is to receive next.
    frames: BTreeMap<u64, Vec<Heard>>,
}

impl Model {
    fn frame(&mut self, page: u64, name: &str, room: &str, data: String) {
        self.frames.entry(page).or_default().push(Heard { name: name.into(), channel: room.into(), data });
    }

    fn tell(&mut self, room: &'static str, name: &str, entry: &Entry) {
        let others = self.rooms.entry(room).or_default().iter().filter(|other| other.until.is_none() && other.page != entry.page);
        for page in others.map(|other| other.page).collect::<Vec<_>>() {
            self.frame(page, name, room, entry.json());
        }
    }

    fn has(&self, room: &str, user: u32) -> bool {
        self.rooms.get(room).is_some_and(|entries| entries.iter().any(|entry| entry.user == user))
    }

    fn join(&mut self, room: &'static str, page: u64, user: u32, number: u64) {
        let is_first = !self.has(room, user);
        let entries = self.rooms.entry(room).or_default();
        let old = entries.iter().position(|entry| entry.page == page).map(|at| entries.remove(at));
        let new = Entry { page, user, number, until: None };
        entries.push(new.clone());
        let mut seen = HashSet::new();
        let newest = entries.iter().rev().filter(|entry| seen.insert(entry.user)).map(Entry::json);
        let list = format!("[{}]", newest.collect::<Vec<_>>().join(","));
        self.frame(page, "presence:subscribed", room, list);
        if let Some(old) = old.filter(|old| !self.has(room, old.user)) {
            self.tell(room, "presence:leaving", &old);
        }
        if is_first {
            self.tell(room, "presence:joining", &new);
        }
    }

    fn leave(&mut self, room: &'static str, page: u64) {
        let entries = self.rooms.entry(room).or_default();
        let Some(at) = entries.iter().position(|entry| entry.page == page) else { return };
        let entry = entries.remove(at);
        if !self.has(room, entry.user) {
            self.tell(room, "presence:leaving", &entry);
        }
    }

    fn disconnect(&mut self, page: u64, grace: Duration) {
        for room in ROOMS {
            let entries = self.rooms.entry(room).or_default();
            if grace.is_zero() {
                self.leave(room, page);
            } else if let Some(entry) = entries.iter_mut().find(|entry| entry.page == page) {
                entry.until = Some(Instant::now() + grace);
            }
        }
        self.frames.remove(&page);
    }

    /// Entries leave when their grace is over.
    fn pass(&mut self) {
        for room in ROOMS {
            let is_over = |entry: &&Entry| entry.until.is_some_and(|until| until <= Instant::now());
            let mut over: Vec<_> = self.rooms.entry(room).or_default().iter().filter(is_over).cloned().collect();
            over.sort_by_key(|entry| (entry.until, entry.number));
            over.iter().for_each(|entry| self.leave(room, entry.page));
        }
    }
}

/// Each channel has an order of its own; there is none between channels.
fn by_room(mut frames: Vec<Heard>) -> Vec<Heard> {
    frames.sort_by(|one, other| one.channel.cmp(&other.channel));
    frames
}

async fn walk(steps: Vec<Step>, grace: Duration) {
    let hub = Hub::new(&config(grace), Arc::new(Told), Arc::new(MemoryStore::default()), None, Arc::new(Metrics::new()));
    let mut model = Model::default();
    let mut pages: Vec<(u64, Recorder)> = Vec::new();
    for (number, step) in (1..).zip(steps) {
        let count = pages.len();
        let one = |page: usize| page.checked_rem(count).map(|at| (at, pages[at].0, pages[at].1.id()));
        match step {
            Step::Connect => {
                let socket = Recorder::numbered(&format!("1.{number}"));
                hub.connect(socket.clone());
                pages.push((number, socket));
            }
            Step::Subscribe { page, room, user } => {
                let Some((_, page, id)) = one(page) else { continue };
                hub.subscribe(id, ROOMS[room], told(user, number, Duration::ZERO));
                match user {
                    Some(user) => model.join(ROOMS[room], page, user, number),
                    None => model.frame(page, "subscription_error", ROOMS[room], "403".into()),
                }
            }
            Step::Unsubscribe { page, room } => {
                let Some((_, page, id)) = one(page) else { continue };
                hub.unsubscribe(id, ROOMS[room]);
                model.leave(ROOMS[room], page);
            }
            Step::Disconnect { page } => {
                let Some((at, page, id)) = one(page) else { continue };
                hub.disconnect(id, crate::event::CloseReason::TransportClose);
                model.disconnect(page, grace);
                pages.remove(at);
            }
            // One second at a time, so that no end of a grace is skipped.
            Step::Seconds(seconds) => {
                for _ in 0..seconds {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    model.pass();
                }
            }
        }
        // Let everything run that needs no waiting.
        tokio::time::sleep(Duration::from_millis(1)).await;
        for (page, socket) in &pages {
            let heard: Vec<Heard> = socket.take().into_iter().map(|(_, heard)| heard).collect();
            let expected = model.frames.remove(page).unwrap_or_default();
            assert_eq!(by_room(heard), by_room(expected), "page {page} after step {number}, {step:?}");
        }
    }
    for room in ROOMS {
        let members = hub.members(&room.into()).await.unwrap();
        let members: Vec<Value> = members.iter().map(|(_, member)| serde_json::from_str(member.json()).unwrap()).collect();
        let truth: Vec<Value> =
            model.rooms.remove(room).unwrap_or_default().iter().map(|e| serde_json::from_str(&e.json()).unwrap()).collect();
        assert_eq!(members, truth, "{room}");
    }
}

proptest! {
    #![proptest_config(walks())]

    #[test]
    fn every_page_hears_what_it_is_to_hear_and_nothing_else(
        grace in prop_oneof![Just(Duration::ZERO), Just(Duration::from_secs(3))], steps in steps(),
    ) {
        in_paused_time(walk(steps, grace));
    }
}
