//! `config check`: every value with its source, and no secret.

use super::{Folder, assert_holds};

#[test]
fn values_are_shown_with_their_sources() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.json", r#"{"port": 6002, "databaseConfig": {"redis": {"password": "hunter2"}}, "autHost": "x"}"#);
    folder.write(".env", "LARAVEL_ECHO_SERVER_DEBUG=true\n");
    let mut command = folder.command(&["config", "check"]);
    command.env("LARAVEL_ECHO_SERVER_AUTH_TIMEOUT", "3s");
    let ended = super::ended(command);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let line = |key: &str| ended.stdout.lines().find(|line| line.starts_with(&format!("{key} "))).unwrap_or_default();
    assert_holds(line("port"), &["6002", "(laravel-echo-server.json)"]);
    assert_holds(line("devMode"), &["true", "(LARAVEL_ECHO_SERVER_DEBUG in .env)"]);
    assert_holds(line("auth.timeout"), &["3s", "(LARAVEL_ECHO_SERVER_AUTH_TIMEOUT in the environment)"]);
    assert_holds(line("database"), &["redis", "(the default of laravel-echo-server.json)"]);
    assert_holds(line("authHost"), &["http://localhost", "(default)"]);
    assert_holds(line("databaseConfig.redis.password"), &["***"]);
    assert!(!ended.stdout.contains("hunter2"));
    assert_holds(&ended.stderr, &["unknown key `autHost` is ignored; did you mean `authHost`?"]);
}

#[test]
fn files_that_start_could_not_use_are_warned_about() {
    let folder = Folder::new();
    folder.write("key.pem", "no certificate");
    folder.write(
        "laravel-echo-server.toml",
        "protocol = \"https\"\nsslCertPath = \"nowhere.pem\"\nsslKeyPath = \"key.pem\"\nauth.tls.ca = \"key.pem\"\nredisServer = { enabled = true, tls = { certPath = \"gone.pem\", keyPath = \"gone.pem\" } }\n",
    );
    let ended = folder.run(&["config", "check"]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(!ended.stdout.contains("is valid"), "{}", ended.stdout);
    assert_holds(&ended.stdout, &["✖  The configuration laravel-echo-server.toml cannot be used here"]);
    assert_holds(
        &ended.stderr,
        &[
            "`start` would fail here: sslCertPath: cannot read `nowhere.pem`",
            "`start` would fail here: redisServer.tls.certPath: cannot read `gone.pem`",
            "auth.tls.ca: `key.pem` is not a readable PEM",
        ],
    );
}

#[test]
fn it_can_print_json() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.toml", "port = 6002\n[[clients]]\nappId = \"a\"\nkey = \"hunter2\"\n");
    let ended = folder.run(&["config", "check", "--json", "--changed"]);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("it prints JSON");
    assert_eq!(json["values"]["port"], serde_json::json!({"value": 6002, "source": "laravel-echo-server.toml"}));
    assert_eq!(json["values"]["clients"]["value"][0]["key"], "***");
    assert_eq!(json["values"].as_object().map(serde_json::Map::len), Some(2), "{json}");
}

#[test]
fn colours_are_only_for_terminals() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.toml", "");
    assert!(!folder.run(&["config", "check"]).stdout.contains('\u{1b}'));
    let coloured = |no_color: Option<&str>| {
        let mut command = std::process::Command::new(super::BIN);
        command.args(["config", "check"]).current_dir(&folder.0).env_clear().env("TERM", "xterm-256color");
        command.envs(no_color.map(|value| ("NO_COLOR", value)));
        let mut terminal = rexpect::session::spawn_command(command, Some(20_000)).unwrap();
        terminal.exp_eof().unwrap().contains('\u{1b}')
    };
    assert!(coloured(None));
    assert!(!coloured(Some("1")));
}

#[test]
fn completions_name_the_commands() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish"] {
        let ended = folder.run(&["completions", shell]);
        assert_eq!(ended.code, 0);
        assert_holds(&ended.stdout, &["laravel-echo-server", "configure", "doctor"]);
    }
}
