//! [`Heartbeat`]: when to ask a client for a sign of life, and when to give it up. No clock of its own: time goes in,
//! decisions come out.

use std::time::Duration;

use tokio::time::Instant;

use super::version::EngineVersion;

/// The heartbeat of one client. With Engine.IO 3 the client asks and the server answers, with 4 it is the other way
/// round.
#[derive(Debug)]
pub(super) struct Heartbeat {
    version: EngineVersion,
    interval: Duration,
    timeout: Duration,
    due: Instant,
    is_asked: bool,
}

/// What is to be done now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing before [`Heartbeat::due`].
    Wait,
    /// Ask for a sign of life.
    Ask,
    /// The client is gone.
    Dead,
}

impl Heartbeat {
    /// A client that has just connected.
    pub(super) fn new(version: EngineVersion, interval: Duration, timeout: Duration, now: Instant) -> Self {
        let mut heartbeat = Self { version, interval, timeout, due: now, is_asked: true };
        heartbeat.heard(now);
        heartbeat
    }

    /// The client has shown a sign of life.
    pub(super) fn heard(&mut self, now: Instant) {
        match self.version {
            EngineVersion::V3 => self.due = now + self.interval + self.timeout,
            EngineVersion::V4 if self.is_asked => {
                self.is_asked = false;
                self.due = now + self.interval;
            }
            // It will be asked all the same.
            EngineVersion::V4 => {}
        }
    }

    /// Whether the server asks and the client answers.
    pub(super) const fn asks(&self) -> bool {
        matches!(self.version, EngineVersion::V4)
    }

    /// The next time to look at it.
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
    fn newer_clients_are_asked_and_have_to_answer() {
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
    fn older_clients_have_to_ask() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(EngineVersion::V3, INTERVAL, TIMEOUT, start);
        heartbeat.heard(start + INTERVAL);
        assert_eq!(heartbeat.beat(start + INTERVAL + TIMEOUT), Beat::Wait);
        assert_eq!(heartbeat.beat(start + INTERVAL * 2 + TIMEOUT), Beat::Dead);
    }
}
