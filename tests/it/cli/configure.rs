//! `configure` without a terminal: flags, the surrounding Laravel project, and answers from a pipe.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{Ended, Folder, assert_holds, mode};

fn toml(text: &str) -> Value {
    toml::from_str(text).expect("it wrote TOML")
}

/// Runs it with lines on stdin.
fn answer(folder: &Folder, arguments: &[&str], lines: &str) -> Ended {
    let mut child = folder.command(arguments).stdin(Stdio::piped()).spawn().expect("starting the command");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(lines.as_bytes()).expect("writing the answers");
    drop(stdin);
    Ended::of(child.wait_with_output().expect("waiting for the command"))
}

/// A Laravel project as created by `laravel new`, with a custom name.
fn project() -> Folder {
    let folder = Folder::new();
    folder.write(".env", "APP_NAME=\"My Shop\"\nAPP_URL=https://shop.test\nREDIS_HOST=redis.test\nREDIS_PASSWORD=null\nREDIS_PORT=6380\n");
    let database = r"<?php return ['redis' => [
        'options' => ['prefix' => env('REDIS_PREFIX', Str::slug(env('APP_NAME', 'laravel'), '_').'_database_')],
        'default' => ['url' => env('REDIS_URL'), 'host' => env('REDIS_HOST', '127.0.0.1'), 'password' => env('REDIS_PASSWORD'),
            'port' => env('REDIS_PORT', '6379'), 'database' => env('REDIS_DB', '0')]]];";
    folder.write("config/database.php", database);
    folder
}

#[test]
fn redis_prefix_host_and_origin_come_from_the_project() {
    let folder = project();
    let ended = folder.run(&["init", "--no-interaction"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_holds(&ended.stdout, &["databaseConfig.redis.keyPrefix = my_shop_database_ (APP_NAME in .env)", "Configuration file saved"]);
    let text = folder.read("laravel-echo-server.toml");
    let config = toml(&text);
    let redis = &config["databaseConfig"]["redis"];
    assert_eq!(
        json!([redis["host"], redis["port"], redis["keyPrefix"], config["authHost"], config["allowedOrigins"]]),
        json!(["redis.test", 6380, "my_shop_database_", "https://shop.test", ["https://shop.test"]])
    );
    assert_eq!(redis.get("password"), None, "REDIS_PASSWORD=null means no password");
    assert!(text.contains("# Address of the Laravel application"), "the comments are there");
    assert_eq!(mode(&folder.path("laravel-echo-server.toml")) & 0o007, 0, "it may hold a password");
}

#[test]
fn allowed_origins_is_the_application_if_that_is_known() {
    let local = ["http://localhost", "http://localhost:*", "http://127.0.0.1", "http://127.0.0.1:*"];
    for (env, flags, expected) in [
        ("APP_URL=http://localhost\n", &[][..], &local[..]),
        ("APP_URL=http://127.0.0.1:8000\n", &[], &local),
        ("APP_URL=http://localhost\n", &["--auth-host", "https://.shop.test"], &["https://*.shop.test"]),
        ("", &["--auth-host", "https://a.test/", "--auth-host", "https://b.test"], &["https://a.test", "https://b.test"]),
        ("", &[], &["*"]),
    ] {
        let folder = Folder::new();
        folder.write(".env", env);
        assert_eq!(folder.run(&[&["init", "--no-interaction"], flags].concat()).code, 0);
        assert_eq!(toml(&folder.read("laravel-echo-server.toml"))["allowedOrigins"], json!(expected), "{env}{flags:?}");
    }
}

#[test]
fn a_project_with_another_broadcast_driver_is_reported() {
    let folder = Folder::new();
    for (env, parts) in [
        ("BROADCAST_CONNECTION=log\n", &["broadcasts to `log` (BROADCAST_CONNECTION in .env)", "BROADCAST_CONNECTION=redis"][..]),
        ("BROADCAST_DRIVER=pusher\n", &["broadcasts to `pusher`", "BROADCAST_DRIVER=redis in Laravel's .env"]),
    ] {
        folder.write(".env", env);
        assert_holds(&folder.run(&["init", "--no-interaction", "--force"]).stdout, parts);
    }
    for quiet in ["BROADCAST_CONNECTION=redis\n", "APP_NAME=x\n"] {
        folder.write(".env", quiet);
        let said = folder.run(&["init", "--no-interaction", "--force"]).stdout;
        assert!(!said.contains("broadcasts to"), "{said}");
    }
}

/// Laravel's APP_URL is `http://localhost` until it is set, where often nothing listens.
#[test]
fn an_auth_host_where_nothing_listens_is_reported() {
    let folder = Folder::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let said = || folder.run(&["init", "--no-interaction", "--force", "--auth-host", &url]).stdout;
    assert!(!said().contains("Nothing listens"));
    drop(listener);
    assert_holds(&said(), &[&format!("Nothing listens at {url} (`authHost`)"), "laravel-echo-server.toml"]);
}

#[test]
fn every_question_has_a_flag() {
    let folder = Folder::new();
    let arguments = "configure --no-interaction --config echo.toml --dev-mode --port 7001 --host 127.0.0.1 --database redis --auth-host http://a.test \
        --auth-host http://b.test --auth-endpoint /auth --protocol https --ssl-cert-path c.pem --ssl-key-path k.pem --redis-host r --redis-port 1 \
        --redis-username u --redis-password p --redis-db 2 --redis-prefix x_ --allowed-origin https://a.test --add-client --cors --cors-origin o \
        --cors-methods m --cors-headers h";
    let ended = folder.run(&arguments.split_whitespace().collect::<Vec<_>>());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let config = toml(&folder.read("echo.toml"));
    for (pointer, value) in [
        ("/devMode", json!(true)),
        ("/port", json!(7001)),
        ("/host", json!("127.0.0.1")),
        ("/database", json!("redis")),
        ("/authHost", json!(["http://a.test", "http://b.test"])),
        ("/authEndpoint", json!("/auth")),
        ("/protocol", json!("https")),
        ("/sslCertPath", json!("c.pem")),
        ("/sslKeyPath", json!("k.pem")),
        ("/databaseConfig/redis/host", json!("r")),
        ("/databaseConfig/redis/port", json!(1)),
        ("/databaseConfig/redis/username", json!("u")),
        ("/databaseConfig/redis/password", json!("p")),
        ("/databaseConfig/redis/db", json!(2)),
        ("/databaseConfig/redis/keyPrefix", json!("x_")),
        ("/allowedOrigins", json!(["https://a.test"])),
        ("/apiOriginAllow", json!({"allowCors": true, "allowOrigin": "o", "allowMethods": "m", "allowHeaders": "h"})),
    ] {
        assert_eq!(config.pointer(pointer), Some(&value), "{pointer}");
    }
    let client = &config["clients"][0];
    assert_holds(&ended.stdout, &[client["appId"].as_str().unwrap(), client["key"].as_str().unwrap()]);
    // Everything is right but for the files of the certificate.
    let checked = folder.run(&["config", "check", "--config", "echo.toml"]);
    assert_eq!((checked.code, checked.stderr.lines().count()), (1, 1), "{}", checked.stderr);
    assert_holds(&checked.stderr, &["`start` would fail here: sslCertPath: cannot read `c.pem`"]);
}

#[test]
fn json_has_the_keys_of_the_original() {
    let folder = Folder::new();
    assert_eq!(folder.run(&["init", "-n", "--json"]).code, 0);
    let text = folder.read("laravel-echo-server.json");
    let config: Value = serde_json::from_str(&text).unwrap();
    let keys: Vec<_> = config.as_object().unwrap().keys().take(16).map(String::as_str).collect();
    let wanted = "authHost authEndpoint clients database databaseConfig devMode host port protocol socketio sslCertPath sslKeyPath sslCertChainPath \
        sslPassphrase subscribers apiOriginAllow";
    assert_eq!(keys, wanted.split_whitespace().collect::<Vec<_>>());
    assert_eq!(json!([config["database"], config["port"], config["clients"]]), json!(["redis", "6001", []]));
    assert_holds(&folder.run(&["config", "check"]).stdout, &["is valid"]);
}

#[test]
fn answers_can_be_piped_in_line_by_line() {
    let folder = Folder::new();
    // Development mode, port (first invalid), an existing Redis, database, authHost, then Enter for the rest.
    let ended = answer(&folder, &["init"], "y\nabc\n7001\n\nredis\nhttp://app.test\n");
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_holds(&ended.stderr, &["`port` is \"abc\", expected a port"]);
    assert_holds(&ended.stdout, &["Speak http or https? [http/https]: http (the default: no more answers)"]);
    let config = toml(&folder.read("laravel-echo-server.toml"));
    assert_eq!(
        json!([config["devMode"], config["port"], config["database"], config["authHost"]]),
        json!([true, 7001, "redis", "http://app.test"])
    );
}

#[test]
fn an_answer_that_start_would_refuse_is_asked_for_again() {
    let folder = Folder::new();
    let lines = [
        "n",
        "http://a.test:6001",
        "7001",
        "",
        "",
        "ftp://a",
        "http://a.test",
        "https",
        "",
        "cert.pem",
        "key.pem",
        "redis://b",
        "redis.test",
        "redis.test:6380",
        "6380",
        "",
        "https://a.test/path",
        "https://a.test",
    ];
    let ended = answer(&folder, &["init"], &(lines.join("\n") + "\n"));
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    for reason in [
        "`port` is \"http://a.test:6001\", expected a port from 1 to 65535",
        "`authHost` is \"ftp://a\", expected a URL",
        "`sslCertPath` is empty, expected the path of a PEM file",
        "`databaseConfig.redis.host` is \"redis://b\", expected a host name or an address, without `redis://`",
        "`databaseConfig.redis.port` is \"redis.test:6380\", expected a port from 1 to 65535",
        "`allowedOrigins` is \"https://a.test/path\", expected origins such as",
    ] {
        assert_eq!(ended.stderr.matches(reason).count(), 1, "{reason}: {}", ended.stderr);
    }
    let config = toml(&folder.read("laravel-echo-server.toml"));
    let redis = &config["databaseConfig"]["redis"];
    assert_eq!(
        json!([config["port"], config["sslCertPath"], redis["host"], redis["port"], config["allowedOrigins"]]),
        json!([7001, "cert.pem", "redis.test", 6380, ["https://a.test"]])
    );
}

#[test]
fn without_anybody_to_answer_nothing_is_written() {
    let folder = Folder::new();
    let ended = folder.run(&["init"]);
    assert_eq!(ended.code, 1);
    assert_holds(&ended.stderr, &["no terminal to ask in", "`laravel-echo-server init -n`"]);
    assert!(!folder.path("laravel-echo-server.toml").exists());
}

#[test]
fn help_shows_the_alias_that_was_typed() {
    assert_holds(&Folder::new().run(&["init", "--help"]).stdout, &["Usage: laravel-echo-server init "]);
}

#[test]
fn an_existing_file_is_only_overwritten_after_a_yes() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.toml", "# mine\n");
    // No to development mode, Enter for the twelve questions up to the name of the file, no to overwriting it.
    let refusal = format!(
        "n
{}n
",
        "
"
        .repeat(12)
    );
    for (arguments, lines) in [(&["init", "--no-interaction"][..], ""), (&["init"], "n\n"), (&["init"], &refusal)] {
        let ended = answer(&folder, arguments, lines);
        assert_eq!(ended.code, 1, "{arguments:?}: {}", ended.stdout);
        assert_holds(&ended.stderr, &["left as it is", "--force"]);
        assert_eq!(folder.read("laravel-echo-server.toml"), "# mine\n");
    }
    assert_eq!(folder.run(&["init", "--no-interaction", "--force"]).code, 0);
    assert_ne!(folder.read("laravel-echo-server.toml"), "# mine\n");
}

#[test]
fn without_redis_the_built_in_endpoint_is_configured() {
    let folder = Folder::new();
    let ended = folder.run(&["init", "--no-interaction", "--without-redis", "--redis-prefix", "shop_"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let config = toml(&folder.read("laravel-echo-server.toml"));
    assert_eq!(
        json!([
            config["redisServer"]["enabled"],
            config["subscribers"]["redis"],
            config["database"],
            config["databaseConfig"]["redis"]["keyPrefix"]
        ]),
        json!([true, false, "memory", "shop_"])
    );
    let contradiction = folder.run(&["init", "--no-interaction", "--without-redis", "--redis-host", "r", "--config", "b.toml"]);
    assert_eq!(contradiction.code, 1);
    assert!(contradiction.stderr.contains("--without-redis"), "{}", contradiction.stderr);
}

#[test]
fn app_and_port_of_a_reverb_or_pusher_project_are_used() {
    let env = |driver: &str, prefix: &str, more: &str| {
        format!(
            "{driver}\n{prefix}_APP_ID=\"12\"\n{prefix}_APP_KEY=shop-key\n{prefix}_APP_SECRET='shop secret'\n{prefix}_HOST=localhost\n{more}\n"
        )
    };
    for (env, port) in [
        (env("BROADCAST_CONNECTION=reverb", "REVERB", "REVERB_PORT=8080\nREVERB_SCHEME=http"), 8080),
        (env("BROADCAST_CONNECTION=reverb", "REVERB", "REVERB_PORT=443\nREVERB_SCHEME=https"), 8080),
        (env("BROADCAST_CONNECTION=reverb", "REVERB", "REVERB_PORT=443\nREVERB_SERVER_PORT=9000"), 9000),
        (env("BROADCAST_DRIVER=pusher", "PUSHER", "PUSHER_PORT=443"), 6001),
    ] {
        let folder = Folder::new();
        folder.write(".env", &env);
        let ended = folder.run(&["init", "--no-interaction"]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(!ended.stdout.contains("broadcasts to") && !ended.stdout.contains("shop secret"), "{}", ended.stdout);
        let config = toml(&folder.read("laravel-echo-server.toml"));
        let client = json!([{ "appId": "12", "key": "shop-key", "secret": "shop secret", "requireSignature": true }]);
        assert_eq!((&config["clients"], &config["port"]), (&client, &json!(port)), "{env}");
        assert_eq!((&config["subscribers"]["redis"], &config["redisServer"]["enabled"]), (&json!(false), &json!(false)));
        assert_eq!(config["subscribers"]["http"], true);
        assert_holds(&folder.run(&["config", "check"]).stdout, &["is valid"]);
    }
}

#[test]
fn the_projects_config_file_decides_which_app_is_used() {
    let folder = Folder::new();
    folder.write(".env", "PUSHER_APP_KEY=wrong\nMY_KEY=right\nMY_SECRET=s\n");
    let broadcasting = "<?php return ['default' => 'own', 'connections' => ['own' => ['driver' => 'pusher', 'key' => env('MY_KEY'),
        'secret' => env('MY_SECRET'), 'app_id' => 7, 'options' => ['host' => '127.0.0.1', 'port' => 7001, 'scheme' => 'http']]]];";
    folder.write("config/broadcasting.php", broadcasting);
    assert_eq!(folder.run(&["init", "--no-interaction"]).code, 0);
    let config = toml(&folder.read("laravel-echo-server.toml"));
    assert_eq!(config["clients"], json!([{ "appId": "7", "key": "right", "secret": "s", "requireSignature": true }]));
    assert_eq!(config["port"], 7001);
}
