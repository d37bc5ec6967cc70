//! Takes the port. Input: the settings. Output: a bound server, or what to do about the port.

use std::io;
use std::time::Duration;

use laravel_echo_server::Server;
use laravel_echo_server::config::Config;
use tokio::time::Instant;

use super::systemd;

/// How long `--force` waits for the port of the server it replaced.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds the server, to the sockets of systemd if it has opened some; with `wait`, a port that is still taken is tried again for a while.
pub(super) async fn bind(config: Config, wait: bool) -> anyhow::Result<Server> {
    let sockets = systemd::sockets()?;
    if !sockets.is_empty() {
        return Ok(Server::bind_to(config, sockets).await?);
    }
    let (host, port) = (config.host.clone().unwrap_or_else(|| "all addresses".to_owned()), config.port.0);
    let started = Instant::now();
    loop {
        let error = match Server::bind(config.clone()).await {
            Ok(server) => return Ok(server),
            Err(error) => anyhow::Error::new(error),
        };
        match kind(&error) {
            Some(io::ErrorKind::AddrInUse) if wait && started.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
            Some(io::ErrorKind::AddrInUse) => {
                anyhow::bail!(
                    "EADDRINUSE: address already in use: `port` is {port}, and another program listens there on {host}\n  \
                     `ss -ltnp 'sport = :{port}'` shows which one; stop it (`laravel-echo-server stop` if it is ours) or set another `port`"
                );
            }
            Some(io::ErrorKind::PermissionDenied) if port < 1024 => {
                anyhow::bail!("EACCES: `port` is {port}, and ports below 1024 need root or CAP_NET_BIND_SERVICE");
            }
            Some(io::ErrorKind::AddrNotAvailable) => {
                anyhow::bail!("EADDRNOTAVAIL: `host` is {host}, expected an address of this machine, or none for all of them");
            }
            _ => return Err(error),
        }
    }
}

/// The kind of the I/O error behind it, if there is one.
fn kind(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)
}
