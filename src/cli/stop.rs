//! `stop`: ends the server of a config file. Input: its lock file. Output: that process is told to end, no other one.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use laravel_echo_server::config::load::{self, JSON_FILE, TOML_FILE};

use super::lock_file::{self, Found};
use super::{Place, output};

/// Longer than the longest time that servers usually take to move their clients off.
const PATIENCE: Duration = Duration::from_secs(30);

/// Flags of `stop`.
#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    place: Place,
    /// The lock file [default: beside the config file]
    #[arg(long, value_name = "FILE")]
    lockfile: Option<PathBuf>,
}

impl Stop {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let path = self.lock_file();
        match lock_file::look(&path)? {
            Found::Nothing => anyhow::bail!("Could not find any lock file.\n  looked for: {}", path.display()),
            Found::Stale => {
                std::fs::remove_file(&path).with_context(|| format!("removing the lock file `{}`", path.display()))?;
                output::line("No server is running; the lock file it left behind is removed.");
            }
            Found::Held(holder) => {
                holder.stop(PATIENCE)?;
                output::line(output::paint(output::GOOD, "Closed the running server."));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The config may be gone or broken by now; its name is enough.
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
