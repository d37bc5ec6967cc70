//! Closing clients gradually before shutdown. Input: a hub that accepts no more clients. Output: its clients, closed in small
//! groups in random order, so that they do not all reconnect to the other nodes, and authorize with Laravel, at once.

use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom as _;
use tracing::info;

use crate::event::CloseReason;
use crate::hub::{Hub, Socket};

/// Fewer clients than this may all reconnect at once.
const FEW: usize = 100;

/// Time between two groups.
const STEP: Duration = Duration::from_millis(50);

/// Closes all clients over a period of `time`; returns at once, without closing any, when there are few.
pub(crate) async fn drain<S: Socket>(hub: &Arc<Hub<S>>, time: Duration) {
    let mut sockets = Vec::new();
    hub.each_socket(|socket| sockets.push(socket.clone()));
    if sockets.len() < FEW || time < STEP {
        return;
    }
    info!(clients = sockets.len(), ?time, "draining clients");
    sockets.shuffle(&mut rand::rng());
    let steps = usize::try_from(time.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX);
    let mut clock = tokio::time::interval(STEP);
    for group in sockets.chunks(sockets.len().div_ceil(steps)) {
        clock.tick().await;
        hub.hand_over(group).await;
        for socket in group {
            hub.end(socket, CloseReason::ServerShutdown);
            socket.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::config::Config;
    use crate::hub::tests::{Nobody, Recorder};
    use crate::metrics::Metrics;

    async fn drained(clients: usize, time: Duration) -> (usize, Duration) {
        let config = Config::default();
        let hub = Hub::new(&config, Arc::new(Nobody), crate::store::open(&config).await.unwrap(), None, Arc::new(Metrics::new()));
        for n in 0..clients {
            hub.connect(Recorder::numbered(&format!("1.{n}")));
        }
        let started = Instant::now();
        drain(&hub, time).await;
        (hub.connections(), started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn many_clients_go_in_groups_and_few_are_left_to_the_end() {
        let second = Duration::from_secs(1);
        assert_eq!(drained(99, 5 * second).await, (99, Duration::ZERO));
        let (left, time) = drained(1000, 5 * second).await;
        assert_eq!(left, 0);
        assert!((4 * second..=5 * second).contains(&time), "{time:?}");
        assert_eq!(drained(1000, Duration::ZERO).await, (1000, Duration::ZERO));
    }
}
