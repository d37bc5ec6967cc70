//! `health`: checks the running server, for containers without curl.
//!
//! Input: host, port and protocol from the config file or, if there is none, from the environment and the defaults, like a
//! server started without one. Output: the server's response, and exit code 0 if it is healthy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use laravel_echo_server::config::load::{self, LoadError, LoadOptions, Loaded};
use laravel_echo_server::config::{Config, Protocol};
use laravel_echo_server::net::unanswered::last_cause;

use super::{ConfigSource, output};

/// Timeout of the request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Flags of `health`.
#[derive(Debug, Args)]
pub(super) struct Health {
    #[command(flatten)]
    source: ConfigSource,
    /// Check readiness, Redis included, instead of just liveness
    #[arg(long)]
    ready: bool,
}

impl Health {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.load()?.config;
        let url = format!("{}{}", base(&config), if self.ready { "/ready" } else { "/health" });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
        let (is_well, answer) = runtime.block_on(ask(&url)).map_err(|error| silent(&url, &error))?;
        output::line(answer);
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Falls back to the defaults: an image's health check must work with a config file and with variables alone.
    fn load(&self) -> Result<Loaded, LoadError> {
        let options = self.source.options();
        let is_named = options.config.is_some() || options.dir.is_some();
        match load::load(&options) {
            Err(LoadError::NotFound(_)) if !is_named => load::load(&LoadOptions { defaults: true, ..options }),
            result => result,
        }
    }
}

/// Why there is no answer, and what to do about it.
fn silent(url: &str, error: &reqwest::Error) -> anyhow::Error {
    let cause = last_cause(error);
    let (cause, hint) = if error.is_timeout() {
        let hint = "it runs, but is busy or suspended: see its log, then restart it";
        (format!("none within {} seconds", ANSWER_TIMEOUT.as_secs()), hint)
    } else if cause.contains("InvalidContentType") {
        (cause, "the server there speaks plain HTTP, not https: it runs with another config, or another program has this port")
    } else if cause.contains("before message completed") || cause.contains("invalid HTTP") {
        (cause, "that is no HTTP: the server there runs with another config (`protocol`), or another program has this port")
    } else {
        (cause, "is the server running, with this config? `laravel-echo-server start` starts it")
    };
    anyhow::anyhow!("no answer from {url}: {cause}\n  {hint}")
}

async fn ask(url: &str) -> reqwest::Result<(bool, String)> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The certificate is for the server's public name, not for the local address used here.
    let client = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).timeout(ANSWER_TIMEOUT).build()?;
    let answer = client.get(url).send().await?;
    Ok((answer.status().is_success(), answer.text().await?))
}

/// The base URL of a server with these settings on this machine.
fn base(config: &Config) -> String {
    let host = config.host.as_deref().filter(|host| !host.is_empty()).unwrap_or("127.0.0.1");
    let host = match host.parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => "127.0.0.1".to_owned(),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => "[::1]".to_owned(),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    };
    let scheme = if config.protocol == Protocol::Https { "https" } else { "http" };
    format!("{scheme}://{host}:{}", config.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_asked_on_one() {
        let base = |host: Option<&str>, protocol| base(&Config { host: host.map(str::to_owned), protocol, ..Config::default() });
        assert_eq!(base(None, Protocol::Http), "http://127.0.0.1:6001");
        assert_eq!(base(Some("0.0.0.0"), Protocol::Https), "https://127.0.0.1:6001");
        assert_eq!(base(Some("::"), Protocol::Http), "http://[::1]:6001");
        assert_eq!(base(Some("fd00::1"), Protocol::Http), "http://[fd00::1]:6001");
        assert_eq!(base(Some("echo.test"), Protocol::Http), "http://echo.test:6001");
    }
}
