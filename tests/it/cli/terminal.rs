//! On a terminal: interactive `init`, and `start --watch`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use rexpect::session::{PtySession, spawn_command};

use super::{BIN, DEADLINE, Folder};

fn init(folder: &Folder) -> PtySession {
    on_terminal(folder, &["init"])
}

/// The command on its own terminal.
fn on_terminal(folder: &Folder, arguments: &[&str]) -> PtySession {
    let mut command = Command::new(BIN);
    command.args(arguments).current_dir(&folder.0).env_clear().env("TERM", "xterm-256color");
    let deadline = u64::try_from(DEADLINE.as_millis()).expect("a deadline of seconds");
    spawn_command(command, Some(deadline)).expect("starting it on a terminal")
}

/// Waits for a question and types the answer.
fn reply(terminal: &mut PtySession, question: &str, keys: &str) {
    terminal.exp_string(question).unwrap_or_else(|error| panic!("no question `{question}`: {error}"));
    terminal.send(keys).expect("typing");
    terminal.flush().expect("typing");
}

const DOWN: &str = "\u{1b}[B";
const ENTER: &str = "\r";

#[test]
fn all_questions_can_be_answered_interactively() {
    let folder = Folder::new();
    let mut terminal = init(&folder);
    reply(&mut terminal, "development mode", "y\r");
    reply(&mut terminal, "Port to listen on", "99999\r");
    // An invalid answer is rejected and asked for again; the user corrects it.
    reply(&mut terminal, "expected a port from 1 to 65535", "\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}7001\r");
    reply(&mut terminal, "Where does Laravel publish", ENTER);
    reply(&mut terminal, "members of presence channels", &format!("{DOWN}{ENTER}"));
    reply(&mut terminal, "Laravel application", "https://app.test\r");
    reply(&mut terminal, "http or https", ENTER);
    reply(&mut terminal, "Redis host", ENTER);
    reply(&mut terminal, "Redis port", "6390\r");
    reply(&mut terminal, "Prefix of Laravel", "shop_database_\r");
    // The address given before is the default.
    reply(&mut terminal, "Web origins", ENTER);
    reply(&mut terminal, "id and a key", "y\r");
    reply(&mut terminal, "other origins", "n\r");
    reply(&mut terminal, "Name of the config file", ENTER);
    terminal.exp_string("appId: ").unwrap();
    terminal.exp_string("Configuration file saved").unwrap();
    terminal.exp_eof().unwrap();

    let config: serde_json::Value = toml::from_str(&folder.read("laravel-echo-server.toml")).unwrap();
    let redis = &config["databaseConfig"]["redis"];
    assert_eq!(
        serde_json::json!([
            config["devMode"],
            config["port"],
            config["database"],
            redis["port"],
            redis["keyPrefix"],
            config["allowedOrigins"]
        ]),
        serde_json::json!([true, 7001, "redis", 6390, "shop_database_", ["https://app.test"]])
    );
    assert_eq!(config["clients"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_existing_file_can_be_kept_interactively() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.toml", "# mine\n");
    let mut terminal = init(&folder);
    for question in [
        "development mode",
        "Port to listen on",
        "Where does Laravel publish",
        "members of presence channels",
        "Laravel application",
        "http or https",
        "Redis host",
        "Redis port",
    ] {
        reply(&mut terminal, question, ENTER);
    }
    for question in ["Prefix of Laravel", "Web origins", "id and a key", "other origins", "Name of the config file"] {
        reply(&mut terminal, question, ENTER);
    }
    reply(&mut terminal, "Overwrite it?", "n\r");
    terminal.exp_string("left as it is").unwrap();
    terminal.exp_eof().unwrap();
    assert_eq!(folder.read("laravel-echo-server.toml"), "# mine\n");
}

#[test]
fn interrupting_writes_nothing() {
    let folder = Folder::new();
    let mut terminal = init(&folder);
    reply(&mut terminal, "development mode", "y\r");
    reply(&mut terminal, "Port to listen on", "\u{3}");
    terminal.exp_eof().unwrap();
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn the_status_line_counts_connections_and_events() {
    let (folder, port) = Folder::with_config();
    let mut terminal = on_terminal(&folder, &["start", "--watch"]);
    terminal.exp_string("Server ready!").unwrap();
    terminal.exp_string("0 connections, 0 events (0/s)").unwrap();
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = [0; 512];
    let length = client.read(&mut answer).unwrap();
    let text = String::from_utf8_lossy(&answer[..length]);
    let sid = text.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_else(|| panic!("no sid in {text}"));
    let connect = format!("POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n40");
    client.write_all(connect.as_bytes()).unwrap();
    terminal.exp_string("1 connection, 0 events (0/s)").unwrap();
    // A log line replaces the status line.
    terminal.send_control('c').unwrap();
    terminal.exp_regex(r"\r\x1b\[2K\[20[^\r\n]* - stopping").unwrap();
    terminal.exp_eof().unwrap();
}

#[test]
fn no_status_line_is_written_to_a_file() {
    let (folder, _) = Folder::with_config();
    let mut running = folder.start(&["--watch"]);
    running.wait_for("--watch: stderr is not a terminal");
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.end().code(), Some(0));
    assert!(!running.has_seen("connections, "), "{:#?}", running.seen);
}
