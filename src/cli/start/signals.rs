//! What ends the server or changes its settings. Input: signals, or on Windows the console and `stop`. Output: one [`SignalAction`] each.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix::Source;
#[cfg(unix)]
pub(super) use unix::reap_orphans;
#[cfg(windows)]
use windows::Source;
#[cfg(windows)]
pub(super) use windows::reap_orphans;

/// Exit code of a server that was interrupted while it was stopping, as shells number SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// Stop signals this close together are one request: pm2, systemd and a terminal signal both the npm launcher and the
/// server, and the launcher passes its own on.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// SIGTERM, SIGINT, Ctrl-C, a closed console or `stop`: the end.
    Stop,
    /// SIGHUP: the configuration as it is now. Windows has nothing like it.
    Reload,
}

/// The signals of this process, from now on ours.
pub(super) struct Signals {
    source: Source,
    stop_requested: Option<Instant>,
}

impl Signals {
    /// `lock` is the path of the lock file, by which `stop` finds the server on Windows.
    pub(super) fn listen(lock: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self { source: Source::listen(lock).context("listening for signals")?, stop_requested: None })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> SignalAction {
        loop {
            if self.source.next().await == SignalAction::Reload {
                return SignalAction::Reload;
            }
            if self.stop_requested.is_none_or(|since| since.elapsed() >= SAME_REQUEST) {
                self.stop_requested = Some(Instant::now());
                return SignalAction::Stop;
            }
        }
    }

    /// Waits for another request to stop.
    pub(super) async fn stop(&mut self) {
        while self.next().await != SignalAction::Stop {
            tracing::warn!("SIGHUP: the server is stopping and reads no configuration");
        }
    }
}
