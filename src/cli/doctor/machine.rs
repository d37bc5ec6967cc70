//! Checks of this machine: the port, the certificate files, the limit of open files.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use laravel_echo_server::config::load::Loaded;
use laravel_echo_server::config::{Config, Protocol};
use laravel_echo_server::server::tls::Tls;
use rustix::process::{Resource, getrlimit};

use super::report::Report;
use crate::cli::lock_file::{self, Found};

/// Files that are open besides the sockets of clients.
const FILES_BESIDES: u64 = 100;

/// Time for the server on our port to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// The port is free, or our server has it.
pub(super) async fn port(loaded: &Loaded, report: &mut Report) {
    let config = &loaded.config;
    let (host, port) = (config.host.as_deref().unwrap_or("0.0.0.0"), config.port.0);
    let Err(error) = TcpListener::bind((host, port)) else {
        return report.ok("port", format!("{port} is free: no server runs yet, `laravel-echo-server start` starts one"));
    };
    match error.kind() {
        std::io::ErrorKind::AddrInUse if is_echo_server(config).await => {
            report.ok("port", format!("{port} is served by {}", holder(loaded)))
        }
        std::io::ErrorKind::AddrInUse => {
            let mend = format!("`ss -ltnp 'sport = :{port}'` shows what it is; stop it, or set another `port`");
            report.problem("port", format!("{port} is in use by something that is no laravel-echo-server"), mend);
        }
        _ => report.problem(
            "port",
            format!("{host}:{port} cannot be listened on: {error}"),
            "set `host` to an address of this machine, and a `port` from 1024",
        ),
    }
}

/// `GET /` answers `OK`, as the original does.
async fn is_echo_server(config: &Config) -> bool {
    let scheme = if config.protocol == Protocol::Https { "https" } else { "http" };
    let host = config.host.as_deref().unwrap_or("127.0.0.1");
    let address =
        host.parse::<IpAddr>().map_or_else(|_| format!("{host}:{}", config.port.0), |ip| SocketAddr::new(ip, config.port.0).to_string());
    // Its certificate is for the name that clients use, not for this address.
    let client = reqwest::Client::builder().timeout(ANSWER).tls_danger_accept_invalid_certs(true).build();
    let Ok(client) = client else { return false };
    match client.get(format!("{scheme}://{address}/")).send().await {
        Ok(response) => response.text().await.is_ok_and(|body| body == "OK"),
        Err(_) => false,
    }
}

fn holder(loaded: &Loaded) -> String {
    let lock = loaded.path.as_deref().map(lock_file::beside);
    match lock.map(|lock| lock_file::look(&lock)) {
        Some(Ok(Found::Held(holder))) => format!("the server of this config (process {})", holder.process.unwrap_or_default()),
        _ => "a laravel-echo-server that was started with another config or without a lock file".to_owned(),
    }
}

/// Certificate and key can be used.
pub(super) fn certificate(config: &Config, report: &mut Report) {
    match Tls::new(config) {
        Ok(Some(_)) => report.ok("tls", format!("{} and {} fit", config.ssl_cert_path, config.ssl_key_path)),
        Ok(None) => {}
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
            report.problem("tls", format!("{error}{cause}"), "check `sslCertPath` and `sslKeyPath`, and that this user may read them");
        }
    }
}

/// Each connection takes an open file.
pub(super) fn open_files(connections: u64, report: &mut Report) {
    let needed = connections + FILES_BESIDES;
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < needed => {
            let mend = format!(
                "`ulimit -n {needed}` before the start, LimitNOFILE={needed} in a systemd unit, or --ulimit nofile={needed} for docker"
            );
            report.warning("files", format!("{limit} open files are allowed, {connections} connections need {needed}"), mend);
        }
        Some(limit) => report.ok("files", format!("{limit} open files are enough for {connections} connections")),
        None => report.ok("files", "there is no limit of open files"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Status;

    #[test]
    fn a_low_limit_of_open_files_is_told_with_the_number_that_is_needed() {
        let mut report = Report::new(true);
        open_files(u64::MAX - FILES_BESIDES, &mut report);
        // No machine allows that many, unless it sets no limit at all.
        if getrlimit(Resource::Nofile).current.is_some() {
            assert_eq!(report.findings()[0].status, Status::Warning);
            assert!(report.findings()[0].mend.contains("ulimit -n"), "{report:?}");
        }
        open_files(0, &mut report);
        assert_eq!(report.findings().last().unwrap().status, Status::Ok);
    }
}
