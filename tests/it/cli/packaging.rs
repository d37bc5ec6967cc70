//! Parts of the command line that packages and containers use.

use rustix::process::Signal;

use super::{Folder, Running, assert_holds, free_port};

#[test]
fn health_detects_whether_a_server_is_running() {
    let (folder, _) = Folder::with_config();
    let gone = folder.run(&["health"]);
    assert_eq!(gone.code, 1);
    assert_holds(
        &gone.stderr,
        &["no answer from http://127.0.0.1:", "/health: Connection refused (os error 111)\n", "`laravel-echo-server start`"],
    );
    assert_eq!(gone.stderr.matches("http://").count(), 1, "{}", gone.stderr);
    let mut running = folder.start(&[]);
    for arguments in [&["health"][..], &["health", "--ready"]] {
        let well = folder.run(arguments);
        assert_eq!(well.code, 0, "{}", well.stderr);
        assert!(well.stdout.contains(r#""status":"#), "{}", well.stdout);
    }
    running.signal(Signal::TERM);
    running.end();
}

#[test]
fn health_says_what_is_wrong_with_a_server_that_does_not_answer() {
    let (folder, _) = Folder::with_config();
    let config = folder.read("laravel-echo-server.toml");
    let _running = folder.start(&[]);
    let https = format!("protocol = \"https\"\nsslCertPath = \"cert.pem\"\nsslKeyPath = \"key.pem\"\n{config}");
    folder.write("https.toml", &https);
    let plain = folder.run(&["health", "--config", "https.toml"]);
    assert_holds(&plain.stderr, &["no answer from https://127.0.0.1:", "\n  the server there speaks plain HTTP, not https"]);

    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    folder.write("silent.toml", &format!("host = \"127.0.0.1\"\nport = {}\n", silent.local_addr().unwrap().port()));
    let silent = folder.run(&["health", "--config", "silent.toml"]);
    assert_holds(&silent.stderr, &["/health: none within 3 seconds\n  it runs, but is busy or suspended"]);
    assert_eq!((plain.code, silent.code), (1, 1));
}

#[test]
fn health_needs_no_config_file_if_the_server_needed_none() {
    let folder = Folder::new();
    let port = free_port().to_string();
    let command = |arguments: &[&str]| {
        let mut command = folder.command(arguments);
        command.env("LARAVEL_ECHO_SERVER_PORT", &port).env("LARAVEL_ECHO_SERVER_HOST", "127.0.0.1");
        command.env("LARAVEL_ECHO_SERVER_SUBSCRIBERS_REDIS", "false");
        command
    };
    let mut running = Running::spawn(command(&["start", "--defaults"]));
    running.wait_for("Server ready!");
    assert!(command(&["health"]).output().unwrap().status.success());
    let elsewhere = command(&["health", "--dir", "/nowhere"]).output().unwrap();
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("/nowhere/laravel-echo-server.toml"), "{elsewhere:?}");
    running.signal(Signal::TERM);
    running.end();
}

#[test]
fn the_manual_page_has_every_command_and_flag() {
    let folder = Folder::new();
    let page = folder.run(&["man"]);
    assert_eq!(page.code, 0, "{}", page.stderr);
    for part in [".TH laravel-echo-server 1", ".SH \"START\"", ".SH \"CLIENT:ADD\"", "\\-\\-no\\-lock", ".SH SIGNALS"] {
        assert!(page.stdout.contains(part), "{part} is missing in {}", page.stdout);
    }
}
