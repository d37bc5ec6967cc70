//! Events of one channel arrive in one order, whoever sends them.

use std::sync::Arc;

use serde_json::value::to_raw_value;

use super::Recorder;
use super::delays::Told;
use crate::config::Config;
use crate::event::Event;
use crate::hub::{Hub, Socket as _};
use crate::metrics::{Metrics, Source};
use crate::store::memory::MemoryStore;

const EVENTS: usize = 2_000;

/// What each of 40 sockets receives while three threads publish at once.
fn heard(has_recovery: bool) -> Vec<Vec<String>> {
    let mut config = Config::default();
    config.recovery.enabled = has_recovery;
    let hub: Arc<Hub<Recorder>> = Hub::new(&config, Arc::new(Told), Arc::new(MemoryStore::default()), None, Arc::new(Metrics::new()));
    let sockets: Vec<_> = (0..40).map(|n| Recorder::numbered(&format!("1.{n}"))).collect();
    for socket in &sockets {
        hub.connect(socket.clone());
        hub.subscribe(socket.id(), "news", Vec::new());
        socket.take();
    }
    std::thread::scope(|scope| {
        for publisher in 0..3 {
            let hub = &hub;
            scope.spawn(move || {
                for n in 0..EVENTS {
                    let data = to_raw_value(&format!("{publisher}.{n}")).unwrap();
                    let event = Event { channel: "news", name: "sent".into(), data: &data, except: None, user: None };
                    hub.publish(&event, Source::Http);
                }
            });
        }
    });
    sockets.iter().map(|socket| socket.take().into_iter().map(|(_, heard)| heard.data).collect()).collect()
}

#[tokio::test]
async fn everyone_hears_all_publishers_in_one_order() {
    for has_recovery in [true, false] {
        let heard = heard(has_recovery);
        assert_eq!(heard[0].len(), 3 * EVENTS);
        for (socket, other) in heard.iter().enumerate() {
            assert!(*other == heard[0], "socket {socket} heard another order, with recovery {has_recovery}");
        }
    }
}
