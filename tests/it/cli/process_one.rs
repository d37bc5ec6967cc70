//! Running as process 1, as in a container: the kernel delivers only signals that it handles, and reparents orphans to it.

use std::process::Command;
use std::time::Instant;

use rustix::process::{Pid, Signal};

use super::socket::Socket;
use super::{BIN, DEADLINE, Folder, Running};

/// The form of `unshare` that this user may use: root can create a PID namespace, others also need a user namespace.
fn unshare() -> Vec<&'static str> {
    let plain = vec!["--pid", "--fork", "--kill-child"];
    let forms = [plain.clone(), [vec!["--user", "--map-root-user"], plain].concat()];
    let mut errors = String::new();
    for form in forms {
        let tried = Command::new("unshare").args(&form).arg("true").output().expect("this test needs unshare: apt-get install util-linux");
        if tried.status.success() {
            return form;
        }
        errors += &String::from_utf8_lossy(&tried.stderr);
    }
    panic!(
        "this test needs a PID namespace, and may not make one: run it as root, or allow user namespaces (sysctl user.max_user_namespaces, docker run --security-opt seccomp=unconfined)\n{errors}"
    );
}

/// A server that is process 1 of a PID namespace.
struct Container {
    running: Running,
    /// Its process id outside the namespace.
    server: Pid,
}

impl Container {
    /// `before` runs in the shell that then becomes the server.
    fn start(folder: &Folder, before: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(unshare()).args(["sh", "-c", &format!("{before} exec {BIN} start --no-lock")]).current_dir(&folder.0);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut running = Running::spawn(command);
        running.wait_for("Server ready!");
        let [server] = children(running.pid())[..] else { panic!("unshare has one child") };
        let status = std::fs::read_to_string(format!("/proc/{server}/status")).expect("the server runs");
        let ids = status.lines().find(|line| line.starts_with("NSpid:")).expect("the kernel has PID namespaces");
        assert_eq!(ids.split_ascii_whitespace().last(), Some("1"), "{ids}");
        Self { running, server: Pid::from_raw(server.cast_signed()).expect("a process") }
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.server, signal).expect("sending a signal");
    }

    fn end(&mut self) -> Option<i32> {
        self.running.end().code()
    }
}

/// Child processes, including zombies.
fn children(process: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).expect("the process runs");
    children.split_ascii_whitespace().map(|id| id.parse().expect("a process id")).collect()
}

#[test]
fn process_1_exits_cleanly_and_needs_no_lock_file() {
    for signal in [Signal::TERM, Signal::INT] {
        let (folder, _) = Folder::with_config();
        let mut container = Container::start(&folder, "");
        container.signal(signal);
        assert_eq!(container.end(), Some(0), "{signal:?}: {:#?}", container.running.seen);
        assert_eq!(folder.names(), ["laravel-echo-server.toml"], "{signal:?}");
    }
}

#[test]
fn process_1_reloads() {
    let (folder, _) = Folder::with_config();
    let mut container = Container::start(&folder, "");
    container.signal(Signal::HUP);
    container.running.wait_for("SIGHUP: reloaded the configuration");
    container.signal(Signal::TERM);
    assert_eq!(container.end(), Some(0));
}

#[test]
fn process_1_drains_and_ends_at_once_at_a_second_signal() {
    let (folder, port) = Folder::with_config();
    let config = folder.read("laravel-echo-server.toml") + "[shutdown]\ndrain = \"5m\"\ntimeout = \"10m\"\n";
    folder.write("laravel-echo-server.toml", &config);
    let mut container = Container::start(&folder, "");
    let clients: Vec<_> = (0..100).map(|_| Socket::connect(port)).collect();
    container.signal(Signal::TERM);
    container.running.wait_for("draining clients");
    // A second signal within half a second counts as the same request.
    std::thread::sleep(std::time::Duration::from_millis(600));
    container.signal(Signal::TERM);
    assert_eq!(container.end(), Some(130), "{:#?}", container.running.seen);
    drop(clients);
}

#[test]
fn process_1_reaps_orphans() {
    let (folder, _) = Folder::with_config();
    let fifo = folder.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("running mkfifo").success());
    // The subshell ends at once and leaves its child to process 1.
    let mut container = Container::start(&folder, "(cat fifo &);");
    let server = container.server.as_raw_nonzero().get().cast_unsigned();
    assert_eq!(children(server).len(), 1, "the orphan runs");
    std::fs::write(&fifo, "go").expect("the orphan reads");
    let end = Instant::now() + DEADLINE;
    while !children(server).is_empty() {
        assert!(Instant::now() < end, "the orphan has ended and is a zombie");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    container.signal(Signal::TERM);
    assert_eq!(container.end(), Some(0));
}
