//! What observers are told, and that nothing is created without observers.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::Recorder;
use super::delays::Told;
use crate::config::Config;
use crate::event::{CloseReason, Event};
use crate::hub::{Hub, Observation, Observer, Socket as _, Whisper};
use crate::metrics::{Metrics, Refusal, Source};
use crate::store::memory::MemoryStore;

#[derive(Default)]
struct Diary {
    lines: Mutex<Vec<String>>,
    wants_unheard: bool,
}

impl Diary {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock())
    }
}

impl Observer for Diary {
    fn observe(&self, observation: &Observation<'_>) {
        let line = match observation {
            Observation::Connected { socket } => format!("{socket} connected"),
            Observation::Disconnected { socket, reason } => format!("{socket} disconnected: {}", reason.as_str()),
            Observation::TurnedAway { cause, origin } => format!("turned away from {origin:?}: {cause:?}"),
            Observation::Subscribed { channel, socket, count } => format!("{socket} into {channel}: {count}"),
            Observation::Unsubscribed { channel, socket, reason, count } => format!("{socket} out of {channel}: {count}, {reason}"),
            Observation::Refused { channel, socket, cause, status, .. } => format!("{socket} refused {channel}: {cause:?} {status:?}"),
            Observation::Granted { channel, socket, by, .. } => format!("{socket} granted {channel} by {by:?}"),
            Observation::Joined { channel, member } => format!("{} joined {channel}", member.user()),
            Observation::Left { channel, member } => format!("{} left {channel}", member.user()),
            Observation::Published { event, delivered, has_left_out, .. } => {
                format!("{} to {}: {delivered}, left out {has_left_out}", event.name, event.channel)
            }
            Observation::Dropped { channel, why, .. } => format!("dropped for {channel:?}: {why}"),
            Observation::Whispered { channel, socket, name, .. } => format!("{socket} whispered {name} to {channel}"),
            Observation::Returned { socket, replayed } => format!("{socket} is back, {replayed} replayed"),
            Observation::Afresh { socket } => format!("{socket} starts afresh"),
            Observation::Gap => "a gap".to_owned(),
            Observation::CacheMiss { channel } => format!("nothing in {channel}"),
        };
        self.lines.lock().push(line);
    }

    fn wants_unheard(&self) -> bool {
        self.wants_unheard
    }
}

fn hub() -> Arc<Hub<Recorder>> {
    Hub::new(&Config::default(), Arc::new(Told), Arc::new(MemoryStore::default()), None, Arc::new(Metrics::new()))
}

fn publish(hub: &Arc<Hub<Recorder>>, channel: &str, except: Option<&Recorder>) {
    let except = except.map(Recorder::id);
    hub.publish(&Event { channel, name: "sent".into(), data: RawValue::NULL, except, user: None }, Source::Http);
}

#[tokio::test]
async fn an_observer_hears_the_life_of_a_socket() {
    let hub = hub();
    let diary = Arc::new(Diary::default());
    let observer: Arc<dyn Observer> = diary.clone();
    hub.attach(&observer);
    let (first, second) = (Recorder::numbered("1.1"), Recorder::numbered("2.2"));
    for socket in [&first, &second] {
        hub.connect(socket.clone());
        hub.subscribe(socket.id(), "news", Vec::new());
    }
    assert_eq!(diary.take(), ["1.1 connected", "1.1 into news: 1", "2.2 connected", "2.2 into news: 2"]);
    publish(&hub, "news", Some(&first));
    publish(&hub, "elsewhere", None);
    assert_eq!(diary.take()[0], "sent to news: 1, left out true");
    let whisper = Whisper { channel: "news", event: "client-typing", data: RawValue::NULL, is_binary: false };
    hub.whisper(first.id(), whisper).unwrap_err();
    hub.unsubscribe(first.id(), "news");
    hub.disconnect(second.id(), CloseReason::TransportClose);
    assert_eq!(
        diary.take(),
        [
            "1.1 refused news: Whisper None",
            "1.1 out of news: 1, unsubscribed",
            "2.2 out of news: 0, transport close",
            "2.2 disconnected: transport close"
        ]
    );
    let headers = [(http::header::ORIGIN, "https://other.test".parse().unwrap())].into_iter().collect();
    hub.turned_away(Refusal::Origin, &headers);
    assert_eq!(diary.take(), [r#"turned away from Some("https://other.test"): Origin"#]);
    hub.detach(&observer);
    hub.disconnect(first.id(), CloseReason::TransportClose);
    assert!(diary.take().is_empty());
}

#[tokio::test]
async fn events_for_nobody_are_read_for_those_who_want_them_alone() {
    let hub = hub();
    let diary = Arc::new(Diary { wants_unheard: true, ..Diary::default() });
    let observer: Arc<dyn Observer> = diary.clone();
    hub.attach(&observer);
    for _ in 0..3 {
        publish(&hub, "elsewhere", None);
    }
    assert_eq!(diary.take(), ["sent to elsewhere: 0, left out false"; 3]);
}
