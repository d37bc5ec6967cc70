//! `start --watch`: a live status line. Input: the server's counters. Output: connections and events in one line, redrawn
//! every second.

use std::time::Duration;

use laravel_echo_server::server::Figures;
use laravel_echo_server::telemetry::StatusLine;

/// Time between two updates.
const EVERY: Duration = Duration::from_secs(1);

/// Redraws the line until the future is dropped.
pub(super) async fn show(figures: impl Fn() -> Figures) {
    let line = StatusLine::default();
    let mut clock = tokio::time::interval(EVERY);
    let mut before = figures().events;
    loop {
        clock.tick().await;
        let now = figures();
        line.draw(&text(now, now.events - before));
        before = now.events;
    }
}

/// `3 connections, 128 events (12/s)`
fn text(Figures { connections, events }: Figures, in_last_second: u64) -> String {
    let clients = if connections == 1 { "connection" } else { "connections" };
    let received = if events == 1 { "event" } else { "events" };
    format!("{connections} {clients}, {events} {received} ({in_last_second}/s)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_agree_with_their_nouns() {
        assert_eq!(text(Figures { connections: 1, events: 1 }, 1), "1 connection, 1 event (1/s)");
        assert_eq!(text(Figures { connections: 0, events: 128 }, 12), "0 connections, 128 events (12/s)");
    }
}
