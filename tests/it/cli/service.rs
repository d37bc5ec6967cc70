//! Running as a systemd service.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use rustix::process::Signal;

use super::{BIN, DEADLINE, Folder, Running};

/// Receives messages until one is `wanted`; returns how many came before it.
fn wait_for(socket: &UnixDatagram, wanted: &str) -> usize {
    for before in 0..1000 {
        let mut message = [0; 64];
        let length = socket.recv(&mut message).unwrap_or_else(|error| panic!("no `{wanted}` in time: {error}"));
        if &message[..length] == wanted.as_bytes() {
            return before;
        }
    }
    panic!("no `{wanted}` among many messages");
}

#[test]
fn the_service_manager_is_notified_of_start_watchdog_and_stop() {
    let (folder, _) = Folder::with_config();
    let socket = UnixDatagram::bind(folder.path("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut command = folder.command(&["start"]);
    command.env("NOTIFY_SOCKET", folder.path("notify")).env("WATCHDOG_USEC", "200000");
    let mut running = Running::spawn(command);
    assert_eq!(wait_for(&socket, "READY=1"), 0);
    wait_for(&socket, "WATCHDOG=1");
    wait_for(&socket, "WATCHDOG=1");
    running.signal(Signal::TERM);
    wait_for(&socket, "STOPPING=1");
    assert_eq!(running.end().code(), Some(0));
}

#[test]
fn socket_activation_works() {
    let (folder, port) = Folder::with_config();
    // The configured port must not be needed.
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let listens = super::free_port();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["-l", &format!("127.0.0.1:{listens}"), BIN, "start", "--no-lock"]).current_dir(&folder.0);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut running = Running::spawn(command);
    running.wait_for("Listening on");
    // The connection starts the server and waits for it.
    let mut stream = TcpStream::connect(("127.0.0.1", listens)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("OK"), "{answer}");
    running.wait_for(&format!("on port {listens}"));
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(0));
    drop(taken);
}

#[test]
fn start_logs_the_limits_of_the_machine() {
    let (folder, _) = Folder::with_config();
    let mut running = folder.start(&[]);
    running.wait_for("open files");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(0));
}
