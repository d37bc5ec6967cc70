//! Replaces `systemd.rs` on systems without systemd: there are no passed sockets and no notifications.

use std::net::TcpListener;

use tokio::task::JoinHandle;

/// There are no passed sockets.
pub(super) const fn sockets() -> anyhow::Result<Vec<TcpListener>> {
    Ok(Vec::new())
}

/// Does nothing.
pub(super) const fn notify(_state: &str) {}

/// There is no watchdog.
pub(super) const fn feed_watchdog() -> Option<JoinHandle<()>> {
    None
}
