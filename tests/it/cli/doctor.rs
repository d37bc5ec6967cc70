//! `doctor` with a real Redis and a stand-in for the application.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use serde_json::Value;

use super::{Folder, Redis, Running, free_port};
use crate::tls::Certificate;

/// An application that gives every request the same answer.
fn app(answer: &'static str) -> String {
    app_by_path(move |_| answer)
}

/// An application whose answer depends on the path.
fn app_by_path(answer: impl Fn(&str) -> &'static str + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binding a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let read = stream.read(&mut request);
            let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
            let reply = format!("HTTP/1.1 {}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}", answer(&path));
            // The caller may already have closed the connection.
            let _ = read.and_then(|_| stream.write_all(reply.as_bytes()));
        }
    });
    url
}

const REFUSES: &str = "403 Forbidden\r\nContent-Type: application/json";

fn config(folder: &Folder, auth_host: &str, redis: &Redis, more: &str) {
    let text = format!(
        "host = \"127.0.0.1\"\nport = {}\nauthHost = \"{auth_host}\"\n[databaseConfig.redis]\nport = {}\n{more}\n",
        free_port(),
        redis.port
    );
    folder.write("laravel-echo-server.toml", &text);
}

/// The findings of a run and its exit code.
fn examine(folder: &Folder, listen: &str) -> (i32, Value) {
    let ended = folder.run(&["doctor", "--json", "--listen", listen]);
    (ended.code, serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr)))
}

/// Status, message and fix of a check.
fn finding(report: &Value, check: &str) -> (String, String) {
    let findings = report["findings"].as_array().expect("findings are a list");
    let finding = findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no {check} in {report:#}"));
    let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("message") + "\n" + &text("fix"))
}

#[test]
fn a_working_setup_has_no_problem() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    config(&folder, &app(REFUSES), &redis, "");
    let (code, report) = examine(&folder, "0");
    assert_eq!((code, &report["ok"]), (0, &Value::Bool(true)), "{report:#}");
    for check in ["config", "port", "files", "auth", "redis", "clock"] {
        assert_eq!(finding(&report, check).0, "ok", "{check}: {report:#}");
    }
    // Without --listen it has not received any.
    assert_eq!(finding(&report, "events").0, "unknown", "{report:#}");
    assert!(finding(&report, "port").1.contains("is free"));

    let running = folder.start(&[]);
    let (code, report) = examine(&folder, "0");
    assert_eq!(code, 0, "{report:#}");
    assert!(finding(&report, "port").1.contains(&format!("process {}", running.pid())), "{report:#}");
}

#[test]
fn each_fault_is_reported_with_a_fix() {
    let folder = Folder::new();
    let user = ["--user", "members", "on", ">m", "~other*", "&*", "+@all"];
    let redis = Redis::start(free_port(), &[&["--requirepass", "secret"], &user[..]].concat());
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    for (auth_host, more, check, parts) in [
        (app("404 Not Found"), "password = \"secret\"", "auth", ["answers 404", "authEndpoint"]),
        (
            app("302 Found\r\nLocation: /login"),
            "password = \"secret\"",
            "auth",
            ["answers 302 and redirects to /login", "check the middleware and the guard"],
        ),
        (app("419 Expired"), "password = \"secret\"", "auth", ["answers 419", "CSRF"]),
        (app("200 OK\r\nContent-Type: application/json"), "password = \"secret\"", "auth", ["lets anyone", "routes/channels.php"]),
        (nowhere, "password = \"secret\"", "auth", ["cannot be reached", "authHost"]),
        (app(REFUSES), "", "redis", ["NOAUTH", "password"]),
        (app(REFUSES), "password = \"wrong\"", "redis", ["refuses the connection", "password"]),
        (app(REFUSES), "password = \"secret\"\ndb = 99", "redis", ["does not have the configured database", "`databaseConfig.redis.db`"]),
        (
            app(REFUSES),
            "password = \"secret\"\nhost = \"redis.invalid\"",
            "redis",
            ["cannot connect to Redis at redis.invalid", "spelled right"],
        ),
        (
            app(REFUSES),
            "username = \"members\"\npassword = \"m\"\nkeyPrefix = \"app_\"",
            "redis",
            [
                "refuses the keys of presence members: the Redis user lacks a permission (NOPERM)",
                "ACL SETUSER 'members' '~app_laravel-echo:*'",
            ],
        ),
        (app(REFUSES), "password = \"secret\"\ntls = true", "redis", ["cannot connect", "`databaseConfig.redis.tls`"]),
    ] {
        config(&folder, &auth_host, &redis, more);
        folder.write("laravel-echo-server.toml", &format!("database = \"redis\"\n{}", folder.read("laravel-echo-server.toml")));
        let (code, report) = examine(&folder, "0");
        let findings = report["findings"].as_array().expect("findings are a list").iter();
        let problem = findings.filter(|finding| finding["check"] == check).find(|finding| finding["status"] == "problem");
        let text = problem.unwrap_or_else(|| panic!("no problem with {check} in {report:#}")).to_string();
        assert_eq!(code, 1, "{report:#}");
        super::assert_holds(&text, &parts);
    }
}

#[test]
fn a_certificate_that_expires_soon_is_reported() {
    let (folder, redis) = (Folder::new(), Redis::start(free_port(), &[]));
    for (days, status) in [(1, "warning"), (30, "ok")] {
        let certificate = Certificate::for_days(&format!("doctor-{days}"), days);
        let [crt, key] = ["crt", "key"].map(|name| certificate.0.join(name).display().to_string());
        config(&folder, &app(REFUSES), &redis, "");
        let tls = format!("protocol = \"https\"\nsslCertPath = {crt:?}\nsslKeyPath = {key:?}\n");
        folder.write("laravel-echo-server.toml", &(tls + &folder.read("laravel-echo-server.toml")));
        let (_, report) = examine(&folder, "0");
        assert_eq!(finding(&report, "tls").0, status, "{report:#}");
    }
}

/// Many applications have the route for tokens below `/api`.
#[test]
fn a_broadcasting_route_below_api_is_found() {
    let (folder, redis) = (Folder::new(), Redis::start(free_port(), &[]));
    let host = app_by_path(|path| if path == "/api/broadcasting/auth" { "401 Unauthorized" } else { "404 Not Found" });
    config(&folder, &host, &redis, "");
    let (code, report) = examine(&folder, "0");
    assert_eq!(code, 1, "{report:#}");
    let (status, text) = finding(&report, "auth");
    assert_eq!(status, "problem");
    super::assert_holds(&text, &["answers 404", "authEndpoint = \"/api/broadcasting/auth\""]);
}

/// With members in Redis a server that answers is not enough.
#[test]
fn a_redis_that_takes_no_members_is_a_problem() {
    let folder = Folder::new();
    for (options, parts) in [
        (&["--maxmemory", "1"][..], ["Redis is full (OOM): its `maxmemory` is reached", "raise its `maxmemory`"]),
        (
            &["--replicaof", "127.0.0.1", "1"],
            ["Redis is a read-only replica (READONLY)", "set `databaseConfig.redis.host` to the new master"],
        ),
    ] {
        let redis = Redis::start(free_port(), options);
        config(&folder, &app(REFUSES), &redis, "");
        folder.write("laravel-echo-server.toml", &format!("database = \"redis\"\n{}", folder.read("laravel-echo-server.toml")));
        let (code, report) = examine(&folder, "0");
        assert_eq!(code, 1, "{report:#}");
        let findings = report["findings"].as_array().expect("findings are a list").iter();
        let problem = findings.filter(|finding| finding["check"] == "redis").find(|finding| finding["status"] == "problem");
        super::assert_holds(&problem.unwrap_or_else(|| panic!("no problem in {report:#}")).to_string(), &parts);
    }
}

/// The value of a field in a log line.
fn field(line: &str, name: &str) -> String {
    let quoted = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("no {name} in {line}")).1;
    serde_json::Deserializer::from_str(quoted).into_iter::<String>().next().expect("a value").expect("a quoted text")
}

#[test]
fn the_log_and_doctor_say_the_same_about_redis() {
    let folder = Folder::new();
    let certificate = Certificate::new("doctor");
    let tls_port = free_port().to_string();
    let [crt, key] = ["crt", "key"].map(|name| certificate.0.join(name).display().to_string());
    let tls =
        ["--tls-port", &tls_port, "--tls-cert-file", &crt, "--tls-key-file", &key, "--tls-ca-cert-file", &crt, "--tls-auth-clients", "no"];
    let user = |rights: &'static str| {
        ["--user", "default", "off", "--user", "echo", "on", ">pw"].into_iter().chain(rights.split(' ')).collect::<Vec<_>>()
    };
    let (locked, no_channels) = (["--requirepass", "secret"].to_vec(), user("~* &other +@all"));
    let as_echo = "username = \"echo\"\npassword = \"pw\"\nkeyPrefix = \"app_\"";
    let of_tls = format!("url = \"rediss://localhost:{tls_port}\"");
    for (arguments, more, reason, fix) in [
        (&locked, "", "Redis asks for a password (NOAUTH)", "`databaseConfig.redis.password`"),
        (&locked, "password = \"wrong\"", "Redis refuses the password or the user (WRONGPASS): invalid", "`databaseConfig.redis.password`"),
        (&locked, "username = \"bob\"\npassword = \"x\"", "Redis refuses the password or the user (WRONGPASS): invalid", "`username`"),
        (&locked, "password = \"secret\"\ndb = 99", "Redis does not have the configured database", "`databaseConfig.redis.db`"),
        (
            &no_channels,
            as_echo,
            "the Redis user lacks a permission (NOPERM): this user has no",
            "ACL SETUSER 'echo' '~app_laravel-echo:*' ",
        ),
        (&locked, "host = \"redis.invalid\"", "the host name of Redis cannot be resolved", "`databaseConfig.redis.host`"),
        (&tls.to_vec(), &of_tls, "certificate", "`databaseConfig.redis.tls.rejectUnauthorized = false`"),
    ] {
        let redis = Redis::start(free_port(), arguments);
        config(&folder, &app(REFUSES), &redis, more);
        let mut running = folder.start(&["--no-lock"]);
        running.wait_for("cannot reach Redis");
        let line = running.seen.iter().find(|line| line.contains("cannot reach Redis")).expect("it was seen");
        assert_eq!(field(line, "connection"), "events");
        super::assert_holds(&field(line, "reason"), &[reason]);
        super::assert_holds(&field(line, "hint"), &[fix]);
        let (_, report) = examine(&folder, "0");
        let problem = report["findings"].as_array().unwrap().iter().find(|finding| finding["status"] == "problem").expect("a problem");
        assert_eq!(problem["fix"], field(line, "hint"), "{more}");
        super::assert_holds(problem["message"].as_str().unwrap(), &[&field(line, "reason")]);
    }
}

#[test]
fn the_log_and_doctor_say_the_same_about_an_application_that_does_not_answer() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    let silent = TcpListener::bind("127.0.0.1:0").expect("binding a free port");
    let silent = format!("http://{}", silent.local_addr().expect("a bound listener has an address"));
    for (auth_host, more, cause, fix) in [
        ("http://app.invalid", "", "the host name cannot be resolved", "is `authHost` spelled right"),
        (&silent, "[auth]\ntimeout = \"200ms\"", "no answer within auth.timeout", "raise auth.timeout"),
    ] {
        config(&folder, auth_host, &redis, more);
        let (_, text) = finding(&examine(&folder, "0").1, "auth");
        super::assert_holds(&text, &[cause, fix]);
    }
    for (url, cause, fix) in [
        ("http://app.invalid", "the host name cannot be resolved", "is `url` spelled right"),
        (&silent, "no answer within webhooksDelivery.timeout", "raise webhooksDelivery.timeout"),
    ] {
        let webhooks = "[[webhooks]]\nkey = \"k\"\nsecret = \"s\"\n[webhooksDelivery]\ntimeout = \"200ms\""
            .replace("key =", &format!("url = \"{url}\"\nkey ="));
        config(&folder, &app(REFUSES), &redis, &webhooks);
        let ended = folder.run(&["doctor", "--json", "--listen", "0", "--webhooks"]);
        let (_, text) = finding(&serde_json::from_str(&ended.stdout).expect("it prints JSON"), "webhooks");
        super::assert_holds(&text, &[cause, fix]);
    }
}

#[test]
fn a_port_used_by_another_program_is_a_problem() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    config(&folder, &app(REFUSES), &redis, "");
    let other = app("200 OK");
    let port = other.rsplit(':').next().unwrap();
    let text = folder.read("laravel-echo-server.toml");
    let line = text.lines().find(|line| line.starts_with("port = ")).unwrap();
    folder.write("laravel-echo-server.toml", &text.replacen(line, &format!("port = {port}"), 1));
    let (code, report) = examine(&folder, "0");
    assert_eq!(code, 1);
    assert!(finding(&report, "port").1.contains("a program other than laravel-echo-server"), "{report:#}");
}

#[test]
fn a_port_that_is_served_with_another_config_is_a_problem() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    config(&folder, &app(REFUSES), &redis, "");
    folder.write("other/laravel-echo-server.toml", &folder.read("laravel-echo-server.toml"));
    let running = folder.start(&["--dir", "other"]);
    let (code, report) = examine(&folder, "0");
    let (status, text) = finding(&report, "port");
    assert_eq!((code, status.as_str()), (1, "problem"), "{report:#}");
    let process = running.pid().to_string();
    super::assert_holds(&text, &[&format!("process {process} ("), "EADDRINUSE", &format!("`kill {process}` stops it"), "another `port`"]);
    drop(running);

    // A container or a systemd unit: there is nothing to tell it by.
    let _running = folder.start(&["--no-lock"]);
    let (code, report) = examine(&folder, "0");
    let (status, text) = finding(&report, "port");
    assert_eq!((code, status.as_str()), (0, "ok"), "{report:#}");
    super::assert_holds(&text, &["not known with which config"]);
}

#[test]
fn the_prefix_is_compared_with_the_project_and_with_live_events() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    config(&folder, &app(REFUSES), &redis, "");
    folder.write(".env", "APP_URL=https://shop.test\nREDIS_PREFIX=shop_database_\n");
    let mut doctor = Running::spawn(folder.command(&["doctor", "--listen", "1"]));
    doctor.wait_for("agrees with that of Redis");
    // Publishes until doctor is listening and has received an event.
    let mut publisher = redis::Client::open(("127.0.0.1", redis.port)).unwrap().get_connection().unwrap();
    while doctor.is_alive() {
        redis::cmd("PUBLISH").arg("shop_database_private-orders").arg("{}").query::<i64>(&mut publisher).unwrap();
        std::thread::yield_now();
    }
    assert_eq!(doctor.end().code(), Some(1));
    let text = doctor.seen.join("\n");
    super::assert_holds(
        &text,
        &[
            "`databaseConfig.redis.keyPrefix` is \"\", Laravel's is \"shop_database_\"",
            "events carry the prefix \"shop_database_\" (`shop_database_private-orders`)",
            "[databaseConfig.redis] keyPrefix = \"shop_database_\"",
            "any web page may connect",
        ],
    );
}

#[test]
fn the_redis_of_the_project_is_compared_with_the_servers() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    folder.write(
        "config/database.php",
        "<?php return ['redis' => ['default' => ['host' => env('REDIS_HOST', '127.0.0.1'), 'port' => env('REDIS_PORT', '6379')]]];",
    );
    for (host, port, more, parts) in [
        ("localhost", redis.port, "", &[][..]),
        ("10.1.2.3", redis.port, "", &["Laravel publishes to 10.1.2.3:", "REDIS_HOST in .env", "host = \"10.1.2.3\""]),
        ("127.0.0.1", 1, "", &["Laravel publishes to 127.0.0.1:1 (REDIS_PORT in .env), this server listens to 127.0.0.1:", "port = 1;"]),
        (
            "127.0.0.1",
            1,
            "[subscribers]\nredis = false\n[redisServer]\nenabled = true\nport = 2\n",
            &["Laravel publishes to port 1, this server takes broadcasts on port 2", "[subscribers] redis = true"],
        ),
    ] {
        config(&folder, &app(REFUSES), &redis, more);
        folder.write(".env", &format!("BROADCAST_DRIVER=redis\nREDIS_HOST={host}\nREDIS_PORT={port}\n"));
        let report = folder.run(&["doctor", "--listen", "0"]);
        assert_eq!(report.stdout.contains("Laravel publishes to"), !parts.is_empty(), "{}", report.stdout);
        super::assert_holds(&report.stdout, parts);
    }
}

#[test]
fn another_broadcast_driver_in_laravel_is_a_problem() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    let auth_host = app(REFUSES);
    let client = "[[clients]]\nappId = \"shop\"\nkey = \"0123456789abcdef\"\nsecret = \"s\"\n";
    let pusher =
        "BROADCAST_CONNECTION=pusher\nPUSHER_APP_ID=shop\nPUSHER_APP_KEY=0123456789abcdef\nPUSHER_APP_SECRET=s\nPUSHER_HOST=ws.test";
    for (env, more, status, parts) in [
        (
            "BROADCAST_CONNECTION=log",
            "",
            "problem",
            &["`log` (BROADCAST_CONNECTION in .env)", "BROADCAST_CONNECTION=redis", "config:clear"][..],
        ),
        ("BROADCAST_DRIVER=null", "", "problem", &["`null`", "BROADCAST_DRIVER=redis"]),
        ("BROADCAST_CONNECTION=reverb", "", "problem", &["`reverb`", "client:add"]),
        (pusher, client, "ok", &["`pusher`", "`host` and `port`"]),
        ("BROADCAST_CONNECTION=redis", "", "ok", &["`redis`"]),
        (
            "BROADCAST_CONNECTION=redis",
            "[subscribers]\nredis = false\n",
            "problem",
            &["does not receive events from Redis", "[redisServer]"],
        ),
    ] {
        config(&folder, &auth_host, &redis, more);
        folder.write(".env", &format!("{env}\n"));
        let (code, report) = examine(&folder, "0");
        let (found, text) = finding(&report, "laravel");
        assert_eq!((found.as_str(), code), (status, i32::from(status == "problem")), "{env}: {report:#}");
        super::assert_holds(&text, parts);
    }
}

#[test]
fn an_empty_prefix_in_laravel_is_fine() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    config(&folder, &app(REFUSES), &redis, "keyPrefix = \"\"");
    let database = "<?php return ['redis' => ['options' => ['prefix' => env('REDIS_PREFIX', 'laravel_database_')], 'default' => []]];";
    folder.write("config/database.php", database);
    for (env, status, part) in [
        ("REDIS_PREFIX=\n", "ok", "\"\" is Laravel's (REDIS_PREFIX in "),
        ("REDIS_PREFIX=null\n", "ok", "is Laravel's"),
        ("", "problem", "Laravel's is \"laravel_database_\""),
    ] {
        folder.write(".env", env);
        let (code, report) = examine(&folder, "0");
        let (found, text) = finding(&report, "prefix");
        assert_eq!((found.as_str(), code), (status, i32::from(status == "problem")), "{env}: {report:#}");
        super::assert_holds(&text, &[part]);
    }
    folder.write("config/database.php", "<?php return ['redis' => ['options' => ['prefix' => tenant()], 'default' => []]];");
    let (code, report) = examine(&folder, "0");
    let (found, text) = finding(&report, "prefix");
    assert_eq!((found.as_str(), code), ("warning", 0), "{report:#}");
    super::assert_holds(&text, &["could not be read: `tenant()` in ", "php artisan config:show"]);
    // Neither that command nor the variable is known everywhere.
    let events = |report: &Value| finding(report, "events").1;
    super::assert_holds(&events(&report), &["BROADCAST_CONNECTION (or BROADCAST_DRIVER) is not redis"]);
    folder.write("composer.json", r#"{"require": {"laravel/framework": "^12.0"}}"#);
    super::assert_holds(&events(&examine(&folder, "0").1), &["arrives, BROADCAST_CONNECTION is not redis"]);
    folder.write("composer.json", r#"{"require": {"laravel/framework": "^8.83"}}"#);
    let (_, report) = examine(&folder, "0");
    super::assert_holds(&events(&report), &["arrives, BROADCAST_DRIVER is not redis"]);
    super::assert_holds(&finding(&report, "prefix").1, &["`php artisan tinker --execute=\"dump(config('database.redis.options'))\"`"]);
}

#[test]
fn without_redis_the_prefix_is_not_checked() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    let client = "[[clients]]\nappId = \"1\"\nkey = \"0123456789abcdef\"\nsecret = \"s\"\n";
    config(&folder, &app(REFUSES), &redis, client);
    let env = "BROADCAST_CONNECTION=pusher\nPUSHER_APP_ID=1\nPUSHER_APP_KEY=0123456789abcdef\nPUSHER_APP_SECRET=s\nPUSHER_HOST=ws.test\n";
    folder.write(".env", &format!("{env}REDIS_PREFIX=shop_\n"));
    let (code, report) = examine(&folder, "0");
    assert_eq!(code, 0, "{report:#}");
    assert!(!report.to_string().contains("shop_"), "{report:#}");
}

#[test]
fn a_missing_broadcast_connection_is_a_problem() {
    const CONNECTION: &str = "'redis' => ['driver' => 'redis', 'connection' => env('BROADCAST_REDIS_CONNECTION', 'default')],";
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    config(&folder, &app(REFUSES), &redis, "keyPrefix = \"x_\"");
    folder.write("composer.json", r#"{"require": {"laravel/framework": "^11.31"}}"#);
    for (env, fix) in [
        ("BROADCAST_CONNECTION=redis\nREDIS_PREFIX=x_\n", "then `php artisan config:clear`"),
        ("BROADCAST_CONNECTION=log\nREDIS_PREFIX=x_\n", "BROADCAST_CONNECTION=redis in Laravel's .env, then"),
    ] {
        folder.write(".env", env);
        let (code, report) = examine(&folder, "0");
        let (status, text) = finding(&report, "laravel");
        assert_eq!((status.as_str(), code), ("problem", 1), "{report:#}");
        super::assert_holds(&text, &["\nphp artisan config:publish broadcasting\n", CONNECTION, fix]);
    }
    let published =
        |connections: &str| format!("<?php return ['default' => env('BROADCAST_CONNECTION', 'null'), 'connections' => [{connections}]];");
    folder.write(".env", "BROADCAST_CONNECTION=redis\nREDIS_PREFIX=x_\n");
    folder.write("config/broadcasting.php", &published(""));
    let (code, report) = examine(&folder, "0");
    let (_, text) = finding(&report, "laravel");
    assert!(code == 1 && text.contains(CONNECTION) && !text.contains("config:publish"), "{report:#}");
    folder.write("config/broadcasting.php", &published(CONNECTION));
    let (code, report) = examine(&folder, "0");
    assert_eq!((code, finding(&report, "laravel").0.as_str()), (0, "ok"), "{report:#}");
}

#[test]
fn a_server_that_subscribes_to_its_own_endpoint_is_reported() {
    let folder = Folder::new();
    let port = free_port();
    let text = format!(
        "host = \"127.0.0.1\"\nport = {}\nauthHost = \"{}\"\n[subscribers]\nredis = true\n[redisServer]\nenabled = true\nport = {port}\n\
         [databaseConfig.redis]\nport = {port}\n",
        free_port(),
        app(REFUSES)
    );
    folder.write("laravel-echo-server.toml", &text);
    let (code, report) = examine(&folder, "0");
    assert_eq!((code, finding(&report, "redis").0.as_str()), (1, "problem"), "{report:#}");
    super::assert_holds(&finding(&report, "redis").1, &["own endpoint", "[subscribers] redis = false"]);
}

#[test]
fn every_port_is_checked() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    let (metrics, endpoint) = (free_port(), free_port());
    let more = format!("[redisServer]\nenabled = true\nport = {endpoint}\n[metrics]\nport = {metrics}\n");
    config(&folder, &app(REFUSES), &redis, &more);
    let ports = |report: &Value| {
        let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == "port");
        findings.map(|finding| format!("{} {}", finding["status"], finding["message"]).replace('"', "")).collect::<Vec<_>>()
    };
    let (code, report) = examine(&folder, "0");
    assert_eq!(code, 0, "{report:#}");
    let free = [format!("ok {metrics} (`metrics.port`) is free"), format!("ok {endpoint} (`redisServer.port`) is free")];
    assert_eq!(ports(&report)[1..], free);

    let taken = TcpListener::bind(("127.0.0.1", endpoint)).unwrap();
    let (code, report) = examine(&folder, "0");
    assert_eq!((code, &ports(&report)[2]), (1, &format!("problem {endpoint} (`redisServer.port`) is in use by another program")));
    drop(taken);

    let _running = folder.start(&[]);
    let (code, report) = examine(&folder, "0");
    assert_eq!(code, 0, "{report:#}");
    assert!(ports(&report)[1..].iter().all(|port| port.starts_with("ok") && port.ends_with("is in use by the server")), "{report:#}");
}

#[test]
fn a_redis_used_only_for_members_is_checked_too() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &["--requirepass", "secret"]);
    let members = format!("[subscribers]\nredis = false\n[redisServer]\nenabled = true\nport = {}\n", free_port());
    config(&folder, &app(REFUSES), &redis, &members);
    let text = folder.read("laravel-echo-server.toml");
    assert_eq!(examine(&folder, "0").0, 0, "Redis is not used");
    folder.write("laravel-echo-server.toml", &format!("database = \"redis\"\n{text}"));
    let (code, report) = examine(&folder, "0");
    assert_eq!(code, 1, "{report:#}");
    assert!(report.to_string().contains("NOAUTH"), "{report:#}");
}

#[test]
fn a_server_without_a_config_file_is_examined_too() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    let with = |arguments: &[&str]| {
        let mut command = folder.command(arguments);
        command.env("LARAVEL_ECHO_SERVER_PORT", free_port().to_string()).env("LARAVEL_ECHO_SERVER_AUTH_HOST", app(REFUSES));
        command.env("LARAVEL_ECHO_SERVER_REDIS_PORT", redis.port.to_string());
        let ended = command.output().expect("the command ends");
        (ended.status.code(), String::from_utf8_lossy(&ended.stdout).into_owned())
    };
    let (code, text) = with(&["doctor", "--defaults", "--listen", "0"]);
    assert_eq!(code, Some(0), "{text}");
    super::assert_holds(&text, &["the defaults and the environment are valid", &format!("127.0.0.1:{} answers", redis.port)]);
    let (code, text) = with(&["config", "check", "--defaults", "--changed"]);
    assert_eq!(code, Some(0), "{text}");
    super::assert_holds(&text, &["LARAVEL_ECHO_SERVER_REDIS_PORT in the environment", "The configuration is valid."]);
}

#[test]
fn a_broken_config_is_the_first_problem() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.toml", "port = \"abc\"\n");
    let (code, report) = examine(&folder, "0");
    assert_eq!(code, 1);
    assert!(finding(&report, "config").1.contains("`port` is \"abc\""), "{report:#}");
}

#[test]
fn a_ca_certificate_is_reported_with_the_command_for_a_better_one() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    let (port, redis_port) = (free_port(), redis.port);
    let server = format!(
        "host = \"127.0.0.1\"\nport = {port}\nprotocol = \"https\"\nsslCertPath = \"cert.pem\"\nsslKeyPath = \"key.pem\"\n[subscribers]\nredis = false\n"
    );
    folder.write("app.toml", &server);
    let ours = format!(
        "host = \"127.0.0.1\"\nport = {}\nauthHost = \"https://localhost:{port}\"\n[auth.tls]\nca = \"cert.pem\"\n[databaseConfig.redis]\nport = {redis_port}\n",
        free_port()
    );
    folder.write("laravel-echo-server.toml", &ours);
    let make = |more: &str| {
        let usual = "req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem";
        let arguments = usual.split(' ').chain(more.split(' ').filter(|word| !word.is_empty()));
        let made = Command::new("openssl").args(arguments).current_dir(folder.path("")).output().expect("openssl is installed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    make("");
    let running = folder.start(&["--config", "app.toml"]);
    let (_, text) = finding(&examine(&folder, "0").1, "auth");
    super::assert_holds(&text, &["CaUsedAsEndEntity", "-addext basicConstraints=critical,CA:FALSE", "`auth.tls.verify = false`"]);
    drop(running);

    // Follows the advice in the message.
    make("-addext basicConstraints=critical,CA:FALSE");
    let _running = folder.start(&["--config", "app.toml"]);
    let (_, text) = finding(&examine(&folder, "0").1, "auth");
    super::assert_holds(&text, &["answers 404", "that is the answer of a laravel-echo-server"]);
}

#[test]
fn the_auth_check_sends_the_credentials_in_auth_host() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binding a free port");
    let at = listener.local_addr().expect("a bound listener has an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or_default();
            let is_known = String::from_utf8_lossy(&request[..read]).to_lowercase().contains("authorization: basic ym9iomm=");
            let status = if is_known { REFUSES } else { "500 Basic authorization is missing" };
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}").as_bytes());
        }
    });
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    config(&folder, &format!("http://bob:c@{at}"), &redis, "");
    let (code, report) = examine(&folder, "0");
    assert_eq!((code, finding(&report, "auth").0.as_str()), (0, "ok"), "{report:#}");
    assert!(!report.to_string().contains("bob:c"), "{report:#}");
}

#[test]
fn an_unneeded_redis_password_is_reported_and_ignored() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    config(&folder, &app(REFUSES), &redis, "password = \"superfluous\"");
    let (code, report) = examine(&folder, "0");
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(finding(&report, "events").0, "unknown", "{report:#}");
    let warning =
        report["findings"].as_array().unwrap().iter().find(|finding| finding["check"] == "redis" && finding["status"] == "warning");
    let warning = warning.unwrap_or_else(|| panic!("no warning in {report:#}")).to_string();
    super::assert_holds(&warning, &["needs no password", "goes on without it", "requirepass"]);
}

#[test]
fn webhook_writes_to_redis_are_tried_and_cleaned_up() {
    let folder = Folder::new();
    let webhooks = "[[webhooks]]\ntarget = \"queue\"\njob = \"App\\\\Jobs\\\\Hook\"\n[webhooksDelivery]\nstore = \"redis\"";
    let tried = |redis: &Redis| {
        config(&folder, &app(REFUSES), redis, webhooks);
        let ended = folder.run(&["doctor", "--json", "--listen", "0", "--webhooks"]);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr));
        let findings = report["findings"].as_array().expect("findings are a list").clone();
        findings.into_iter().filter(|finding| finding["check"] == "webhooks").collect::<Vec<_>>()
    };
    let redis = Redis::start(free_port(), &[]);
    let found = tried(&redis);
    assert_eq!((found.len(), &found[0]["status"], &found[1]["status"]), (2, &"ok".into(), &"ok".into()), "{found:#?}");
    let keys = Command::new("redis-cli").args(["-p", &redis.port.to_string(), "dbsize"]).output().expect("redis-cli runs");
    assert_eq!(String::from_utf8_lossy(&keys.stdout).trim(), "0");

    for (options, hint) in [
        (&["--maxmemory", "1"][..], "maxmemory"),
        (&["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-rpush", "-xadd"], "+@write"),
        (&["--user", "default", "on", "nopass", "~other", "&*", "+@all"], "ACL SETUSER"),
        (&["--user", "default", "on", "nopass", "~*", "&*", "+@all", "-eval"], "+@scripting"),
    ] {
        let found = tried(&Redis::start(free_port(), options));
        assert_eq!(found.len(), 2, "{found:#?}");
        for finding in found {
            assert_eq!(finding["status"], "problem", "{options:?} {finding:#}");
            assert!(!finding["message"].as_str().expect("a message").contains("Pipeline"), "{finding:#}");
            assert!(finding["fix"].as_str().expect("a fix").contains(hint), "{options:?} {finding:#}");
        }
    }
}

#[test]
fn pusher_credentials_are_compared_with_clients_and_tested() {
    let folder = Folder::new();
    let redis = Redis::start(free_port(), &[]);
    let port = free_port();
    let text = |key: &str, secret: &str| {
        format!(
            "host = \"127.0.0.1\"\nport = {port}\nauthHost = \"{}\"\n[databaseConfig.redis]\nport = {}\n\
             [[clients]]\nappId = \"shop\"\nkey = \"{key}\"\n{secret}\n",
            app(REFUSES),
            redis.port
        )
    };
    let env = |id: &str, host: &str, port: u16| {
        format!(
            "BROADCAST_CONNECTION=reverb\nREVERB_APP_ID={id}\nREVERB_APP_KEY=shop-key\nREVERB_APP_SECRET=shop-secret\n{host}REVERB_PORT={port}\n\
             REVERB_SCHEME=http\n"
        )
    };
    let (right, here) = ("secret = \"shop-secret\"", "REVERB_HOST=localhost\n");
    for (config, env, parts) in [
        (
            text("shop-key", right),
            env("other", here, port),
            &["appId \"other\" (REVERB_APP_ID in ", "[[clients]]\nappId = \"other\"", "REVERB_APP_SECRET in "][..],
        ),
        (text("another", right), env("shop", here, port), &["`key` of the entry", "REVERB_APP_KEY", "key = \"shop-key\""]),
        (text("shop-key", ""), env("shop", here, port), &["has no `secret`", "REVERB_APP_SECRET"]),
        (text("shop-key", "secret = \"x\""), env("shop", here, port), &["`secret` of the entry", "config:clear"]),
        (text("shop-key", right), env("shop", "", port), &["Pusher's own servers", "env('REVERB_HOST')"]),
        (text("shop-key", right), env("shop", here, 1), &["port 1 of this machine", "REVERB_PORT="]),
        (text("shop-key", right), env("shop", here, port).replace("REVERB_APP_KEY=shop-key\n", ""), &["REVERB_APP_KEY is not set"]),
    ] {
        folder.write("laravel-echo-server.toml", &config);
        folder.write(".env", &env);
        let (code, report) = examine(&folder, "0");
        let (status, text) = finding(&report, "pusher");
        assert_eq!((code, status.as_str()), (1, "problem"), "{env}: {report:#}");
        super::assert_holds(&text, parts);
        assert!(!text.contains("shop-secret"), "{text}");
    }

    folder.write("laravel-echo-server.toml", &text("shop-key", right));
    folder.write(".env", &env("shop", here, port));
    let asked = |report: &Value| {
        let findings = report["findings"].as_array().unwrap().iter().filter(|finding| finding["check"] == "pusher");
        findings.map(|finding| format!("{} {}", finding["status"], finding["message"])).collect::<Vec<_>>()
    };
    let (code, report) = examine(&folder, "0");
    assert_eq!(code, 0, "{report:#}");
    assert!(asked(&report)[1].contains("cannot be reached"), "{report:#}");
    let _running = folder.start(&[]);
    let (code, report) = examine(&folder, "0");
    assert_eq!(code, 0, "{report:#}");
    assert!(asked(&report)[1].contains("accepts this driver's signature"), "{report:#}");
}
