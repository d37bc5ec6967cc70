//! systemd integration: readiness, the watchdog, and sockets passed by systemd.
//!
//! Input: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `LISTEN_FDS` in the environment. Output: messages to the service manager,
//! and listeners. Without those variables nothing happens.

use std::ffi::{OsStr, OsString};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use anyhow::Context as _;
use listenfd::ListenFd;
use tokio::task::JoinHandle;

/// The sockets of a `.socket` unit, in its order: the first for `port`, the second for `httpPort`.
pub(super) fn sockets() -> anyhow::Result<Vec<TcpListener>> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..given.len() {
        let socket =
            given.take_tcp_listener(index).with_context(|| format!("socket {index} of LISTEN_FDS is not a listening TCP socket"))?;
        sockets.extend(socket);
    }
    Ok(sockets)
}

/// Sends a state such as `READY=1` to the service manager. The server works without it, so a failure is only a
/// warning.
pub(super) fn notify(state: &str) {
    if let Some(address) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&address, state)
    {
        tracing::warn!(%error, "cannot send `{state}` to the service manager");
    }
}

/// Implemented here because sd-notify 0.5 does not support abstract sockets (`@name`).
fn send(address: &OsStr, state: &str) -> std::io::Result<()> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

/// Notifies the watchdog, if there is one. When the runtime is stuck, the notifications stop and systemd restarts the server.
pub(super) fn feed_watchdog() -> Option<JoinHandle<()>> {
    let interval = interval(std::env::var_os("WATCHDOG_USEC"), std::env::var_os("WATCHDOG_PID"))?;
    Some(tokio::spawn(async move {
        let mut clock = tokio::time::interval(interval / 2);
        loop {
            clock.tick().await;
            notify("WATCHDOG=1");
        }
    }))
}

/// The watchdog's timeout, if it watches this process.
fn interval(microseconds: Option<OsString>, process: Option<OsString>) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    if process.is_some_and(|process| number(process) != Some(u64::from(std::process::id()))) {
        return None;
    }
    microseconds.and_then(number).filter(|&time| time > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_sockets_of_both_kinds() {
        let path = std::env::temp_dir().join(format!("echo-notify-{}", std::process::id()));
        let named = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        let name = format!("echo-notify-{}", std::process::id());
        let hidden = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1").unwrap();
        for socket in [named, hidden] {
            let mut message = [0; 16];
            let length = socket.recv(&mut message).unwrap();
            assert_eq!(&message[..length], b"READY=1");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.as_os_str(), "READY=1").is_err());
    }

    #[test]
    fn the_watchdog_of_another_process_is_left_alone() {
        let text = |number: u32| Some(OsString::from(number.to_string()));
        let two_seconds = text(2_000_000);
        assert_eq!(interval(two_seconds.clone(), None), Some(Duration::from_secs(2)));
        assert_eq!(interval(two_seconds.clone(), text(std::process::id())), Some(Duration::from_secs(2)));
        assert_eq!(interval(two_seconds, text(1)), None);
        assert_eq!(interval(None, None), None);
        assert_eq!(interval(text(0), None), None);
    }
}
