//! The command line as people and scripts use it: every test has its own directory and a clean environment.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

mod client;
mod config_check;
mod configure;
mod doctor;
mod import;
mod laravel;
mod lock;
mod memory;
mod packaging;
mod process_one;
mod service;
mod socket;
mod start;
mod terminal;
mod wrong_input;

/// How long to wait for an expected event.
const DEADLINE: Duration = Duration::from_secs(20);

const BIN: &str = env!("CARGO_BIN_EXE_laravel-echo-server");

/// A directory that is removed after the test.
pub(crate) struct Folder(PathBuf);

/// The result of a finished command.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("echo-cli-{:016x}", rand::random::<u64>()));
        fs::create_dir(&path).expect("creating a folder for the test");
        Self(path)
    }

    /// A directory with a minimal config file: a free port and no Redis.
    fn with_config() -> (Self, u16) {
        let folder = Self::new();
        let port = free_port();
        let config = format!("host = \"127.0.0.1\"\nport = {port}\n[subscribers]\nredis = false\n");
        folder.write("laravel-echo-server.toml", &config);
        (folder, port)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("the file is in a folder")).expect("creating a folder");
        fs::write(path, text).expect("writing a file of the test");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("reading a file of the test")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("listing the folder");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The command, in this directory and without the test's own environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BIN);
        command.args(arguments).current_dir(&self.0).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.command(arguments))
    }

    /// Starts a server and waits until it is ready.
    fn start(&self, arguments: &[&str]) -> Running {
        let mut running = Running::spawn(self.command(&[&["start"], arguments].concat()));
        running.wait_for("Server ready!");
        running
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removing the folder of the test");
    }
}

fn ended(mut command: Command) -> Ended {
    Ended::of(command.output().expect("running the command"))
}

impl Ended {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }
}

/// A running command; killed on drop.
struct Running {
    child: Child,
    lines: Receiver<String>,
    /// All lines so far, of stdout and stderr.
    seen: Vec<String>,
}

impl Running {
    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().expect("starting the command");
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let to = sender.clone();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| to.send(line)));
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line with this text.
    fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + DEADLINE;
        while !self.has_seen(text) {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("no line with `{text}` in time: {:#?}", self.seen),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without a line with `{text}`: {:#?}", self.seen),
            }
        }
    }

    fn has_seen(&self, text: &str) -> bool {
        self.seen.iter().any(|line| line.contains(text))
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("asking for the child").is_none()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("sending a signal");
    }

    /// Waits for the end.
    fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + DEADLINE;
        // The output ends with the process.
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().expect("waiting for the child"),
                Err(RecvTimeoutError::Timeout) => panic!("it did not end in time: {:#?}", self.seen),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if the child has already ended, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binding a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// A private Redis on a free port.
struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    fn start(port: u16, arguments: &[&str]) -> Self {
        let port_text = port.to_string();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"]).args(arguments);
        let child = command.stdout(Stdio::null()).spawn().expect("redis-server is needed for this test: apt-get install redis-server");
        let redis = Self { child, port };
        let end = Instant::now() + DEADLINE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "redis-server does not listen on {port}");
            std::thread::yield_now();
        }
        redis
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asserts that `text` contains all `parts`; the panic names the missing one.
#[track_caller]
fn assert_holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().expect("the file is there").permissions().mode() & 0o7777
}
