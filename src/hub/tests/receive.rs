//! Messages from Redis: which of them are parsed, and which sockets they reach.

use std::cell::Cell;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::Recorder;
use super::delays::Told;
use crate::config::Config;
use crate::event::{Event, Origin};
use crate::hub::{Hub, Socket as _};
use crate::metrics::{Metrics, Source};
use crate::store::memory::MemoryStore;

fn hub(change: impl FnOnce(&mut Config)) -> Arc<Hub<Recorder>> {
    let mut config = Config::default();
    change(&mut config);
    Hub::new(&config, Arc::new(Told), Arc::new(MemoryStore::default()), None, Arc::new(Metrics::new()))
}

/// Receives messages of one channel: how many sockets each reached, and how many messages were parsed.
fn receive(hub: &Arc<Hub<Recorder>>, channel: &str, messages: usize) -> (Vec<usize>, usize) {
    let read = Cell::new(0);
    let receive = |_| {
        let event = Event { channel, name: "sent".into(), data: RawValue::NULL, except: None, user: None };
        let reading = || {
            read.set(read.get() + 1);
            Ok::<_, ()>((event, Origin::Application))
        };
        hub.receive(channel, Source::Redis, reading).unwrap()
    };
    let reached = (0..messages).map(receive).collect();
    (reached, read.get())
}

fn counted(hub: &Hub<Recorder>, outcome: &str) -> String {
    let name = format!("laravel_echo_events_received_total{{source=\"redis\",outcome=\"{outcome}\"}} ");
    let text = hub.metrics().render(std::iter::empty());
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().to_owned()
}

#[tokio::test]
async fn of_what_nobody_waits_for_a_sample_is_read() {
    let hub = hub(|_| {});
    assert_eq!(receive(&hub, "news", 100), (vec![0; 100], 1));
    assert_eq!(counted(&hub, "no_subscribers"), "100");
    let somebody = Recorder::numbered("123.456");
    hub.connect(somebody.clone());
    hub.subscribe(somebody.id(), "news", Vec::new());
    assert_eq!(receive(&hub, "news", 3), (vec![1; 3], 3));
    assert_eq!(counted(&hub, "delivered"), "3");
    assert_eq!(somebody.take().len(), 3);
}

#[tokio::test]
async fn in_flat_mode_everyone_waits_for_public_events() {
    let hub = hub(|config| config.flat_channels = vec!["*".to_owned()]);
    assert_eq!(receive(&hub, "news", 2), (vec![0; 2], 1));
    hub.connect(Recorder::numbered("123.456"));
    assert_eq!(receive(&hub, "news", 2), (vec![1; 2], 2));
    // Both channels may share one slot, and so one sample.
    let (reached, read) = receive(&hub, "private-news", 2);
    assert!(reached == [0, 0] && read <= 1, "{read}");
}

#[tokio::test]
async fn what_is_sampled_and_no_event_is_told() {
    let hub = hub(|_| {});
    let broken = || Err::<(Event<'_>, _), _>("no event");
    assert_eq!(hub.receive("news", Source::Redis, broken), Err("no event"));
    assert_eq!(hub.receive("news", Source::Redis, broken), Ok(0));
}
