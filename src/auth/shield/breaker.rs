//! [`Breaker`]: a circuit breaker that notices when a host becomes unavailable, and when it recovers.
//!
//! Input: the results of calls. Output: turns. While it is open, it hands out one probe turn at a time, the first at once
//! and later ones with exponential backoff; all other calls wait for the result.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Consecutive failures after which the breaker opens: fewer could be chance.
const FAILURES: u32 = 10;
/// Backoff after the first probe that fails; doubled after each further one.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Maximum backoff, so that a recovered application is noticed within seconds.
const MAX_BACKOFF: Duration = Duration::from_secs(4);

/// Decides whether calls may be sent.
#[derive(Debug)]
pub(super) struct Breaker {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The host responds; `failures` counts consecutive failures.
    Closed { failures: u32 },
    /// The host is unavailable; until a probe has failed (`is_sure`) it only seems so.
    Open { wait: Duration, probe_at: Instant, is_probing: bool, is_sure: bool },
}

/// Permission to send one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// An ordinary call.
    Normal,
    /// The probe that finds out whether the host is back.
    Probe,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened,
    Closed,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: Mutex::new(State::Closed { failures: 0 }), changed: Notify::new() }
    }
}

impl Breaker {
    pub(super) fn is_open(&self) -> bool {
        matches!(*self.state.lock(), State::Open { .. })
    }

    /// Whether a probe has confirmed the outage, and so it was logged.
    pub(super) fn is_announced(&self) -> bool {
        matches!(*self.state.lock(), State::Open { is_sure: true, .. })
    }

    /// Waits until a call may be sent.
    pub(super) async fn turn(&self) -> Turn {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the state is read, so that no change after it is missed.
            changed.as_mut().enable();
            match self.try_turn(Instant::now()) {
                Ok(turn) => return turn,
                Err(None) => changed.await,
                Err(Some(probe_at)) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(probe_at) => {}
                    }
                }
            }
        }
    }

    /// A turn, or the time to try again; `None` while a probe is in progress.
    fn try_turn(&self, now: Instant) -> Result<Turn, Option<Instant>> {
        match &mut *self.state.lock() {
            State::Closed { .. } => Ok(Turn::Normal),
            State::Open { is_probing: true, .. } => Err(None),
            State::Open { probe_at, .. } if *probe_at > now => Err(Some(*probe_at)),
            State::Open { is_probing, .. } => {
                *is_probing = true;
                Ok(Turn::Probe)
            }
        }
    }

    /// Reports the result of a call. A response to any call shows that the host is available.
    pub(super) fn report(&self, turn: Turn, is_outage: bool) -> Change {
        self.report_at(turn, is_outage, Instant::now())
    }

    fn report_at(&self, turn: Turn, is_outage: bool, now: Instant) -> Change {
        let mut state = self.state.lock();
        let (next, change) = match (*state, is_outage, turn) {
            (State::Closed { .. }, false, _) => (State::Closed { failures: 0 }, Change::None),
            (State::Open { is_sure, .. }, false, _) => (State::Closed { failures: 0 }, if is_sure { Change::Closed } else { Change::None }),
            (State::Closed { failures }, true, _) if failures + 1 < FAILURES => (State::Closed { failures: failures + 1 }, Change::None),
            (State::Closed { .. }, true, _) => {
                // A client's own requests may have caused the failures; the server's probe finds out.
                (State::Open { wait: FIRST_WAIT / 2, probe_at: now, is_probing: false, is_sure: false }, Change::None)
            }
            (State::Open { wait, is_sure, .. }, true, Turn::Probe) => {
                let wait = (wait * 2).min(MAX_BACKOFF);
                let change = if is_sure { Change::None } else { Change::Opened };
                (State::Open { wait, probe_at: now + wait, is_probing: false, is_sure: true }, change)
            }
            (open @ State::Open { .. }, true, Turn::Normal) => (open, Change::None),
        };
        *state = next;
        drop(state);
        self.changed.notify_waiters();
        change
    }

    /// A call was cancelled before its result was known. If it was the probe, another call may probe.
    pub(super) fn give_up(&self, turn: Turn) {
        if let (Turn::Probe, State::Open { is_probing, .. }) = (turn, &mut *self.state.lock()) {
            *is_probing = false;
        }
        self.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::default();
        for _ in 1..FAILURES {
            assert_eq!(breaker.report_at(Turn::Normal, true, now), Change::None);
        }
        assert_eq!(breaker.report_at(Turn::Normal, true, now), Change::None);
        assert!(breaker.is_open() && !breaker.is_announced());
        assert_eq!(breaker.try_turn(now), Ok(Turn::Probe));
        assert_eq!(breaker.report_at(Turn::Probe, true, now), Change::Opened);
        breaker
    }

    #[test]
    fn what_one_client_provokes_opens_nothing_for_others() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES {
            breaker.report_at(Turn::Normal, true, now);
        }
        assert_eq!(breaker.try_turn(now), Ok(Turn::Probe), "at once");
        assert_eq!(breaker.report_at(Turn::Probe, false, now), Change::None);
        assert_eq!(breaker.try_turn(now), Ok(Turn::Normal));
    }

    #[test]
    fn an_answer_in_between_keeps_it_closed() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..100 {
            breaker.report_at(Turn::Normal, true, now);
            breaker.report_at(Turn::Normal, false, now);
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn one_probe_at_a_time_with_growing_waits() {
        let now = Instant::now();
        let breaker = opened(now);
        assert_eq!(breaker.try_turn(now), Err(Some(now + FIRST_WAIT)));
        let then = now + FIRST_WAIT;
        assert_eq!(breaker.try_turn(then), Ok(Turn::Probe));
        assert_eq!(breaker.try_turn(then), Err(None));
        assert_eq!(breaker.report_at(Turn::Probe, true, then), Change::None);
        assert_eq!(breaker.try_turn(then), Err(Some(then + FIRST_WAIT * 2)));
        let later = then + FIRST_WAIT * 2;
        assert_eq!(breaker.try_turn(later), Ok(Turn::Probe));
        assert_eq!(breaker.report_at(Turn::Probe, false, later), Change::Closed);
        assert_eq!(breaker.try_turn(later), Ok(Turn::Normal));
    }

    #[test]
    fn a_probe_taken_back_leaves_its_turn_to_another() {
        let now = Instant::now();
        let breaker = opened(now);
        let then = now + FIRST_WAIT;
        breaker.give_up(breaker.try_turn(then).unwrap());
        assert_eq!(breaker.try_turn(then), Ok(Turn::Probe));
    }
}
