//! `stop`: stops the server of a config file. Input: its lock file. Output: a signal to the process that holds the lock.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use laravel_echo_server::config::load::{self, JSON_FILE, TOML_FILE};

use super::lock_file::{self, Found};
use super::{ConfigLocation, output};

/// Minimum time to wait for the server to stop: longer than servers usually take to drain their clients.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Flags of `stop`.
#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    place: ConfigLocation,
    /// The lock file [default: next to the config file]
    #[arg(long, value_name = "FILE")]
    lockfile: Option<PathBuf>,
}

impl Stop {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let path = self.lock_file();
        match lock_file::look(&path)? {
            Found::Nothing => {
                anyhow::bail!("Could not find any lock file: no server runs with this config.\n  looked for: {}", path.display())
            }
            Found::Stale => {
                std::fs::remove_file(&path).with_context(|| format!("removing the lock file `{}`", path.display()))?;
                output::line("No server is running; removed a stale lock file.");
            }
            Found::Original(program) => {
                anyhow::bail!("`{}` belongs to {program}, which is left alone: {}", path.display(), program.how_to_stop())
            }
            Found::Held(holder) => {
                holder.stop(self.patience())?;
                output::line(output::paint(output::GOOD, "Closed the running server."));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// How long the server may take to stop. The config file may be missing or invalid by now.
    fn patience(&self) -> Duration {
        let own = load::load(&self.place.options()).map(|loaded| lock_file::patience(&loaded.config));
        own.map_or(STOP_TIMEOUT, |own| own.max(STOP_TIMEOUT))
    }

    /// The path of the lock file. The config file may be missing or invalid by now; its name is enough.
    fn lock_file(&self) -> PathBuf {
        if let Some(path) = &self.lockfile {
            return path.clone();
        }
        let named = || {
            let dir = self.place.dir.clone().unwrap_or_default();
            let json = dir.join(JSON_FILE);
            let usual = if json.is_file() { json } else { dir.join(TOML_FILE) };
            self.place.config.as_ref().map_or(usual, |config| dir.join(config))
        };
        let config = load::find(&self.place.options()).ok().flatten();
        lock_file::beside(&config.unwrap_or_else(named))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_may_take_longer_is_waited_for() {
        let dir = std::env::temp_dir().join(format!("echo-stop-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let place = ConfigLocation { dir: Some(dir.clone()), config: None };
        let stop = Stop { place, lockfile: None };
        let mut waited = Vec::new();
        for text in ["[shutdown]\ntimeout = \"2m\"", "[shutdown]\ntimeout = \"1s\"", "broken ["] {
            std::fs::write(dir.join(TOML_FILE), text).unwrap();
            waited.push(stop.patience());
        }
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(waited, [Duration::from_secs(125), STOP_TIMEOUT, STOP_TIMEOUT]);
    }
}
