//! Every invalid input ends with a message on stderr that names it, and a nonzero exit code.

use std::net::TcpListener;

use super::{Folder, assert_holds};
use crate::tls::Certificate;

#[track_caller]
fn refuses(folder: &Folder, arguments: &[&str], code: i32, parts: &[&str]) {
    let ended = folder.run(arguments);
    assert_eq!(ended.code, code, "{arguments:?}: {}{}", ended.stdout, ended.stderr);
    assert_holds(&ended.stderr, parts);
}

#[test]
fn an_invalid_command_line_exits_with_2_and_the_usage() {
    let folder = Folder::new();
    refuses(&folder, &[], 2, &["Usage:", "start", "stop", "configure", "client:add", "client:remove"]);
    refuses(&folder, &["strat"], 2, &["strat", "start"]);
    refuses(&folder, &["start", "--prot", "1"], 2, &["--prot"]);
    refuses(&folder, &["client:remove"], 2, &["<ID>"]);
    refuses(&folder, &["init", "--database", "mysql"], 2, &["mysql", "memory", "redis", "sqlite"]);
    refuses(&folder, &["start", "--defaults", "--config", "x"], 2, &["--defaults", "--config"]);
    refuses(&folder, &["completions", "dos"], 2, &["dos", "bash"]);
}

#[test]
fn help_and_version_exit_with_0() {
    let folder = Folder::new();
    for arguments in [["--help"], ["-h"], ["--version"]] {
        assert_eq!(folder.run(&arguments).code, 0);
    }
    assert_holds(&folder.run(&["--version"]).stdout, &[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn every_command_that_needs_a_file_reports_a_missing_one() {
    let folder = Folder::new();
    for arguments in [&["start"][..], &["client:add"], &["client:remove", "a"], &["config", "check"], &["import"]] {
        refuses(&folder, arguments, 1, &["The config file could not be found", "laravel-echo-server.json"]);
    }
    refuses(&folder, &["start", "--config", "nope.json"], 1, &["could not be found", "nope.json"]);
    let mut command = folder.command(&["start"]);
    command.env("LARAVEL_ECHO_SERVER_PORT", "6001").env("LARAVEL_ECHO_SERVER_DEBUG", "true").env("REDIS_HOST", "redis");
    let ended = super::ended(command);
    assert_eq!(ended.code, 1);
    assert_holds(&ended.stderr, &["could not be found"]);
    assert_eq!(folder.names(), [""; 0], "nothing is created");
}

#[test]
fn a_syntax_error_is_reported_with_its_position() {
    let folder = Folder::new();
    for name in ["broken.json", "broken.toml"] {
        folder.write(name, "{\"port\": [");
        for command in ["start", "client:add"] {
            refuses(&folder, &[command, "--config", name], 1, &["There was a problem reading the config file", name, "line 1"]);
        }
    }
}

#[test]
fn an_invalid_value_is_reported_with_key_and_expectation() {
    let folder = Folder::new();
    for (text, parts) in [
        ("port = \"abc\"", &["`port` is \"abc\"", "expected a port from 1 to 65535", "laravel-echo-server.toml"][..]),
        ("protocol = \"https\"", &["`sslCertPath` is empty", "`sslKeyPath` is empty", "PEM"]),
        ("database = \"mysql\"", &["`database` is \"mysql\"", "expected one of", "sqlite"]),
        ("authHost = \"ftp://x\"", &["`authHost` is \"ftp://x\"", "expected a URL"]),
        ("[auth]\ntimeout = \"soon\"", &["`auth.timeout` is \"soon\"", "duration"]),
        ("[log]\nlevel = \"loud\"", &["`log.level` is \"loud\"", "error, warn, info"]),
        ("flatChannels = [\"private-*\"]", &["`flatChannels` is \"private-*\"", "never flat"]),
        ("[[webhooks]]\nurl = \"http://a\"\nevent = [\"connected\"]", &["`webhooks[1].event` is unknown, expected `events`"]),
        ("[channels]\npattern = \"a\"", &["`channels` is a single table", "`[[channels]]`"]),
        ("[cluster]\nenabled = true", &["`cluster.enabled` is true", "`database` to be `redis`"]),
    ] {
        folder.write("laravel-echo-server.toml", text);
        refuses(&folder, &["start"], 1, parts);
        assert_eq!(folder.names(), ["laravel-echo-server.toml"], "a server that does not start leaves no lock");
    }
}

#[test]
fn an_invalid_variable_is_reported_by_name() {
    let (folder, _) = Folder::with_config();
    folder.write(".env", "LARAVEL_ECHO_SERVER_PORT=abc\n");
    refuses(&folder, &["start"], 1, &["`port` is \"abc\"", "LARAVEL_ECHO_SERVER_PORT in .env"]);
    folder.write(".env", "LARAVEL_ECHO_SERVER_CLIENTS=abc\n");
    refuses(&folder, &["start"], 1, &["`LARAVEL_ECHO_SERVER_CLIENTS` is malformed, expected appId:key pairs"]);
}

#[test]
fn a_log_filter_that_matches_nothing_is_refused_by_name() {
    let (folder, _) = Folder::with_config();
    for (filter, parts) in [
        (
            "verbose",
            ["`RUST_LOG` is \"verbose\", expected error, warn, info, debug, trace, off, or pairs", "`info,laravel_echo_server=debug`"],
        ),
        ("info/foo", ["`RUST_LOG` is \"info/foo\"", "expected error"]),
        ("laravel-echo-server=debug", ["`RUST_LOG` is", "with underscores: `laravel_echo_server`"]),
    ] {
        let mut command = folder.command(&["start"]);
        let ended = command.env("RUST_LOG", filter).output().expect("the server ends");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{filter}: {stderr}");
        super::assert_holds(&stderr, &parts);
    }
}

#[test]
fn a_port_in_use_is_reported_with_its_key() {
    let (folder, _) = Folder::with_config();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    folder.write("laravel-echo-server.toml", &format!("host = \"127.0.0.1\"\nport = {port}\n[subscribers]\nredis = false\n"));
    refuses(&folder, &["start"], 1, &["EADDRINUSE", "`port`", &port.to_string(), "stops it\n", "or set another `port` here"]);
    assert_eq!(folder.names(), ["laravel-echo-server.toml"], "the lock is released");
}

/// A config file with these TOML lines after those of [`Folder::with_config`].
fn with_more(more: &str) -> Folder {
    let (folder, _) = Folder::with_config();
    folder.write("laravel-echo-server.toml", &(folder.read("laravel-echo-server.toml") + more));
    folder
}

#[test]
fn further_ports_in_use_are_reported_with_their_keys() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (key, more) in [
        ("redisServer.port", format!("[redisServer]\nenabled = true\nport = {port}\n")),
        ("metrics.port", format!("[metrics]\nport = {port}\n")),
    ] {
        let parts = [
            &format!("EADDRINUSE: address already in use: `{key}` is {port}")[..],
            "on 127.0.0.1, and process",
            &format!("process {} (", std::process::id()),
        ];
        refuses(&with_more(&more), &["start"], 1, &parts);
    }

    let (certificate, (folder, _)) = (Certificate::new("taken"), Folder::with_config());
    let (crt, key) = (certificate.0.join("crt"), certificate.0.join("key"));
    let files = format!("protocol = \"https\"\nhttpPort = {port}\nsslCertPath = {crt:?}\nsslKeyPath = {key:?}\n");
    folder.write("laravel-echo-server.toml", &(files + &folder.read("laravel-echo-server.toml")));
    refuses(&folder, &["start"], 1, &[&format!("`httpPort` is {port}"), "set another `httpPort` here"]);
}

#[test]
fn an_address_of_another_machine_is_reported_with_its_key() {
    let folder = Folder::new();
    // 192.0.2.0/24 is reserved for documentation, so no machine has it.
    folder.write("laravel-echo-server.toml", "host = \"192.0.2.1\"\nport = 6001\n[subscribers]\nredis = false\n");
    refuses(&folder, &["start"], 1, &["`host` is 192.0.2.1"]);
    let metrics = with_more("[metrics]\nhost = \"192.0.2.1\"\nport = 9601\n");
    refuses(&metrics, &["start"], 1, &["EADDRNOTAVAIL: `metrics.host` is 192.0.2.1"]);
    let redis = with_more("[redisServer]\nenabled = true\nhost = \"192.0.2.1\"\npassword = \"secret\"\n");
    refuses(&redis, &["start"], 1, &["EADDRNOTAVAIL: `redisServer.host` is 192.0.2.1"]);
}

#[test]
fn missing_certificates_are_reported_with_key_and_path() {
    let (folder, _) = Folder::with_config();
    let text = folder.read("laravel-echo-server.toml");
    folder
        .write("laravel-echo-server.toml", &format!("protocol = \"https\"\nsslCertPath = \"nope.pem\"\nsslKeyPath = \"nope.key\"\n{text}"));
    refuses(&folder, &["start"], 1, &["sslCertPath: cannot read `nope.pem`", "set in laravel-echo-server.toml"]);
}

#[test]
fn an_uncreatable_lock_file_is_reported_with_a_fix() {
    let (folder, _) = Folder::with_config();
    refuses(
        &folder,
        &["start", "--lockfile", "no/such/folder.lock"],
        1,
        &["cannot write the lock file `no/such/folder.lock`: No such file", "\n  `--lockfile` names another one, `--no-lock` uses none"],
    );
}

#[test]
fn flags_of_configure_are_checked_before_anything_is_written() {
    let folder = Folder::new();
    refuses(&folder, &["init", "-n", "--port", "0"], 1, &["`port` is \"0\"", "1 to 65535"]);
    refuses(&folder, &["init", "-n", "--auth-host", "ftp://x"], 1, &["`authHost`", "ftp://x"]);
    refuses(&folder, &["init", "-n", "--protocol", "https"], 1, &["`sslCertPath` is empty"]);
    refuses(&folder, &["init", "-n", "--redis-port", "x"], 1, &["databaseConfig.redis.port"]);
    refuses(&folder, &["init", "-n", "--port", "http://a.test:6001"], 1, &["`port` is \"http://a.test:6001\"", "1 to 65535"]);
    assert_eq!(folder.names(), [""; 0]);
}
