//! The signals that end the server. Input: SIGTERM, SIGINT, SIGHUP. Output: one wake-up per wish to stop.

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a server that was interrupted while it was stopping, as shells number SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// The signals of this process, from now on ours.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for SIGTERM or SIGINT. SIGHUP asks for a reload, which takes a restart here; it does not end the server.
    pub(super) async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => tracing::warn!("SIGHUP: the configuration is read at start only; restart the server to apply changes"),
            }
        }
    }
}
