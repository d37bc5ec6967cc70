//! `start`: runs the server. Input: flags, settings and signals. Output: the original's start-up lines on stdout, logs and
//! errors on stderr, and an exit code.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use laravel_echo_server::config::load::{self, LoadOptions, Loaded, Source};
use laravel_echo_server::config::{Config, LogFormat, Subscribers};
use laravel_echo_server::demo::Demo;
use laravel_echo_server::readiness::RedisState;
use laravel_echo_server::server::Reload;
use laravel_echo_server::telemetry;
use tokio::sync::watch::Receiver;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::lock_file::{self, LockFile};
use super::{ConfigSource, doctor, output};

pub(super) mod machine;
mod port;
mod signals;
#[cfg(target_os = "linux")]
mod systemd;
#[cfg(not(target_os = "linux"))]
#[path = "start/no_systemd.rs"]
mod systemd;
mod watch;

use signals::{SignalAction, Signals};

/// How long the start-up lines wait for Redis before announcing that the server is ready without it.
const REDIS_TIMEOUT: Duration = Duration::from_secs(2);

/// Flags of `start`.
#[derive(Debug, Args)]
pub(super) struct Start {
    #[command(flatten)]
    source: ConfigSource,
    /// Replace a server that runs with the same config
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, hide_possible_values = true)]
    force: bool,
    /// Log joins, leaves and events
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, hide_possible_values = true)]
    dev: bool,
    /// Show events as they arrive on a page at /demo; reads no config file, like --defaults
    #[arg(long, conflicts_with = "config")]
    demo: bool,
    /// Show connections and events in a line that is redrawn every second, if stderr is a terminal
    #[arg(long)]
    watch: bool,
    /// Use no lock file
    #[arg(long, conflicts_with = "lockfile")]
    no_lock: bool,
    /// The lock file [default: next to the config file]
    #[arg(long, value_name = "FILE")]
    lockfile: Option<PathBuf>,
}

impl Start {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = self.load();
        let is_json = loaded.as_ref().is_ok_and(|loaded| loaded.config.log.format == LogFormat::Json);
        let version = env!("CARGO_PKG_VERSION");
        if !is_json {
            output::line(output::paint(output::STRONG, "\nL A R A V E L  E C H O  S E R V E R\n"));
            output::line(format!("version {version}\n"));
        }
        let mut loaded = loaded?;
        let watches = self.watch && std::io::stderr().is_terminal();
        telemetry::init(&loaded.config.log, watches)?;
        if is_json {
            output::go_into_log();
            tracing::info!(version, "starting laravel-echo-server");
        }
        if self.watch && !watches {
            tracing::warn!("--watch: stderr is not a terminal, so there is no status line");
        }
        loaded.notes.iter().for_each(|note| tracing::info!("{note}"));
        loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        if loaded.config.dev_mode {
            output::line(output::paint(output::CAUTION, "⚠ Starting server in DEV mode...\n"));
        }

        let (mut lock, replaced) = self.lock(&loaded)?;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.enable_all().on_thread_park(system::memory::before_sleep).build().context("starting the runtime")?;
        let demo = self.demo.then(|| Demo::add_to(&mut loaded.config));
        let sources = std::mem::take(&mut loaded.sources);
        let dir = loaded.path.as_deref().and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
        let result = runtime.block_on(serve(loaded.config, dir, (&mut lock, replaced), demo, watches, || self.load()));
        // Does not wait for tasks: after a second signal some may still run.
        runtime.shutdown_background();
        drop(lock);
        result.map_err(|error| with_source(error, &sources))
    }

    /// Loads the current settings from files, environment and flags.
    fn load(&self) -> anyhow::Result<Loaded> {
        let mut loaded = load::load(&self.options())?;
        if self.dev {
            loaded.config.dev_mode = true;
        }
        let project = loaded.path.as_deref().and_then(Path::parent);
        loaded.config.socketio.client_path = loaded.config.socketio.client_path.or_else(|| installed_client(project?));
        Ok(loaded)
    }

    fn options(&self) -> LoadOptions {
        LoadOptions { defaults: self.source.defaults || self.demo, ..self.source.options() }
    }

    /// Takes the lock, if one is used (a run without a config file uses none), and returns whether another server was
    /// stopped for it.
    fn lock(&self, loaded: &Loaded) -> anyhow::Result<(Option<LockFile>, bool)> {
        let path = self.lockfile.clone().or_else(|| loaded.path.as_deref().map(lock_file::beside));
        let Some(path) = path.filter(|_| !self.no_lock) else { return Ok((None, false)) };
        let holder = match LockFile::take(&path)? {
            Ok(lock) => return Ok((Some(lock), false)),
            Err(holder) => holder,
        };
        let process = holder.process.map_or_else(|| "unknown".to_owned(), |process| process.to_string());
        if !self.force {
            anyhow::bail!(
                "a server runs with this config already (process {process}, lock file `{}`)\n  `--force` stops it and starts another one",
                path.display()
            );
        }
        tracing::info!("stopping the running server, process {process}");
        holder.stop(lock_file::patience(&loaded.config))?;
        match LockFile::take(&path)? {
            Ok(lock) => Ok((Some(lock), true)),
            Err(_) => anyhow::bail!("another server took the lock file `{}` first", path.display()),
        }
    }
}

/// The folder of `socket.io.js` in the Laravel project of the config file, independent of the working directory.
fn installed_client(project: &Path) -> Option<PathBuf> {
    let folder = project.join("node_modules/socket.io-client/dist");
    folder.join("socket.io.js").is_file().then_some(folder)
}

/// Binds and runs the server until it has stopped.
async fn serve(
    config: Config,
    dir: PathBuf,
    (lock, replaced): (&mut Option<LockFile>, bool),
    demo: Option<Demo>,
    watches: bool,
    load: impl Fn() -> anyhow::Result<Loaded>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen(lock.as_ref().map(LockFile::path))?;
    let reaper = signals::reap_orphans()?;
    let (subscribers, dev_mode) = (config.subscribers.clone(), config.dev_mode);
    let host = config.host.clone().unwrap_or_else(|| "localhost".to_owned());

    machine::prepare();
    let is_demo = demo.is_some();
    let mut server = port::bind(config, replaced).await?.with_checks(doctor::beside_the_server(dir));
    if let Some(lock) = lock {
        lock.keep();
    }
    let port = server.local_addr().port();
    output::done(format!("Running at {host} on port {port}"));
    if let Some(demo) = demo {
        server = server.with_routes(demo.routes());
        output::line(format!(
            "\nOpen http://localhost:{port}/demo to see events arrive, and send one:\n  {}\n\nor from a Laravel project on this machine:\n  {}\n",
            demo.command(port),
            demo.tinker()
        ));
    }
    let shutdown = CancellationToken::new();
    let status_line = watches.then(|| watch::show(server.figures()));
    let announcing = tokio::spawn(announce(subscribers, dev_mode, server.redis_state(), status_line));
    let reload = server.reload();
    let running = tokio::spawn(server.run(shutdown.clone()));
    systemd::notify("READY=1");
    let watchdog = systemd::feed_watchdog();
    let ended = until_told(running, &shutdown, &mut signals, || {
        if is_demo {
            return tracing::warn!("SIGHUP: the demo has no config file to reload");
        }
        match load().and_then(|loaded| take(&reload, &loaded)) {
            Ok(()) => tracing::info!("SIGHUP: reloaded the configuration"),
            Err(error) => tracing::error!("SIGHUP: the configuration is unchanged: {}", output::in_one_line(&format!("{error:#}"))),
        }
    })
    .await;
    announcing.abort();
    watchdog.inspect(JoinHandle::abort);
    reaper.inspect(JoinHandle::abort);
    match ended {
        Some(ended) => ended.context("the server task failed").map(|()| ExitCode::SUCCESS),
        None => Ok(ExitCode::from(signals::INTERRUPTED)),
    }
}

/// Applies the settings to the running server, and warns about changes that need a restart.
fn take(reload: &Reload, loaded: &Loaded) -> anyhow::Result<()> {
    let is_empty = loaded.path.is_some() && !loaded.sources.values().any(|source| matches!(source, Source::File(_)));
    anyhow::ensure!(!is_empty, "the config file contains no settings; was it read while it was being written?");
    let later = reload.reload(&loaded.config).map_err(|error| with_source(error.into(), &loaded.sources))?;
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    if !later.is_empty() {
        tracing::warn!("SIGHUP: changes take effect after a restart: {}", later.join(", "));
    }
    Ok(())
}

/// Adds the source of the key to an error that begins with one, such as `sslKeyPath: cannot read …`.
fn with_source(error: anyhow::Error, sources: &BTreeMap<String, Source>) -> anyhow::Error {
    let text = format!("{error:#}");
    match text.split_once(": ").and_then(|(key, _)| sources.get(key)) {
        Some(source) => anyhow::anyhow!("{text}\n  set in {source}"),
        None => error,
    }
}

/// Waits until the server has stopped; the first signal starts that. `None` when a second signal cuts it short.
async fn until_told(
    mut running: JoinHandle<()>,
    shutdown: &CancellationToken,
    signals: &mut Signals,
    reload: impl Fn(),
) -> Option<Result<(), JoinError>> {
    loop {
        tokio::select! {
            ended = &mut running => return Some(ended),
            wish = signals.next() => match wish {
                SignalAction::Stop => {
                    systemd::notify("STOPPING=1");
                    break shutdown.cancel();
                }
                SignalAction::Reload => reload(),
            }
        }
    }
    tokio::select! {
        ended = running => Some(ended),
        () = signals.stop() => {
            tracing::warn!("second signal: exiting at once");
            None
        }
    }
}

/// Prints the original's start-up lines, each once it is true; the line for Redis may come after `Server ready!`.
async fn announce(
    subscribers: Subscribers,
    dev_mode: bool,
    mut redis: Receiver<RedisState>,
    status_line: Option<impl Future<Output = ()>>,
) {
    if dev_mode {
        output::done("Channels are ready.");
    }
    if subscribers.http {
        output::done("Listening for http events...");
    }
    let mut is_late = false;
    if subscribers.redis {
        match tokio::time::timeout(REDIS_TIMEOUT, subscribed(&mut redis)).await {
            Ok(true) => output::done(LISTENING_FOR_REDIS),
            Ok(false) => {}
            Err(_) => is_late = true,
        }
    }
    output::line("\nServer ready!\n");
    let late_redis = async {
        if is_late && subscribed(&mut redis).await {
            output::done(LISTENING_FOR_REDIS);
        }
    };
    match status_line {
        Some(status_line) => drop(tokio::join!(late_redis, status_line)),
        None => late_redis.await,
    }
}

const LISTENING_FOR_REDIS: &str = "Listening for redis events...";

/// Waits until the subscription to Redis is established; `false` if `subscribers.redis` is off.
async fn subscribed(redis: &mut Receiver<RedisState>) -> bool {
    let state = redis.wait_for(|state| matches!(state, RedisState::Up | RedisState::Off)).await;
    state.is_ok_and(|state| matches!(*state, RedisState::Up))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    #[tokio::test]
    async fn a_second_signal_does_not_wait_for_the_end() {
        let mut signals = Signals::listen(None).unwrap();
        let shutdown = CancellationToken::new();
        // A server that never stops.
        let running = tokio::spawn(std::future::pending());
        let told = until_told(running, &shutdown, &mut signals, || ());
        let person = async {
            kill_process(getpid(), Signal::TERM).unwrap();
            shutdown.cancelled().await;
            // Signals right after the first one count as the same request.
            loop {
                kill_process(getpid(), Signal::INT).unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let both = async {
            tokio::select! {
                ended = told => ended,
                () = person => unreachable!("it has no end"),
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it ends in time");
        assert!(ended.is_none());
    }

    #[tokio::test]
    async fn a_stop_signal_from_the_launcher_and_one_from_its_supervisor_are_one_request() {
        let mut signals = Signals::listen(None).unwrap();
        kill_process(getpid(), Signal::TERM).unwrap();
        assert_eq!(signals.next().await, SignalAction::Stop);
        kill_process(getpid(), Signal::INT).unwrap();
        kill_process(getpid(), Signal::HUP).unwrap();
        assert_eq!(signals.next().await, SignalAction::Reload);
    }
}
