//! `start`: its output, its signals, and how it finds its config.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::{BIN, DEADLINE, Folder, Redis, Running, assert_holds, free_port};

#[test]
fn it_prints_the_originals_lines_in_order() {
    let (folder, port) = Folder::with_config();
    let running = folder.start(&["--dev"]);
    let wanted = [
        "L A R A V E L  E C H O  S E R V E R".to_owned(),
        format!("version {}", env!("CARGO_PKG_VERSION")),
        "⚠ Starting server in DEV mode...".to_owned(),
        format!("✔  Running at 127.0.0.1 on port {port}"),
        "✔  Channels are ready.".to_owned(),
        "✔  Listening for http events...".to_owned(),
        "Server ready!".to_owned(),
    ];
    let said: Vec<_> = running.seen.iter().filter(|line| wanted.contains(line)).collect();
    assert_eq!(said, wanted.iter().collect::<Vec<_>>(), "{:#?}", running.seen);
    assert!(!running.has_seen("redis events"));
}

#[test]
fn a_container_that_is_given_variables_alone_needs_no_file() {
    for (mark, app, redis) in [
        ("LARAVEL_ECHO_SERVER_HOST", "LARAVEL_ECHO_SERVER_AUTH_HOST", "LARAVEL_ECHO_SERVER_REDIS"),
        ("LARAVEL_ECHO_SERVER_GENERATE_CONFIG", "LARAVEL_ECHO_AUTH_HOST", "REDIS"),
        ("ECHO_HOST", "ECHO_AUTH_HOST", "ECHO_REDIS"),
    ] {
        let (folder, server) = (Folder::new(), Redis::start(free_port(), &[]));
        let mut command = folder.command(&["start"]);
        command.env("LARAVEL_ECHO_SERVER_PORT", free_port().to_string()).env(mark, "127.0.0.1").env(app, "http://127.0.0.1:1");
        command.env(format!("{redis}_HOST"), "127.0.0.1").env(format!("{redis}_PORT"), server.port.to_string());
        let mut running = Running::spawn(command);
        running.wait_for("Listening for redis events...");
        running.wait_for("Server ready!");
        running.wait_for("all settings come from the environment");
        assert!(!running.has_seen(" WARN "), "what was understood is no warning: {:#?}", running.seen);
        assert!(!running.has_seen("no variable names a Redis"), "{:#?}", running.seen);
        assert_eq!(folder.names(), [""; 0], "nothing is created");
    }
}

#[test]
fn without_dev_mode_it_prints_less() {
    let (folder, _) = Folder::with_config();
    let running = folder.start(&[]);
    assert!(!running.has_seen("DEV mode") && !running.has_seen("Channels are ready"), "{:#?}", running.seen);
}

#[test]
fn logs_go_to_stderr_in_the_originals_format() {
    let (folder, port) = Folder::with_config();
    folder.write("laravel-echo-server.toml", &(folder.read("laravel-echo-server.toml") + "[unknown]\n"));
    // It ends on its own because its port is taken.
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let ended = folder.run(&["start"]);
    let line = ended.stderr.lines().find(|line| line.contains("unknown key `unknown`")).unwrap();
    assert!(line.starts_with("[20") && line.contains("Z] - WARN unknown key"), "{line}");
    assert!(!ended.stdout.contains("unknown key"), "{}", ended.stdout);
}

#[test]
fn an_unwritable_log_is_not_fatal() {
    let (folder, _) = Folder::with_config();
    let port = free_port();
    let endpoint = format!("[redisServer]\nenabled = true\nport = {port}\nmaxClients = 1\n");
    folder.write("laravel-echo-server.toml", &(folder.read("laravel-echo-server.toml") + &endpoint));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("exec {BIN} start 2> /dev/full")]).current_dir(&folder.0).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::spawn(command);
    running.wait_for("Server ready!");
    let connect = || {
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        BufReader::new(client)
    };
    let ping = |client: &mut BufReader<TcpStream>| {
        client.get_mut().write_all(b"PING\r\n").unwrap();
        let mut answer = String::new();
        client.read_line(&mut answer).unwrap();
        answer
    };
    let mut first = connect();
    assert_eq!(ping(&mut first), "+PONG\r\n");
    // Rejecting this connection logs a line.
    let mut answer = String::new();
    connect().read_line(&mut answer).unwrap();
    assert_eq!(answer, "-ERR max number of clients reached\r\n");
    assert_eq!(ping(&mut first), "+PONG\r\n");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(0), "{:#?}", running.seen);
}

#[test]
fn sigterm_and_sigint_exit_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let (folder, _) = Folder::with_config();
        let mut running = folder.start(&[]);
        running.signal(signal);
        assert_eq!(running.end().code(), Some(0), "{signal:?}: {:#?}", running.seen);
        assert_eq!(folder.names(), ["laravel-echo-server.toml"], "{signal:?}");
    }
}

#[test]
fn sighup_reloads_the_configuration() {
    let (folder, _) = Folder::with_config();
    let config = folder.read("laravel-echo-server.toml");
    let mut running = folder.start(&[]);
    folder.write("laravel-echo-server.toml", &format!("devMode = true\n{config}[limits]\nconnections = 7\n"));
    running.signal(Signal::HUP);
    running.wait_for("changes take effect after a restart: devMode");
    running.wait_for("SIGHUP: reloaded the configuration");
    // An unfinished edit or deployment must not reset the settings.
    for unfinished in ["port = [", "", "# devMode = true\n"] {
        folder.write("laravel-echo-server.toml", unfinished);
        running.signal(Signal::HUP);
        running.wait_for("SIGHUP: the configuration is unchanged");
        running.seen.clear();
    }
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(0));
}

#[test]
fn an_invalid_configuration_is_logged_as_one_line() {
    let (folder, _) = Folder::with_config();
    let config = folder.read("laravel-echo-server.toml");
    let mut running = folder.start(&[]);
    folder.write("laravel-echo-server.toml", &format!("database = \"mysql\"\ndevMode = 5\n{config}"));
    running.signal(Signal::HUP);
    running.wait_for("SIGHUP: the configuration is unchanged");
    let line = running.seen.iter().find(|line| line.contains("SIGHUP")).unwrap();
    assert_holds(
        line,
        &["cannot work: `database` is \"mysql\"", "; set in laravel-echo-server.toml; `devMode` is 5, expected true or false"],
    );
    assert!(!line.contains("\\n"), "{line}");
}

#[test]
fn each_cause_of_a_lost_redis_connection_is_logged_with_its_hint() {
    let folder = Folder::new();
    let (port, redis_port) = (free_port(), free_port());
    let config = format!("host = \"127.0.0.1\"\nport = {port}\n[databaseConfig.redis]\nhost = \"127.0.0.1\"\nport = {redis_port}\n");
    folder.write("laravel-echo-server.toml", &config);
    let mut running = folder.start(&["--no-lock"]);
    running.wait_for("WARN cannot reach Redis");
    assert!(running.has_seen(&format!("`redis-cli -h 127.0.0.1 -p {redis_port} ping`")), "{:#?}", running.seen);
    let _redis = Redis::start(redis_port, &["--requirepass", "secret"]);
    running.wait_for("WARN still no connection to Redis, for another reason");
    assert!(running.has_seen("NOAUTH") && running.has_seen("set `databaseConfig.redis.password`"), "{:#?}", running.seen);
}

#[test]
fn each_connection_to_redis_is_named_and_a_node_says_its_id() {
    let folder = Folder::new();
    let (port, redis_port) = (free_port(), free_port());
    let config = format!(
        "host = \"127.0.0.1\"\nport = {port}\ndatabase = \"redis\"\n[cluster]\nenabled = true\n[databaseConfig.redis]\nport = {redis_port}\n"
    );
    folder.write("laravel-echo-server.toml", &config);
    let mut running = folder.start(&[]);
    for lost in ["cannot reach Redis", "presence lists show only this node's members", "clients cannot resume their sessions"] {
        running.wait_for(lost);
    }
    let redis = Redis::start(redis_port, &[]);
    running.wait_for("Redis is back; events arrive again");
    for name in ["events", "presence", "sessions"] {
        running.wait_for(&format!("redis=\"127.0.0.1:{redis_port}\" connection=\"{name}\""));
    }
    running.wait_for("this node's id, by which other nodes name it in their logs node=");
    let line = running.seen.iter().find(|line| line.contains("this node's id")).expect("it was seen");
    let id = line.rsplit('"').nth(1).expect("a quoted id").to_owned();
    let mut redis = redis::Client::open(("127.0.0.1", redis.port)).unwrap().get_connection().unwrap();
    let nodes: Vec<String> = redis::cmd("SMEMBERS").arg("laravel-echo:nodes").query(&mut redis).unwrap();
    assert_eq!(nodes, [id]);
}

#[test]
fn a_file_of_the_original_without_redis_stops_at_once_and_says_what_to_write() {
    let folder = Folder::new();
    let config =
        format!("{{\"host\": \"127.0.0.1\", \"port\": {}, \"databaseConfig\": {{\"redis\": {{\"port\": {}}}}}}}", free_port(), free_port());
    folder.write("laravel-echo-server.json", &config);
    let mut running = folder.start(&[]);
    running.wait_for("presence lists show only this node's members");
    let line = running.seen.iter().find(|line| line.contains("presence lists")).expect("it was seen");
    assert_holds(line, &[r#"\"database\": \"memory\""#, "redis-cli -h 127.0.0.1"]);
    let warnings = |running: &Running| running.seen.iter().filter(|line| line.contains(" WARN ")).count();
    let before = warnings(&running);
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(0), "{:#?}", running.seen);
    assert_eq!(warnings(&running), before, "nothing of this node is in Redis: {:#?}", running.seen);
}

#[test]
fn defaults_need_no_file_and_create_none() {
    let folder = Folder::new();
    let port = free_port().to_string();
    let mut command = folder.command(&["start", "--defaults"]);
    command.env("LARAVEL_ECHO_SERVER_PORT", &port).env("LARAVEL_ECHO_SERVER_HOST", "127.0.0.1");
    command.env("LARAVEL_ECHO_SERVER_SUBSCRIBERS_REDIS", "false");
    let mut running = Running::spawn(command);
    running.wait_for("Server ready!");
    running.wait_for(&format!("Running at 127.0.0.1 on port {port}"));
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn redis_is_announced_when_it_is_connected() {
    let (folder, _) = Folder::with_config();
    let redis_port = free_port();
    let config =
        format!("{}redisMode = \"pattern\"\n[databaseConfig.redis]\nport = {redis_port}\n", folder.read("laravel-echo-server.toml"));
    folder.write("laravel-echo-server.toml", &config.replace("redis = false", "redis = true"));

    let mut running = folder.start(&[]);
    assert!(!running.has_seen("Listening for redis events"), "there is no Redis yet: {:#?}", running.seen);
    let redis = Redis::start(redis_port, &[]);
    running.wait_for("✔  Listening for redis events...");
    drop(running);

    let running = folder.start(&[]);
    let at = |text: &str| running.seen.iter().position(|line| line.contains(text)).unwrap();
    assert!(at("Listening for redis events...") < at("Server ready!"), "{:#?}", running.seen);
    drop(redis);
}

#[test]
fn a_log_filter_in_the_environment_takes_precedence() {
    let (folder, _) = Folder::with_config();
    folder.write("laravel-echo-server.toml", &(folder.read("laravel-echo-server.toml") + "[unknown]\n"));
    let mut command = folder.command(&["start"]);
    command.env("RUST_LOG", "off");
    let mut running = Running::spawn(command);
    running.wait_for("Server ready!");
    running.signal(Signal::TERM);
    running.end();
    assert!(!running.has_seen("unknown key"), "{:#?}", running.seen);
}

#[test]
fn logs_can_be_json() {
    let (folder, port) = Folder::with_config();
    folder.write("laravel-echo-server.toml", &(folder.read("laravel-echo-server.toml") + "[unknown]\n[log]\nformat = \"json\"\n"));
    let mut running = folder.start(&[]);
    running.wait_for("unknown key");
    running.signal(Signal::TERM);
    running.end();
    // Programs that collect logs read both streams.
    let parse = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
    let lines: Vec<_> = running.seen.iter().map(parse).collect();
    let said =
        |text: &str| lines.iter().find(|line| line["message"].as_str().unwrap().contains(text)).unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!(said("unknown key `unknown`")["level"], "WARN");
    assert_eq!(said("starting laravel-echo-server")["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&said("Running at ")["level"], &said("Server ready!")["level"]), (&"INFO".into(), &"INFO".into()));

    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let ended = folder.run(&["start"]);
    let lines: Vec<_> = ended.stdout.lines().chain(ended.stderr.lines()).map(str::to_owned).collect();
    assert!(
        lines.iter().map(parse).any(|line| line["level"] == "ERROR" && line["message"].to_string().contains("EADDRINUSE")),
        "{lines:#?}"
    );
}

#[test]
fn the_config_is_found_by_dir_and_name() {
    let (folder, port) = Folder::with_config();
    folder.write("sub/echo.toml", &folder.read("laravel-echo-server.toml"));
    let running = folder.start(&["--dir", "sub", "--config=echo.toml"]);
    assert_holds(&running.seen.join("\n"), &[&format!("on port {port}")]);
    assert!(folder.path("sub/echo.lock").exists());
}

#[test]
fn the_browser_script_in_the_configs_directory_is_served() {
    use std::io::{Read as _, Write as _};

    let (folder, port) = Folder::with_config();
    folder.write("project/laravel-echo-server.toml", &folder.read("laravel-echo-server.toml"));
    folder.write("project/node_modules/socket.io-client/dist/socket.io.js", "var io = 'of the project';");
    let _running = folder.start(&["--dir", "project"]);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /socket.io/socket.io.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("var io = 'of the project';"), "{answer}");
}

#[test]
fn the_demo_is_only_accessible_from_this_machine() {
    let folder = Folder::new();
    let (port, redis) = (free_port(), free_port());
    let mut command = folder.command(&["start", "--demo"]);
    command.env("LARAVEL_ECHO_SERVER_PORT", port.to_string()).env("LARAVEL_ECHO_SERVER_REDIS_SERVER_PORT", redis.to_string());
    let mut running = Running::spawn(command);
    running.wait_for("Server ready!");
    assert!(running.has_seen(&format!("Running at 127.0.0.1 on port {port}")), "{:#?}", running.seen);
    // A page elsewhere can make its own name resolve to this machine.
    for (host, status) in
        [("localhost", 200), ("127.0.0.1", 200), ("[::1]", 200), ("demo.evil.example", 403), ("127.0.0.1.evil.example", 403)]
    {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(stream, "GET /demo/next HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
        assert_eq!(answer.contains("key"), status == 200, "{host}: {answer}");
    }
}
