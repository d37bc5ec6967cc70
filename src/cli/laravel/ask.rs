//! Asks PHP itself what a project's configuration comes to. Input: the project's folder. Output: the values, or why PHP
//! could not be asked.
//!
//! This runs code of the project: only where that is the caller's own or root's, without input, with a deadline and a
//! limit for what it prints.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use serde_json::Value as Json;

/// What is run.
const CODE: &str = include_str!("ask.php");

/// Time for an answer: a project on a slow disk takes a second or two.
const DEADLINE: Duration = Duration::from_secs(10);

/// Bytes that are read at most; real projects print a few kilobytes.
const MAX_OUTPUT: u64 = 1 << 20;

/// Files that are run, and whose owner has to be ours.
const RUN: [&str; 3] = [".", "bootstrap/app.php", "vendor/autoload.php"];

/// What PHP says.
pub(super) fn ask(dir: &Path) -> Result<Json, String> {
    if !dir.join("bootstrap/app.php").is_file() {
        return Err("there is no bootstrap/app.php".to_owned());
    }
    let ours = geteuid().as_raw();
    for name in RUN {
        let path = dir.join(name);
        if let Some(owner) = path.metadata().ok().map(|metadata| metadata.uid()).filter(|owner| !is_trusted(*owner, ours)) {
            return Err(format!("`{}` belongs to user {owner}, run this as that user to have PHP asked", path.display()));
        }
    }
    // What the project prints by itself comes before this.
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
    // Also what it may have started itself.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It is gone, in the usual case.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let ended = child.wait();
    answer.map_err(|reason| match ended {
        Ok(status) if reason.is_empty() => format!("php ended with {status}"),
        _ => reason,
    })
}

/// Whether the code of this user may be run by us.
const fn is_trusted(owner: u32, ours: u32) -> bool {
    owner == ours || owner == 0
}

/// The JSON behind the marker; an empty reason where it printed none.
fn listen(child: &mut Child, marker: &str) -> Result<Json, String> {
    let end = Instant::now() + DEADLINE;
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let late = |_| format!("php gave no answer within {} seconds", DEADLINE.as_secs());
    let output = stdout.recv_timeout(DEADLINE).map_err(late)?;
    if let Some((_, json)) = output.rsplit_once(marker) {
        return serde_json::from_str(json).map_err(|error| format!("php printed invalid JSON: {error}"));
    }
    let errors = stderr.recv_timeout(end.saturating_duration_since(Instant::now())).unwrap_or_default();
    let line = errors.lines().find(|line| line.contains("Error") || line.contains("rror:")).unwrap_or_default();
    Err(line.trim().trim_start_matches("PHP ").to_owned())
}

/// Reads in a thread of its own, as something that php started may keep the pipe open for ever.
fn reader(pipe: Option<impl std::io::Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What came before an error still counts.
            let _ = pipe.take(MAX_OUTPUT).read_to_end(&mut bytes);
        }
        // Nobody may be waiting any more.
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
