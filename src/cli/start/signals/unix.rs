//! Unix: SIGTERM, SIGINT and SIGHUP; and SIGCHLD, for process 1 of a container.

use std::io;
use std::path::Path;

use anyhow::Context as _;
use rustix::process::{Pid, WaitOptions, getpid, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::SignalAction;

/// Reaps zombies if the server is process 1 of a container, which inherits orphaned processes, such as those that a health
/// check leaves behind. The server has no children of its own.
pub(in crate::cli::start) fn reap_orphans() -> anyhow::Result<Option<JoinHandle<()>>> {
    if getpid() != Pid::INIT {
        return Ok(None);
    }
    let mut ended = signal(SignalKind::child()).context("listening for signals")?;
    Ok(Some(tokio::spawn(async move {
        loop {
            // One signal may stand for several processes, and some may have exited before the first signal.
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            ended.recv().await;
        }
    })))
}

/// The stream of signals.
pub(super) struct Source {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Source {
    pub(super) fn listen(_lock: Option<&Path>) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop,
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.hang_up.recv() => SignalAction::Reload,
        }
    }
}
