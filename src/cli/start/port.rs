//! Binds the ports. Input: the settings. Output: a bound server, or an error that says how to resolve the conflict.

use std::io;
use std::time::Duration;

use laravel_echo_server::Server;
use laravel_echo_server::config::Config;
use laravel_echo_server::net::listen::ListenError;
use laravel_echo_server::server::BindError;
use tokio::time::Instant;

use super::systemd;
use crate::cli::program::Program;

/// How long `--force` waits for the ports of the server that it replaced.
const PORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds the server, using sockets passed by systemd if there are any. With `wait`, a port in use is retried for a while.
pub(super) async fn bind(config: Config, wait: bool) -> anyhow::Result<Server> {
    let sockets = systemd::sockets()?;
    if !sockets.is_empty() {
        return Server::bind_to(config, sockets).await.map_err(explained);
    }
    let started = Instant::now();
    loop {
        let error = match Server::bind(config.clone()).await {
            Ok(server) => return Ok(server),
            Err(error) => error,
        };
        let is_taken = refused(&error).is_some_and(|error| error.source.kind() == io::ErrorKind::AddrInUse);
        if !(is_taken && wait && started.elapsed() < PORT_TIMEOUT) {
            return Err(explained(error));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The address that could not be bound, if that is the error.
fn refused(error: &BindError) -> Option<&ListenError> {
    match error {
        BindError::Listen(error) => Some(error),
        _ => None,
    }
}

/// Adds the key that sets the address, and how to fix the error.
fn explained(error: BindError) -> anyhow::Error {
    let Some(ListenError { address, source }) = refused(&error) else { return error.into() };
    let (host, port, host_key, port_key) = (address.shown_host(), address.port, address.host_key, address.port_key);
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            let (other, fix) = match Program::listening_on(port) {
                Some(program) => (program.to_string(), program.how_to_stop()),
                None => ("another program".to_owned(), format!("`ss -ltnp 'sport = :{port}'` shows which one (run it as root)")),
            };
            // A demo has no file to set it in.
            let variable = if port_key == "port" { ", such as LARAVEL_ECHO_SERVER_PORT=6002 before the command" } else { "" };
            anyhow::anyhow!(
                "EADDRINUSE: address already in use: `{port_key}` is {port} on {host}, and {other} has it\n  {fix}\n  \
                 or set another `{port_key}` here{variable}"
            )
        }
        io::ErrorKind::PermissionDenied if port < 1024 => {
            anyhow::anyhow!("EACCES: `{port_key}` is {port}, and ports below 1024 need root or CAP_NET_BIND_SERVICE")
        }
        io::ErrorKind::AddrNotAvailable => {
            let all = if host_key == "host" { ", or none for all of them" } else { "" };
            anyhow::anyhow!("EADDRNOTAVAIL: `{host_key}` is {host}, expected an address of this machine{all}")
        }
        _ => anyhow::anyhow!("`{host_key}` is {host} and `{port_key}` is {port}, and listening there failed: {source}"),
    }
}
