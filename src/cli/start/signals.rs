//! The signals that end the server or change its settings. Input: SIGTERM, SIGINT, SIGHUP. Output: one [`Wish`] each.
//!
//! And SIGCHLD, for process 1 of a container.

use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, WaitOptions, getpid, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Exit code of a server that was interrupted while it was stopping, as shells number SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// Stop signals this close together are one request: pm2, systemd and a terminal signal both the npm launcher and the
/// server, and the launcher passes its own on.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// SIGTERM or SIGINT: the end.
    Stop,
    /// SIGHUP: the configuration as it is now.
    Reload,
}

/// As process 1 the server gets the orphans of a container, such as what a health check leaves behind, and nobody else
/// takes away those that have ended. It has no children of its own.
pub(super) fn reap_orphans() -> anyhow::Result<Option<JoinHandle<()>>> {
    if getpid() != Pid::INIT {
        return Ok(None);
    }
    let mut ended = signal(SignalKind::child()).context("listening for signals")?;
    Ok(Some(tokio::spawn(async move {
        loop {
            // One signal may stand for many, and some may have ended before the first.
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            ended.recv().await;
        }
    })))
}

/// The signals of this process, from now on ours.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    stop_requested: Option<Instant>,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            stop_requested: None,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Wish {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
                _ = self.hang_up.recv() => return Wish::Reload,
            }
            if self.stop_requested.is_none_or(|since| since.elapsed() >= SAME_REQUEST) {
                self.stop_requested = Some(Instant::now());
                return Wish::Stop;
            }
        }
    }

    /// Waits for SIGTERM or SIGINT.
    pub(super) async fn stop(&mut self) {
        while self.next().await != Wish::Stop {
            tracing::warn!("SIGHUP: the server is stopping and reads no configuration");
        }
    }
}
