//! The lock file next to the config file: `{"process": <pid>}` for tools that read it, with an OS lock on the file.
//! Input: its path. Output: a guard that holds the lock, or the process that does. On Windows no other process can read the
//! file while the server runs, so the process id is unknown there.
//!
//! Compat: the original trusts the number in the file (`src/cli/cli.ts:317`, `:414`); here only a process that holds the OS
//! lock counts, so a stale file or a reused process id is harmless.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::program::Program;
use anyhow::Context as _;
use laravel_echo_server::Config;

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix::{is_at, tell_to_end};
#[cfg(windows)]
pub(crate) use windows::stop_pipe;
#[cfg(windows)]
use windows::{is_at, tell_to_end};

/// Interval for checking whether a stopping server has released its lock.
const POLL: Duration = Duration::from_millis(20);

/// Time that a stopping server gets in addition to its `shutdown.timeout`.
const MARGIN: Duration = Duration::from_secs(5);

/// A lock that this process holds; dropping it removes the file.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: PathBuf,
    // Kept open for the lock; closed after the file is removed.
    file: File,
    /// The previous content until this process serves, to be restored if the start fails.
    before: Option<String>,
}

/// What was found at the path.
#[derive(Debug)]
pub(crate) enum Found {
    /// No file.
    Nothing,
    /// A file that no process has locked.
    Stale,
    /// The file of the original server, which is running; it uses no OS lock.
    Original(Program),
    /// A running process holds the lock.
    Held(Holder),
}

/// The process that holds the lock.
#[derive(Debug)]
pub(crate) struct Holder {
    path: PathBuf,
    file: File,
    /// The number in the file, if it is one.
    pub(crate) process: Option<i32>,
}

/// The lock file that belongs to a config file.
pub(crate) fn beside(config: &Path) -> PathBuf {
    config.with_extension("lock")
}

/// How long a server with these settings may take to stop.
pub(crate) fn patience(config: &Config) -> Duration {
    config.shutdown.timeout + MARGIN
}

impl LockFile {
    /// Takes the lock and writes this process's id into the file.
    ///
    /// # Errors
    /// The outer error if the file cannot be created; the inner one is the process that holds the lock.
    pub(crate) fn take(path: &Path) -> anyhow::Result<Result<Self, Holder>> {
        let making = |error: std::io::Error| {
            let fix = "`--lockfile` names another one, `--no-lock` uses none";
            anyhow::anyhow!("cannot write the lock file `{}`: {error}\n  {fix}", path.display())
        };
        loop {
            // Not truncated: it may belong to another process.
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(making)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Err(Holder::of(path, file))),
                Err(TryLockError::Error(error)) => return Err(making(error)),
            }
            if !is_at(&file, path) {
                // Its last owner removed it between our open and our lock.
                continue;
            }
            let mut before = String::new();
            // Content that is not text belongs to no server and need not be restored.
            let before = file.read_to_string(&mut before).is_ok_and(|len| len > 0).then_some(before);
            overwrite(&mut file, &format!("{{\n\t\"process\": {}\n}}", std::process::id())).map_err(making)?;
            return Ok(Ok(Self { path: path.to_owned(), file, before }));
        }
    }
}

impl LockFile {
    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// This process serves now: the file is its own, and the previous content is not restored.
    pub(crate) fn keep(&mut self) {
        self.before = None;
    }
}

fn overwrite(file: &mut File, text: &str) -> std::io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(text.as_bytes())?;
    file.flush()
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && overwrite(&mut self.file, before).is_ok()
        {
            return;
        }
        // Before the lock is released, so that no other process can have taken the file in between.
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!("the lock file `{}` is gone already: {error}", self.path.display());
        }
    }
}

/// Examines a lock file without taking it.
///
/// # Errors
/// If it exists but cannot be opened.
pub(crate) fn look(path: &Path) -> anyhow::Result<Found> {
    let file = match OpenOptions::new().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error).with_context(|| format!("reading the lock file `{}`", path.display())),
    };
    match file.try_lock() {
        Ok(()) => {
            let program = Holder::of(path, file).process.and_then(Program::find).filter(Program::is_original);
            Ok(program.map_or(Found::Stale, Found::Original))
        }
        Err(TryLockError::WouldBlock) => Ok(Found::Held(Holder::of(path, file))),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking `{}`", path.display())),
    }
}

impl Holder {
    fn of(path: &Path, mut file: File) -> Self {
        let mut text = String::new();
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        let json = read.ok().and_then(|_| serde_json::from_str::<serde_json::Value>(&text).ok());
        let process = json.and_then(|json| i32::try_from(json.get("process")?.as_i64()?).ok());
        Self { path: path.to_owned(), file, process }
    }

    /// Asks the process to stop and waits until it has released the lock.
    ///
    /// # Errors
    /// If it is not visible from here, may not be signalled, or still runs after `patience`.
    pub(crate) fn stop(self, patience: Duration) -> anyhow::Result<()> {
        tell_to_end(&self)?;
        let start = Instant::now();
        while let Err(TryLockError::WouldBlock) = self.file.try_lock() {
            if start.elapsed() > patience {
                let process = self.process.map_or_else(|| "the server".to_owned(), |process| format!("process {process}"));
                anyhow::bail!("{process} did not stop within {} seconds", patience.as_secs());
            }
            std::thread::sleep(POLL);
        }
        // Closing the file releases the lock for the next owner.
        Ok(())
    }
}
