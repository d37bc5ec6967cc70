//! [`Heartbeat`]: when to ping a client, and when to give it up. It has no clock of its own: it gets the time and returns
//! decisions.

use std::time::Duration;

use tokio::time::Instant;

use super::version::EngineVersion;

/// The heartbeat of one client. In Engine.IO 3 the client pings and the server answers; in Engine.IO 4 it is the other way
/// round.
#[derive(Debug)]
pub(super) struct Heartbeat {
    version: EngineVersion,
    interval: Duration,
    timeout: Duration,
    due: Instant,
    is_asked: bool,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing before [`Heartbeat::due`].
    Wait,
    /// Send a ping.
    Ask,
    /// The client timed out.
    Dead,
}

impl Heartbeat {
    /// Starts the heartbeat of a client that has just connected.
    pub(super) fn new(version: EngineVersion, interval: Duration, timeout: Duration, now: Instant) -> Self {
        let mut heartbeat = Self { version, interval, timeout, due: now, is_asked: true };
        heartbeat.heard(now);
        heartbeat
    }

    /// The client has sent something.
    pub(super) fn heard(&mut self, now: Instant) {
        match self.version {
            EngineVersion::V3 => self.due = now + self.interval + self.timeout,
            EngineVersion::V4 if self.is_asked => {
                self.is_asked = false;
                self.due = now + self.interval;
            }
            // Any other message does not postpone the next ping.
            EngineVersion::V4 => {}
        }
    }

    /// Whether the server pings and the client answers.
    pub(super) const fn asks(&self) -> bool {
        matches!(self.version, EngineVersion::V4)
    }

    /// When to call [`Self::beat`] next.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn beat(&mut self, now: Instant) -> Beat {
        if now < self.due {
            return Beat::Wait;
        }
        if self.version == EngineVersion::V3 || self.is_asked {
            return Beat::Dead;
        }
        self.is_asked = true;
        self.due = now + self.timeout;
        Beat::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);
    const TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn engine_io_4_clients_are_pinged_and_have_to_answer() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(EngineVersion::V4, INTERVAL, TIMEOUT, start);
        assert_eq!(heartbeat.beat(start + INTERVAL / 2), Beat::Wait);
        heartbeat.heard(start + INTERVAL / 2);
        assert_eq!(heartbeat.due(), start + INTERVAL);
        assert_eq!(heartbeat.beat(start + INTERVAL), Beat::Ask);
        let answered = start + INTERVAL + TIMEOUT / 2;
        heartbeat.heard(answered);
        assert_eq!(heartbeat.beat(answered), Beat::Wait);
        assert_eq!(heartbeat.beat(answered + INTERVAL), Beat::Ask);
        assert_eq!(heartbeat.beat(answered + INTERVAL + TIMEOUT), Beat::Dead);
    }

    #[test]
    fn engine_io_3_clients_have_to_ping() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(EngineVersion::V3, INTERVAL, TIMEOUT, start);
        heartbeat.heard(start + INTERVAL);
        assert_eq!(heartbeat.beat(start + INTERVAL + TIMEOUT), Beat::Wait);
        assert_eq!(heartbeat.beat(start + INTERVAL * 2 + TIMEOUT), Beat::Dead);
    }
}
