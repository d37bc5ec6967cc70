//! Signals that stop the server or reload its settings. Input: signals; on Windows, console events and `stop`. Output: [`SignalAction`]s.

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

/// The exit code of a server that was interrupted while stopping: 128 + SIGINT, as in shells.
pub(super) const INTERRUPTED: u8 = 130;

/// Stop signals within this time count as one request: pm2, systemd and terminals signal both the npm launcher and the
/// server, and the launcher forwards its signal.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// SIGTERM, SIGINT, Ctrl-C, a closed console or `stop`: shut down.
    Stop,
    /// SIGHUP: reload the configuration. Windows has no equivalent.
    Reload,
}

/// Receives the signals of this process, instead of their default actions.
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
            tracing::warn!("SIGHUP ignored: the server is stopping");
        }
    }
}
