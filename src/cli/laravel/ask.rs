//! Evaluates a project's configuration with PHP. Input: the project's folder. Output: the values, or why PHP could not be
//! asked.
//!
//! This runs code of the project, so only code that belongs to the calling user or root is run, without input, with a
//! timeout and a limit on its output.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use serde_json::Value as Json;

/// The PHP code to run.
const CODE: &str = include_str!("ask.php");

/// Timeout for PHP: a project on a slow disk takes a second or two.
const DEADLINE: Duration = Duration::from_secs(10);

/// Maximum number of bytes to read; real projects print a few kilobytes.
const MAX_OUTPUT: u64 = 1 << 20;

/// Files that are run, and whose owner must be trusted.
const RUN: [&str; 3] = [".", "bootstrap/app.php", "vendor/autoload.php"];

/// Runs PHP in the project and returns the values that it prints.
pub(super) fn ask(dir: &Path) -> Result<Json, String> {
    if !dir.join("bootstrap/app.php").is_file() {
        return Err("there is no bootstrap/app.php".to_owned());
    }
    let ours = geteuid().as_raw();
    for name in RUN {
        let path = dir.join(name);
        if let Some(owner) = path.metadata().ok().map(|metadata| metadata.uid()).filter(|owner| !is_trusted(*owner, ours)) {
            return Err(format!("`{}` belongs to user {owner}; run this command as that user", path.display()));
        }
    }
    // Separates our JSON from anything that the project itself prints.
    let marker = format!("laravel-echo-server:{:032x}:", rand::random::<u128>());
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let mut child = Command::new("php")
        .args(["-d", "display_errors=stderr", "-d", "log_errors=0", "-r", CODE, "--"])
        .arg(&dir)
        .arg(&marker)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(
            |error| if error.kind() == std::io::ErrorKind::NotFound { "php is not installed here".to_owned() } else { error.to_string() },
        )?;
    let answer = listen(&mut child, &marker);
    // The whole process group, including processes that PHP may have started.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // Usually the group no longer exists.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let ended = child.wait();
    answer.map_err(|reason| match ended {
        Ok(status) if reason.is_empty() => format!("php ended with {status}"),
        _ => reason,
    })
}

/// Whether code that belongs to `owner` may be run.
const fn is_trusted(owner: u32, ours: u32) -> bool {
    owner == ours || owner == 0
}

/// The JSON after the marker; the error is empty if PHP printed neither JSON nor an error.
fn listen(child: &mut Child, marker: &str) -> Result<Json, String> {
    let end = Instant::now() + DEADLINE;
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let late = |_| format!("php did not answer within {} seconds", DEADLINE.as_secs());
    let output = stdout.recv_timeout(DEADLINE).map_err(late)?;
    if let Some((_, json)) = output.rsplit_once(marker) {
        return serde_json::from_str(json).map_err(|error| format!("php printed invalid JSON: {error}"));
    }
    let errors = stderr.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap_or_default();
    let line = errors.lines().find(|line| line.contains("Error") || line.contains("rror:")).unwrap_or_default();
    Err(line.trim().trim_start_matches("PHP ").to_owned())
}

/// Reads in a separate thread, because a process that PHP started may keep the pipe open forever.
fn reader(pipe: Option<impl std::io::Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // On an error, use what was read before it.
            let _ = pipe.take(MAX_OUTPUT).read_to_end(&mut bytes);
        }
        // The receiver may have timed out.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_others_is_not_run() {
        assert!(is_trusted(1000, 1000) && is_trusted(0, 1000) && is_trusted(0, 0));
        assert!(!is_trusted(1000, 0) && !is_trusted(1000, 1001));
    }
}
