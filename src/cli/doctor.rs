//! `doctor`: finds out why events do not arrive. Input: the settings and the live environment: port, Redis, Laravel, this
//! machine. Output: a line for each check, with the command or setting that fixes a problem.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use futures_util::FutureExt as _;
use laravel_echo_server::checks::Checks;
use laravel_echo_server::config::Config;
use laravel_echo_server::config::load::{self, Loaded};

use super::ConfigSource;
use super::laravel::Project;

mod app;
mod front;
mod machine;
mod names;
mod pusher;
mod redis;
mod report;
mod webhooks;

use report::Report;

/// How long the running server's checks listen for events.
const LISTEN_BESIDE: Duration = Duration::from_secs(3);

/// What to do if checks fail next to a running server.
const RUN_DOCTOR: &str = "run `laravel-echo-server doctor` on this machine";

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    source: ConfigSource,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Seconds to listen for events; publish one meanwhile
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    listen: u64,
    /// Expected number of concurrent connections [default: limits.connections, or 1000]
    #[arg(long, value_name = "NUMBER")]
    connections: Option<u64>,
    /// Send a signed delivery without events to every webhook target
    #[arg(long)]
    webhooks: bool,
}

impl Doctor {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut report = Report::new(self.json);
        match load::load(&self.source.options()) {
            Ok(loaded) => {
                configuration(&loaded, &mut report);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
                runtime.block_on(self.examine(&loaded, &mut report))?;
            }
            Err(error) => report.problem("config", error, "fix that, then run this again"),
        }
        Ok(if report.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn examine(&self, loaded: &Loaded, report: &mut Report) -> anyhow::Result<()> {
        // One crypto provider for all TLS; nothing else in this process installs one.
        let provider = rustls::crypto::ring::default_provider().install_default();
        anyhow::ensure!(provider.is_ok(), "TLS is set up twice");
        let dir = loaded.path.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        let project = Project::read(dir);
        let config = &loaded.config;

        machine::ports(loaded, report).await;
        machine::certificate(config, report);
        let default = if config.limits.connections > 0 { config.limits.connections } else { 1000 };
        machine::open_files(config.port, self.connections.unwrap_or(default), report);
        set_up(config, &project, dir, report).await;
        webhooks::examine(config, self.webhooks, report).await;
        redis::examine(config, &project, Duration::from_secs(self.listen), report).await;
        Ok(())
    }
}

/// Checks Laravel, its front end, and its responses to this server.
async fn set_up(config: &Config, project: &Project, dir: &Path, report: &mut Report) {
    app::project(project, report);
    app::broadcaster(config, project, report);
    pusher::examine(config, project, report).await;
    app::origins(config, project, report);
    front::recovery(config, dir, report);
    app::callback(config, report).await;
}

/// The checks that the running server can make for its dashboard. The Laravel project is the one around the config file in `dir`.
pub(super) fn beside_the_server(dir: PathBuf) -> Checks {
    Arc::new(move |config| {
        let dir = dir.clone();
        // In a blocking thread, because it reads files and runs PHP.
        let looking = tokio::task::spawn_blocking(move || {
            let mut report = Report::new(true);
            let project = Project::read(&dir);
            match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(async {
                    set_up(&config, &project, &dir, &mut report).await;
                    redis::examine(&config, &project, LISTEN_BESIDE, &mut report).await;
                }),
                Err(error) => report.problem("doctor", error, RUN_DOCTOR),
            }
            report.into_findings()
        });
        async {
            looking.await.unwrap_or_else(|_| {
                let mut report = Report::new(true);
                report.problem("doctor", "the checks ended early; the log says why", RUN_DOCTOR);
                report.into_findings()
            })
        }
        .boxed()
    })
}

fn configuration(loaded: &Loaded, report: &mut Report) {
    for note in &loaded.notes {
        report.ok("config", note);
    }
    for warning in &loaded.warnings {
        report.warning("config", warning, "");
    }
    match &loaded.path {
        Some(path) => report.ok("config", format!("{} is valid", path.display())),
        None => report.ok("config", "the defaults and the environment are valid"),
    }
}
