//! Checks of this machine: the ports, the certificate files, the limit of open files.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use laravel_echo_server::config::load::Loaded;
use laravel_echo_server::config::{Config, Protocol};
use laravel_echo_server::net::tls::{Tls, Untimely};
use laravel_echo_server::server::listen::{Address, ListenError};

use super::report::Report;
use crate::cli::lock_file::{self, Found};
use crate::cli::program::Program;
use crate::cli::start::machine::{OWN_FILES, most_open_files};

/// What to do about a certificate at the end of its time.
const RENEW: &str =
    "renew it, for instance with `certbot renew`, or correct this machine's clock; a running server takes changed files by itself";

/// Timeout for a response from the server on the port.
const ANSWER: Duration = Duration::from_secs(3);

/// Checks that each port is free, or used by this server.
pub(super) async fn ports(loaded: &Loaded, report: &mut Report) {
    let config = &loaded.config;
    let main = Address::main(config);
    let port = main.port;
    let mut is_running = false;
    match main.bind().await {
        Ok(_) => report.ok("port", format!("{port} is free: no server is running, `laravel-echo-server start` starts one")),
        Err(error) if is_taken(&error) && is_echo_server(config).await => {
            is_running = true;
            served(loaded, port, report);
        }
        Err(error) => port_problem(&error, report),
    }
    let redis_server = config.redis_server.enabled.then(|| Address::redis_server(config));
    for address in [Address::http(config), Address::metrics(config), redis_server].into_iter().flatten() {
        let (port, key) = (address.port, address.port_key);
        match address.bind().await {
            Ok(_) if is_running => {
                report.warning("port", format!("{port} (`{key}`) is free, but the server is running"), "restart it to apply this config");
            }
            Ok(_) => report.ok("port", format!("{port} (`{key}`) is free")),
            Err(error) if is_taken(&error) && is_running => report.ok("port", format!("{port} (`{key}`) is in use by the server")),
            Err(error) => port_problem(&error, report),
        }
    }
}

fn is_taken(error: &ListenError) -> bool {
    error.source.kind() == io::ErrorKind::AddrInUse
}

fn port_problem(error: &ListenError, report: &mut Report) {
    let ListenError { address, source } = error;
    let (port, port_key, host_key) = (address.port, address.port_key, address.host_key);
    if is_taken(error) {
        let what = if port_key == "port" { "a program other than laravel-echo-server" } else { "another program" };
        let fix = format!("`ss -ltnp 'sport = :{port}'` shows which one; stop it, or set another `{port_key}`");
        report.problem("port", format!("{port} (`{port_key}`) is in use by {what}"), fix);
    } else if source.kind() == io::ErrorKind::PermissionDenied {
        // The server may run as another user, with that permission.
        let fix = "ports below 1024 need root or CAP_NET_BIND_SERVICE, which the systemd unit grants; or set another one";
        report.warning("port", format!("this user cannot test {port} (`{port_key}`)"), fix);
    } else {
        report.problem("port", format!("{error}: {source}"), format!("set `{host_key}` to an address of this machine"));
    }
}

/// Whether `GET /` answers `OK`, as this server and the original do.
async fn is_echo_server(config: &Config) -> bool {
    let scheme = if config.protocol == Protocol::Https { "https" } else { "http" };
    let host = config.host.as_deref().unwrap_or("127.0.0.1");
    let address =
        host.parse::<IpAddr>().map_or_else(|_| format!("{host}:{}", config.port), |ip| SocketAddr::new(ip, config.port).to_string());
    // The certificate is for the server's public name, not for this address.
    let client = reqwest::Client::builder().timeout(ANSWER).tls_danger_accept_invalid_certs(true).build();
    let Ok(client) = client else { return false };
    match client.get(format!("{scheme}://{address}/")).send().await {
        Ok(response) => response.text().await.is_ok_and(|body| body == "OK"),
        Err(_) => false,
    }
}

/// A laravel-echo-server has the port: the one of this config, or one in whose way `start` would be.
fn served(loaded: &Loaded, port: u16, report: &mut Report) {
    let program = Program::listening_on(port);
    let shown = program.as_ref().map_or_else(|| "a laravel-echo-server".to_owned(), Program::to_string);
    let Some(lock) = loaded.path.as_deref().map(lock_file::beside) else {
        return report.ok("port", format!("{port} is served by {shown}"));
    };
    let holder = match lock_file::look(&lock) {
        Ok(Found::Held(holder)) => Some(holder),
        _ => None,
    };
    let process = holder.as_ref().and_then(|holder| holder.process);
    match program {
        // Its lock is elsewhere, so it is of another config.
        Some(program) if program.keeps_lock_beside_config() && process != Some(program.process) => report.problem(
            "port",
            format!("{port} is served by {program}, which runs with another config: `start` with this one fails with EADDRINUSE"),
            format!("{}; or set another `port` here", program.how_to_stop()),
        ),
        _ if holder.is_some() => {
            let process = process.map_or_else(String::new, |process| format!(" (process {process})"));
            report.ok("port", format!("{port} is served by the server of this config{process}"));
        }
        // One without a lock has nothing to tell it by.
        _ => report.ok("port", format!("{port} is served by {shown}; without a lock file it is not known with which config")),
    }
}

/// Checks that certificate and key can be used.
pub(super) fn certificate(config: &Config, report: &mut Report) {
    match Tls::new(config) {
        Ok(Some(tls)) => match tls.untimely() {
            Some(Untimely::Now(text)) => report.problem("tls", text, RENEW),
            Some(Untimely::Soon(text)) => report.warning("tls", text, RENEW),
            None => report.ok("tls", format!("{} and {} match", config.ssl_cert_path, config.ssl_key_path)),
        },
        Ok(None) => {}
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            report.problem("tls", format!("{error}{cause}"), "check `sslCertPath` and `sslKeyPath`, and that this user may read them");
        }
    }
}

/// Checks the limit of open files: each connection needs one. A server that runs on `port` has its own limit, of systemd or Docker.
pub(super) fn open_files(port: u16, connections: u64, report: &mut Report) {
    let running = Program::listening_on(port).and_then(|program| program.most_open_files());
    // `start` raises the soft limit to this hard limit.
    let limit = if running.is_some() { running } else { most_open_files() };
    allowed(limit, if running.is_some() { " by the server that runs" } else { "" }, connections, report);
}

fn allowed(limit: Option<u64>, to_whom: &str, connections: u64, report: &mut Report) {
    let needed = connections.saturating_add(OWN_FILES);
    match limit {
        Some(limit) if limit < needed => {
            let fix = format!(
                "`ulimit -Hn {needed}` as root before the start, LimitNOFILE={needed} in a systemd unit, or --ulimit nofile={needed} for docker"
            );
            let message = format!("at most {limit} open files may be used{to_whom}, but {connections} connections need {needed}");
            report.warning("files", message, fix);
        }
        Some(limit) => report.ok("files", format!("the limit of {limit} open files is enough for {connections} connections")),
        None => report.ok("files", "open files are not limited"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Status;

    #[test]
    fn a_low_limit_of_open_files_is_told_with_the_number_that_is_needed() {
        let mut report = Report::new(true);
        allowed(Some(64), "", 1000, &mut report);
        assert_eq!(report.findings()[0].status, Status::Warning);
        assert!(report.findings()[0].fix.contains("ulimit -Hn 1200"), "{report:?}");
        for limit in [Some(1200), None] {
            allowed(limit, "", 1000, &mut report);
            assert_eq!(report.findings().last().unwrap().status, Status::Ok);
        }
    }
}
