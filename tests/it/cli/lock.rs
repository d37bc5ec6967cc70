//! The lock file, `stop` and `--force`: only the process that holds the lock is signalled.

use std::process::Command;

use super::{Folder, Running, assert_holds};

const LOCK: &str = "laravel-echo-server.lock";

#[test]
fn the_lock_file_names_the_process_as_the_originals_did() {
    let (folder, _) = Folder::with_config();
    let running = folder.start(&[]);
    assert_eq!(folder.read(LOCK), format!("{{\n\t\"process\": {}\n}}", running.pid()));
}

#[test]
fn a_second_start_is_refused() {
    let (folder, _) = Folder::with_config();
    let mut running = folder.start(&[]);
    let second = folder.run(&["start"]);
    assert_eq!(second.code, 1);
    assert_holds(&second.stderr, &["a server runs with this config already", &running.pid().to_string(), "--force"]);
    assert!(running.is_alive());
    assert!(folder.read(LOCK).contains(&running.pid().to_string()));
}

#[test]
fn force_replaces_the_running_server() {
    let (folder, _) = Folder::with_config();
    let mut first = folder.start(&[]);
    let second = folder.start(&["--force"]);
    assert_eq!(first.end().code(), Some(0));
    assert!(folder.read(LOCK).contains(&second.pid().to_string()));
}

#[test]
fn force_without_a_running_server_is_a_plain_start() {
    let (folder, _) = Folder::with_config();
    folder.start(&["--force"]);
}

/// A process unrelated to the server.
fn bystander() -> Running {
    let mut command = Command::new("sleep");
    command.arg("600").stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    Running::spawn(command)
}

#[test]
fn a_lock_file_left_behind_never_blocks_or_kills() {
    let (folder, _) = Folder::with_config();
    let mut bystander = bystander();
    let stale = format!("{{\"process\": {}}}", bystander.pid());

    folder.write(LOCK, &stale);
    let mut running = folder.start(&[]);
    assert!(folder.read(LOCK).contains(&running.pid().to_string()));
    running.signal(rustix::process::Signal::TERM);
    running.end();

    folder.write(LOCK, &stale);
    let stopped = folder.run(&["stop"]);
    assert_eq!(stopped.code, 0, "{}", stopped.stderr);
    assert_holds(&stopped.stdout, &["No server is running"]);
    assert!(!folder.path(LOCK).exists());
    assert!(bystander.is_alive());
}

/// If another process id is written into a locked file, that process is not killed.
#[test]
fn a_process_that_does_not_hold_the_lock_is_left_alone() {
    let (folder, _) = Folder::with_config();
    let mut running = folder.start(&[]);
    let mut bystander = bystander();
    // Overwrites in place, so that it stays the locked file.
    folder.write(LOCK, &format!("{{\"process\": {}}}", bystander.pid()));
    for arguments in [&["stop"][..], &["start", "--force"]] {
        let ended = folder.run(arguments);
        assert_eq!(ended.code, 1, "{arguments:?}");
        assert_holds(&ended.stderr, &["left alone"]);
    }
    assert!(bystander.is_alive() && running.is_alive());
}

#[test]
fn stop_ends_the_server_of_the_directory() {
    let (folder, _) = Folder::with_config();
    for arguments in [&["stop"][..], &["stop", "--dir", "."], &["stop", "--config", "laravel-echo-server.toml"]] {
        let mut running = folder.start(&[]);
        let stopped = folder.run(arguments);
        assert_eq!(stopped.code, 0, "{}", stopped.stderr);
        assert_holds(&stopped.stdout, &["Closed the running server."]);
        assert_eq!(running.end().code(), Some(0));
        assert!(!folder.path(LOCK).exists());
    }
}

#[test]
fn stop_works_while_the_config_is_broken() {
    let (folder, _) = Folder::with_config();
    let mut running = folder.start(&[]);
    folder.write("laravel-echo-server.toml", "broken [");
    assert_eq!(folder.run(&["stop"]).code, 0);
    assert_eq!(running.end().code(), Some(0));
}

#[test]
fn stop_without_a_lock_file_fails() {
    let (folder, _) = Folder::with_config();
    let stopped = folder.run(&["stop"]);
    assert_eq!(stopped.code, 1);
    assert_holds(&stopped.stderr, &["Could not find any lock file", LOCK]);
}

#[test]
fn the_lock_file_can_be_elsewhere_or_nowhere() {
    let (folder, _) = Folder::with_config();
    let mut running = folder.start(&["--lockfile", "run.lock"]);
    assert_eq!(folder.names(), ["laravel-echo-server.toml", "run.lock"]);
    assert_eq!(folder.run(&["stop", "--lockfile", "run.lock"]).code, 0);
    assert_eq!(running.end().code(), Some(0));

    let _running = folder.start(&["--no-lock"]);
    assert_eq!(folder.names(), ["laravel-echo-server.toml"]);
}

/// A process that looks like laravel-echo-server 1, with its lock file in the directory.
fn original(folder: &Folder) -> (Running, String) {
    let mut command = Command::new("bash");
    command.args(["-c", "while :; do sleep 600; done", "/usr/bin/laravel-echo-server", "start"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let running = Running::spawn(command);
    let lock = format!("{{\n\t\"process\": {}\n}}", running.pid());
    folder.write(LOCK, &lock);
    (running, lock)
}

#[test]
fn a_failed_start_leaves_the_lock_of_the_node_server() {
    let folder = Folder::new();
    let (mut original, lock) = original(&folder);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    folder.write("laravel-echo-server.toml", &format!("host = \"127.0.0.1\"\nport = {port}\n[subscribers]\nredis = false\n"));
    let ended = folder.run(&["start"]);
    assert_eq!(ended.code, 1);
    // In this case this test holds the port.
    assert_holds(&ended.stderr, &["EADDRINUSE", &format!("process {} (", std::process::id()), &format!("`kill {}`", std::process::id())]);
    assert_eq!(folder.read(LOCK), lock);

    let stopped = folder.run(&["stop"]);
    assert_eq!(stopped.code, 1, "{}", stopped.stdout);
    assert_holds(&stopped.stderr, &["left alone", "the Node server", &format!("`kill {}`", original.pid())]);
    assert_eq!(folder.read(LOCK), lock);
    assert!(original.is_alive());
}
