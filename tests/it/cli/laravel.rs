//! `init` in many kinds of projects: it writes the values that PHP computes, or says that it cannot know them.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Ended, Folder, assert_holds};

/// A `return ['redis' => …]` of a project; `OPTIONS` and `DEFAULT` are its tables.
fn database(prefix: &str, default: &str) -> String {
    format!(
        "<?php\nuse Illuminate\\Support\\Str;\nreturn ['redis' => ['client' => 'phpredis', 'options' => ['prefix' => {prefix}], 'default' => [{default}]]];\n"
    )
}

/// The default connection.
const DEFAULT: &str = "'url' => env('REDIS_URL'), 'host' => env('REDIS_HOST', '127.0.0.1'), 'username' => env('REDIS_USERNAME'), \
    'password' => env('REDIS_PASSWORD'), 'port' => env('REDIS_PORT', '6379'), 'database' => env('REDIS_DB', '0')";

/// The default prefixes of old and new projects.
const OLD: &str = "env('REDIS_PREFIX', Str::slug(env('APP_NAME', 'laravel'), '_').'_database_')";
const NEW: &str = "env('REDIS_PREFIX', Str::slug((string) env('APP_NAME', 'laravel')).'-database-')";

fn project(env: &str, database: &str) -> Folder {
    let folder = Folder::new();
    folder.write(".env", env);
    folder.write("config/database.php", database);
    folder.write(
        "config/app.php",
        "<?php return ['name' => env('APP_NAME', 'Laravel'), 'env' => env('APP_ENV', 'production'), 'timezone' => 'UTC'];",
    );
    let broadcasting =
        "<?php return ['default' => 'redis', 'connections' => ['redis' => ['driver' => 'redis', 'connection' => 'default']]];";
    folder.write("config/broadcasting.php", broadcasting);
    folder
}

/// What PHP computes for the project.
fn truth(folder: &Folder, variables: &[(&str, &str)]) -> Value {
    let output = Command::new("php")
        .args(["-d", "display_errors=stderr"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cli/laravel/truth.php"))
        .arg(folder.path(""))
        .env_clear()
        .env("PATH", std::env::var("PATH").expect("PATH is set"))
        .envs(variables.iter().copied())
        .output()
        .expect("php is installed");
    let ended = Ended::of(output);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr))
}

fn init(folder: &Folder, variables: &[(&str, &str)]) -> Ended {
    let mut command = folder.command(&["init", "--no-interaction", "--force"]);
    Ended::of(command.envs(variables.iter().copied()).output().expect("running init"))
}

/// What `init` wrote, in the form of [`truth`].
fn written(folder: &Folder) -> Value {
    let config: Value = toml::from_str(&folder.read("laravel-echo-server.toml")).expect("it wrote TOML");
    let redis = &config["databaseConfig"]["redis"];
    let path = redis.get("path").cloned().unwrap_or_default();
    let unless_socket = |value: &Value| if path.is_null() { value.clone() } else { Value::Null };
    json!({
        "keyPrefix": redis["keyPrefix"], "host": unless_socket(&redis["host"]), "port": unless_socket(&redis["port"]), "path": path,
        "password": redis.get("password"), "username": redis.get("username"), "db": redis["db"], "tls": redis["tls"]["enabled"],
    })
}

#[track_caller]
fn assert_as_php(env: &str, database: &str, variables: &[(&str, &str)]) {
    let folder = project(env, database);
    let ended = init(&folder, variables);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
    assert!(!ended.stdout.contains("could not be read"), "{env}\n{database}\n{}", ended.stdout);
    assert_eq!(written(&folder), truth(&folder, variables), "{env}\n{database}");
}

#[test]
fn variables_are_read_as_in_php() {
    for env in [
        "",
        "APP_NAME=\nREDIS_HOST=r\n",
        "REDIS_PREFIX=\n",
        "REDIS_PREFIX=\"\"\n",
        "REDIS_PREFIX=null\n",
        "REDIS_PREFIX=(empty)\n",
        "REDIS_PREFIX=false\n",
        "REDIS_PREFIX=shop:\nAPP_NAME=x\n",
        "APP_NAME=\"Müller & Söhne\"\n",
        "APP_NAME='Łódź ß é'\n",
        "APP_NAME=\"Привет мир\"\n",
        "APP_NAME=\"Ελληνικά ευ @ home\"\n",
        "APP_NAME=\"日本語 App_Name-x ½ €\"\n",
        "APP_NAME=null\n",
        "APP_NAME=My#Shop\n",
        "REDIS_PASSWORD=NULL\n",
        "REDIS_PASSWORD=true\n",
        "REDIS_PASSWORD=false\n",
        "REDIS_PASSWORD=a#b\n",
        "REDIS_PASSWORD=\"a#b\" # why\n",
        "REDIS_PASSWORD='a${APP_NAME}\\n'\nAPP_NAME=x\n",
        "REDIS_PASSWORD=\"a\\\"b\\\\c\\$d\\te\"\n",
        "APP_NAME=x\nREDIS_PASSWORD=${APP_NAME}y\nREDIS_HOST=\"${LATER}.${APP_NAME}\"\nLATER=z\n",
        "REDIS_PASSWORD=\"first\nsecond\"\nREDIS_HOST=after\n",
        "REDIS_HOST=one\nREDIS_HOST=two\n",
        "export REDIS_HOST=exported\r\nREDIS_PORT=7000\r\n",
        "REDIS_USERNAME=u\n",
        "REDIS_USERNAME=u\nREDIS_PASSWORD=p\n",
        "REDIS_PASSWORD=0\nREDIS_DB=2\n",
        "REDIS_URL=tcp://h.test:7000\n",
        "REDIS_URL=tls://u:p%40w@h.test:7000/3\n",
        "REDIS_URL=rediss://:s3cr%3At@h.test\nREDIS_PORT=7001\n",
        "REDIS_URL=redis://h.test?database=4&password=q\nREDIS_PASSWORD=p\n",
        "REDIS_URL=\n",
        "REDIS_HOST=tls://h.test\n",
        "REDIS_HOST=/run/redis/redis.sock\nREDIS_PORT=0\n",
        "REDIS_HOST=/run/redis/redis.sock\nREDIS_PORT=-1\nREDIS_PASSWORD=p\n",
    ] {
        assert_as_php(env, &database(OLD, DEFAULT), &[]);
    }
    for env in ["APP_NAME=\"Müller & Söhne\"\n", "APP_NAME=\n", "APP_NAME=a_b@c\n"] {
        assert_as_php(env, &database(NEW, DEFAULT), &[]);
    }
}

#[test]
fn every_letter_is_transliterated_as_in_php() {
    for range in [
        0xa1..0x250,
        0x250..0x370,
        0x370..0x530,
        0x530..0x900,
        0x900..0x1000,
        0x1000..0x1e00,
        0x1e00..0x2000,
        0x2000..0x3000,
        0xff00..0xfff0,
    ] {
        let letters = range.filter_map(char::from_u32).flat_map(|letter| [letter, 'x']).collect::<String>();
        assert_as_php(&format!("APP_NAME=\"{letters}\"\n"), &database(OLD, DEFAULT), &[]);
    }
}

#[test]
fn the_environment_takes_precedence_and_selects_the_file() {
    let usual = database(OLD, DEFAULT);
    assert_as_php("REDIS_HOST=file\nREDIS_PREFIX=file\n", &usual, &[("REDIS_HOST", "process"), ("REDIS_PREFIX", "")]);
    let folder = project("REDIS_HOST=one\n", &usual);
    folder.write(".env.production", "REDIS_HOST=two\nREDIS_PREFIX=live:\n");
    for (variables, host) in [(&[("APP_ENV", "production")][..], "two"), (&[("APP_ENV", "local")], "one"), (&[], "one")] {
        assert_eq!(init(&folder, variables).code, 0);
        assert_eq!((&written(&folder), &written(&folder)["host"]), (&truth(&folder, variables), &json!(host)));
    }
}

#[test]
fn php_is_evaluated() {
    let env = "APP_NAME=\"My Shop\"\nAPP_ENV=local\nREDIS_URL2=redis://u:p@h.test:7000/3\nEMPTY=\n";
    for prefix in [
        "env('EMPTY') ?: 'x_'",
        "env('NONE') ?? env('APP_NAME').\"\\t_\"",
        "env('APP_ENV') === 'production' ? 'p_' : 'l_'",
        "env('APP_ENV') == 'local' && ! env('EMPTY') ? (env('NONE') ? 1 : 2) : 3",
        "match (env('APP_ENV')) { 'production', 'staging' => 'p_', 'local' => 'l_', default => 'd_' }",
        "match (true) { env('EMPTY') === 'x' => 'p_', default => 'd_' }",
        "Str::of(env('APP_NAME'))->slug('_')->append('_database_')",
        "(string) Str::of(env('APP_NAME'))->lower()->replace(' ', '.')->finish(':')",
        "Str::snake(env('APP_NAME')).'_'",
        "Str::kebab('FooBar baz').Str::lower('ÄB').Str::upper('c')",
        "strtolower(str_replace(' ', '-', env('APP_NAME'))).':'",
        "str_replace([' ', 'S'], ['_', 's'], env('APP_NAME'))",
        "sprintf('%s_%s_%d:%%', env('APP_NAME'), env('APP_ENV'), '7x')",
        "config('app.name').'_'",
        "config('app.none', 'none')",
        "\\Illuminate\\Support\\Env::get('APP_ENV', 'x').'_'",
        "env(default: 'd', key: 'NONE')",
        "Str::slug(title: env('APP_NAME'), separator: '')",
        "\"{$name}_\".\"$name-${name}_{$list['a']}$list[a] \\x41\\u{e9}\\101\\$\"",
        "<<<TEXT\n            a $name\n              b\n            TEXT",
        "<<<'TEXT'\n a $name\n TEXT\n",
        "implode('_', ['a', env('APP_ENV'), 3])",
        "$list['a'] . $list['b']['c'] . ($list['none'] ?? 'd') . isset($list['x']) . empty($name)",
        "trim(' x ').rtrim('y//', '/').ucfirst('abc').strtoupper('d').substr('abcdef', 1, -2)",
        "$conditional",
        "(fn () => 1) ? 'closure' : 'none'",
        "getenv('APP_ENV').($_ENV['APP_ENV'] ?? 'n').'x'",
        "1 + 2 * 3 .'_'. -4",
        "true",
        "null",
        "false ?: null ?? 'z'",
    ] {
        let text = format!(
            "<?php\nnamespace Config;\nuse Illuminate\\Support\\Str as Text;\nuse Illuminate\\Support\\Str;\n
            // return ['redis' => []];\n
            $name = Text::slug(env('APP_NAME'), '_');\n$list = array('a' => 'A', 'b' => ['c' => 'C']);\n$list['n'][] = 1;\n
            $later = function ($x) use ($name) {{ return ['redis' => $x]; }};\n
            if (env('APP_ENV') === 'local') {{ $conditional = 'yes'; }} else {{ $conditional = 'no'; }}\n
            $config = ['redis' => ['options' => ['prefix' => 'first'], 'default' => ['host' => 'first', 'port' => 1, 'database' => 0]]];\n
            $config['redis']['options'] = ['prefix' => 'doubled', 'prefix' => {prefix}];\n
            $config['redis']['default'] = array_merge($config['redis']['default'], ['host' => 'second', ...['port' => 2]]);\n
            return $config;\n"
        );
        assert_as_php(env, &text, &[]);
    }
    for default in [
        "'host' => parse_url(env('REDIS_URL2'), PHP_URL_HOST), 'port' => parse_url(env('REDIS_URL2'))['port'], 'password' => parse_url(env('REDIS_URL2'), PHP_URL_PASS)",
        "'scheme' => 'tls', 'host' => 'h', 'port' => 6379, 'database' => '1'",
        "'scheme' => env('NONE', 'tcp'), 'host' => 'h', 'port' => 6_379, 'database' => 0x2",
        "'url' => env('REDIS_URL2'), 'host' => 'ignored', 'port' => 1",
    ] {
        assert_as_php(env, &database("'x'", default), &[]);
    }
}

#[test]
fn code_that_only_php_can_run_is_told_or_right() {
    for (code, prefix) in [
        ("$a = 'x'; $b = &$a; $b = 'y';", "$a"),
        ("$a = 'x'; $n = 'a';", "$$n"),
        ("$a = 1; $a++;", "$a"),
        ("$a = 1; --$a;", "$a"),
        ("$a = ['x', 'y']; array_shift($a);", "$a[0]"),
        ("$a = ['x', 'y']; $b = array_shift($a);", "$a[0]"),
        ("$a = ['y', 'x']; sort($a);", "$a[0]"),
        ("parse_str('a=z', $all);", "$all['a']"),
        ("if (gethostname()) { $a = $b = 'x'; }", "$b ?? 'none'"),
        ("", "~1"),
        ("", "`echo x`"),
        ("", "0o17"),
        ("", "017"),
        ("", "9999999999999999999"),
        ("", "9223372036854775807 + 1"),
        ("", "'a' < 'b' ? 1 : 2"),
        ("", "'1.5' * 2"),
        ("", "-'1.5'"),
        ("", "(float) '1.50'"),
        ("", "'10' < '9' ? 1 : 2"),
    ] {
        let php = database(&format!("({prefix}).'_'"), "'host' => 'h', 'port' => 1").replacen("<?php", &format!("<?php {code}"), 1);
        let folder = project("", &php);
        let (truth, ended) = (truth(&folder, &[]), init(&folder, &[]));
        if !ended.stderr.contains("could not be read") && !ended.stdout.contains("could not be read") {
            assert_eq!(written(&folder)["keyPrefix"], truth["keyPrefix"], "{code} {prefix}");
        }
    }
}

#[test]
fn a_connections_own_prefix_is_ignored() {
    let default = "'host' => 'h', 'port' => 1, 'prefix' => 'own_', 'options' => ['prefix' => 'mine_']";
    assert_as_php("", &database("'all_'", default), &[]);
    let folder = project("", &database("'all_'", default));
    for (version, prefix) in [("5.8.38", "mine_"), ("6.19.1", "mine_"), ("6.20.0", "all_"), ("12.1.0", "all_")] {
        let lock = json!({ "packages": [{ "name": "laravel/framework", "version": format!("v{version}") }] });
        folder.write("composer.lock", &lock.to_string());
        assert_eq!(init(&folder, &[]).code, 0);
        assert_eq!(written(&folder)["keyPrefix"], prefix, "{version}");
    }
}

#[test]
fn older_versions_transliterate_differently() {
    // Recorded from Laravel 5.8 and 6.20 with PHP 8.2; newer versions transliterate Cyrillic differently.
    for (name, prefix) in [
        ("Müller & Söhne", Some("muller_sohne_database_")),
        ("Łódź ß é", Some("lodz_ss_e_database_")),
        ("日本 x", Some("x_database_")),
        ("Хлеб", None),
    ] {
        let folder = project(&format!("APP_NAME=\"{name}\"\n"), &database(OLD, DEFAULT));
        folder.write("composer.json", r#"{"require": {"laravel/framework": "5.8.*"}}"#);
        let said = init(&folder, &[]).stdout;
        match prefix {
            Some(prefix) => assert_eq!(written(&folder)["keyPrefix"], prefix),
            None => assert_holds(&said, &["keyPrefix could not be read: `Str::ascii(\"Хлеб\")` of a Laravel before 7"]),
        }
    }
}

#[test]
fn unknown_values_are_reported_and_asked_for() {
    for prefix in ["Tenant::prefix()", "my_helper('x')", "(require 'x.php')['prefix']", "gethostname()", "env('NONE') ?: FOO", "$unknown"] {
        let folder = project("", &database(prefix, DEFAULT));
        let ended = init(&folder, &[]);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_holds(&ended.stdout, &["databaseConfig.redis.keyPrefix could not be read: ", "config/database.php"]);
        assert_holds(&ended.stderr, &["`databaseConfig.redis.keyPrefix` could not be read"]);
        let text = folder.read("laravel-echo-server.toml");
        let remark = text.lines().position(|line| line.starts_with("# could not be read: ")).expect("a remark");
        assert!(text.lines().nth(remark + 1).is_some_and(|line| line.starts_with("keyPrefix = ")), "{text}");

        let json = folder.run(&["init", "-n", "--json"]);
        assert_eq!(json.code, 1, "{prefix}");
        assert_holds(&json.stderr, &["could not be read", "--help"]);
        let given = folder.run(&["init", "-n", "--force", "--redis-prefix", "x_"]);
        assert!(!given.stderr.contains("could not be read") && given.code == 0, "{}", given.stderr);
        assert!(!folder.read("laravel-echo-server.toml").contains("could not be read"));
    }
    let folder = project("", "<?php return array_merge(tenant(), ['redis' => ['options' => ['prefix' => 'x']]]);");
    init(&folder, &[]);
    assert_eq!(written(&folder)["keyPrefix"], "x");
    let folder = project("", "<?php return array_merge(['redis' => ['options' => ['prefix' => 'x']]], tenant());");
    assert_holds(&init(&folder, &[]).stdout, &["databaseConfig.redis.keyPrefix could not be read: `tenant()`"]);
}

#[test]
fn an_unknown_helper_function_leaves_no_silent_default() {
    let default = "'scheme' => own(env('REDIS_SCHEME'), 'tcp'), 'host' => own(env('REDIS_HOST'), 'h'), 'port' => own(env('REDIS_PORT'), 1), 'password' => own(), \
        'database' => env('REDIS_DB', 2)";
    let folder = project("", &database("'x_'", default));
    let ended = init(&folder, &[]);
    assert_eq!((ended.code, &written(&folder)["db"]), (0, &json!(2)));
    for key in ["host", "port", "password", "tls.enabled"] {
        assert_holds(&ended.stderr, &[&format!("`databaseConfig.redis.{key}` could not be read and has its default: `own()`")]);
    }
    assert_eq!(folder.read("laravel-echo-server.toml").matches("# could not be read: `own()` in config/database.php\n").count(), 4);
}

/// The line that a project needs since Laravel 11.
const CONNECTION: &str = "'redis' => ['driver' => 'redis', 'connection' => env('BROADCAST_REDIS_CONNECTION', 'default')],";

#[test]
fn since_laravel_11_the_redis_connection_has_to_be_added() {
    let folder = Folder::new();
    folder.write("artisan", "");
    folder.write("composer.json", r#"{"require": {"laravel/framework": "^12.0"}}"#);
    folder.write("config/database.php", "<?php return ['default' => 'sqlite'];");
    for (env, first) in [("BROADCAST_CONNECTION=redis", "so every page fails"), ("BROADCAST_CONNECTION=log", "BROADCAST_CONNECTION=redis")]
    {
        folder.write(".env", &format!("APP_NAME=\"My Shop\"\n{env}\n"));
        let said = init(&folder, &[]).stdout;
        assert_holds(&said, &["php artisan config:publish broadcasting", CONNECTION, first]);
    }
    // The rest comes from the framework's own file.
    assert_eq!(written(&folder)["keyPrefix"], "my_shop_database_");
    folder.write("composer.json", r#"{"require": {"laravel/framework": "^13.0"}}"#);
    init(&folder, &[]);
    assert_eq!(written(&folder)["keyPrefix"], "my-shop-database-");
    folder.write(
        "config/broadcasting.php",
        &format!("<?php return ['default' => env('BROADCAST_CONNECTION', 'null'), 'connections' => [{CONNECTION}]];"),
    );
    folder.write(".env", "BROADCAST_CONNECTION=redis\n");
    let said = init(&folder, &[]).stdout;
    assert!(!said.contains("config:publish"), "{said}");
}

#[test]
fn cached_configuration_takes_precedence() {
    let folder = project("REDIS_HOST=changed\n", &database(OLD, DEFAULT));
    let cached = "<?php return array (\n  'app' => \n  array (\n    'url' => 'https://cached.test',\n    'x' => \n    \\Illuminate\\Support\\Thing::__set_state(array(\n    )),\n  ),\n  \
        'database' => \n  array (\n    'redis' => \n    array (\n      'options' => \n      array (\n        'prefix' => 'cached\\'_',\n      ),\n      \
        'default' => \n      array (\n        'host' => 'cached',\n        'port' => '7000',\n        'password' => NULL,\n      ),\n    ),\n  ),\n  \
        'broadcasting' => \n  array (\n    'default' => 'redis',\n    'connections' => \n    array (\n      'redis' => \n      array (\n        'driver' => 'redis',\n      ),\n    ),\n  ),\n);\n";
    folder.write("bootstrap/cache/config.php", cached);
    let ended = init(&folder, &[]);
    let found = written(&folder);
    assert_eq!(
        (&found["host"], &found["port"], &found["keyPrefix"]),
        (&json!("cached"), &json!(7000), &json!("cached'_")),
        "{}",
        ended.stdout
    );
    assert_holds(&ended.stdout, &["authHost = https://cached.test", "bootstrap/cache/config.php"]);
}

#[test]
fn php_is_run_if_possible() {
    let helper = "<?php require '/usr/share/php/Illuminate/autoload.php';
        foreach (glob('/usr/share/php/Illuminate/*/helpers.php') as $helpers) { require_once $helpers; }
        function tenant() { echo 'noise'; return 'tenant_'; }";
    let app = "<?php $app = new Illuminate\\Foundation\\Application(dirname(__DIR__));
        $app->singleton(Illuminate\\Contracts\\Debug\\ExceptionHandler::class, Illuminate\\Foundation\\Exceptions\\Handler::class); return $app;";
    let folder = project("REDIS_HOST=asked\n", &database("tenant()", DEFAULT));
    folder.write("vendor/autoload.php", helper);
    folder.write("bootstrap/app.php", app);
    let ended = init(&folder, &[]);
    assert_eq!(written(&folder)["keyPrefix"], "tenant_", "{}{}", ended.stdout, ended.stderr);
    assert_holds(&ended.stdout, &["keyPrefix = tenant_ (evaluated by PHP)", "host = asked (REDIS_HOST in "]);

    // If PHP fails, that is reported and the files are read instead.
    folder.write("vendor/autoload.php", "<?php throw new Error('no such extension');");
    let ended = init(&folder, &[]);
    assert_holds(&ended.stderr, &["could not ask PHP", "no such extension"]);
    assert_eq!(written(&folder)["host"], "asked");
}

#[test]
fn a_project_that_publishes_to_the_endpoint_does_not_make_it_subscribe_to_itself() {
    let folder = project("", &database("'x_'", DEFAULT));
    let database = "<?php return ['redis' => ['options' => ['prefix' => 'x_'], 'echo' => ['host' => '127.0.0.1', 'port' => 6380, 'password' => 'p']]];";
    folder.write("config/database.php", database);
    folder.write(
        "config/broadcasting.php",
        "<?php return ['default' => 'echo', 'connections' => ['echo' => ['driver' => 'redis', 'connection' => 'echo']]];",
    );
    assert_eq!(init(&folder, &[]).code, 0);
    let config: Value = toml::from_str(&folder.read("laravel-echo-server.toml")).unwrap();
    let said = json!([config["subscribers"]["redis"], config["redisServer"]["enabled"], config["redisServer"]["password"]]);
    assert_eq!(said, json!([false, true, "p"]));
    // If the default connection, used by cache and queue, has the same port, a real Redis is behind it.
    assert_as_php("REDIS_PORT=6380\n", &self::database(OLD, DEFAULT), &[]);
}

#[test]
fn clusters_keep_their_nodes() {
    let folder = project(
        "",
        "<?php return ['redis' => ['options' => ['prefix' => 'x_', 'cluster' => 'redis'], 'clusters' => ['default' => [
        ['host' => 'a', 'port' => 7000, 'password' => 'p'], ['host' => 'tls://b', 'port' => '7001'], ['url' => 'redis://c:7002']]]]];",
    );
    assert_eq!(init(&folder, &[]).code, 0);
    let config: Value = toml::from_str(&folder.read("laravel-echo-server.toml")).unwrap();
    let redis = &config["databaseConfig"]["redis"];
    let nodes = json!([{ "host": "a", "port": 7000 }, { "host": "b", "port": 7001 }, { "host": "c", "port": 7002 }]);
    assert_eq!((&redis["cluster"], &redis["password"], &redis["keyPrefix"]), (&nodes, &json!("p"), &json!("x_")));
}

#[test]
fn sentinels_keep_their_addresses() {
    let folder = project(
        "REDIS_SENTINEL=tcp://one.test:26380\nREDIS_PASSWORD=p\n",
        "<?php return ['redis' => ['client' => 'predis', 'default' => [
        env('REDIS_SENTINEL').'?timeout=0.1', 'tcp://two.test',
        'options' => ['replication' => 'sentinel', 'service' => 'mymaster', 'parameters' => ['password' => env('REDIS_PASSWORD')]]]]];",
    );
    assert_eq!(init(&folder, &[]).code, 0);
    let config: Value = toml::from_str(&folder.read("laravel-echo-server.toml")).unwrap();
    let redis = &config["databaseConfig"]["redis"];
    let nodes = json!([{ "host": "one.test", "port": 26380 }, { "host": "two.test", "port": 26379 }]);
    assert_eq!((&redis["sentinels"], &redis["name"], &redis["password"]), (&nodes, &json!("mymaster"), &json!("p")));
    assert_holds(&folder.run(&["config", "check"]).stdout, &["is valid"]);

    folder.write("config/database.php", "<?php return ['redis' => ['default' => [['host' => 'a'], ['host' => 'b']]]];");
    assert_holds(&init(&folder, &[]).stdout, &["databaseConfig.redis.host could not be read: the connection is a list of servers"]);
}

#[test]
fn the_config_file_decides_which_variable_counts() {
    let broadcasting = "<?php return ['default' => env('BROADCAST_DRIVER', 'null'), 'connections' => [
        'live' => ['driver' => 'redis', 'connection' => 'default'], 'log' => ['driver' => 'log'], 'null' => ['driver' => 'null']]];";
    let said = |env: &str| {
        let folder = project(env, &database("'x_'", DEFAULT));
        folder.write("config/broadcasting.php", broadcasting);
        init(&folder, &[]).stdout
    };
    assert_holds(&said("BROADCAST_DRIVER=log\nBROADCAST_CONNECTION=redis\n"), &["broadcasts to `log` (BROADCAST_DRIVER in ", CONNECTION]);
    let live = said("BROADCAST_DRIVER=live\n");
    assert!(!live.contains("broadcasts to"), "{live}");
    for nothing in ["", "BROADCAST_CONNECTION=redis\n"] {
        assert_holds(&said(nothing), &["`null` (BROADCAST_DRIVER is not set, the default of "]);
    }
    assert_holds(&said("BROADCAST_DRIVER=null\n"), &["`null` (BROADCAST_DRIVER in "]);
    assert_holds(&said("BROADCAST_DRIVER=\n"), &["has no broadcast connection `` (BROADCAST_DRIVER in "]);
}

#[test]
fn an_unset_address_is_asked_for() {
    // On a developer's machine `php artisan serve` may run, which is suggested then.
    let is_open = |host: &str, port| std::net::TcpStream::connect((host, port)).is_ok();
    let suggested = if is_open("127.0.0.1", 8000) && !is_open("localhost", 80) { "http://127.0.0.1:8000" } else { "http://localhost" };
    for (env, lines, expected) in [
        ("APP_URL=http://localhost\n", "\n\n\n\nhttp://127.0.0.1:8000\n", "http://127.0.0.1:8000"),
        ("APP_URL=http://localhost\n", "\n", suggested),
        ("APP_URL=https://shop.test\n", "\n\n\n\nhttps\n", "https://shop.test"),
    ] {
        let folder = project(env, &database(OLD, DEFAULT));
        folder.write("config/app.php", "<?php return ['url' => env('APP_URL', 'http://localhost')];");
        let mut child = folder.command(&["init"]).stdin(Stdio::piped()).spawn().expect("starting the command");
        child.stdin.take().expect("stdin is piped").write_all(lines.as_bytes()).expect("writing the answers");
        let ended = Ended::of(child.wait_with_output().expect("waiting for the command"));
        let config = || toml::from_str::<Value>(&folder.read("laravel-echo-server.toml")).unwrap();
        // https without a certificate fails, which shows that the line answered the next question.
        if lines.contains("https") {
            assert_eq!(ended.code, 1, "{}", ended.stdout);
        } else {
            assert_eq!((ended.code, &config()["authHost"]), (0, &json!(expected)), "{}", ended.stderr);
        }
    }
}

#[test]
fn without_arguments_it_shows_the_next_command_in_a_project() {
    let folder = project("REDIS_HOST=cache.test\nREDIS_PREFIX=shop_\nAPP_URL=http://shop.test\n", &database(OLD, DEFAULT));
    folder.write("artisan", "#!/usr/bin/env php\n");
    let fresh = folder.run(&[]);
    assert_eq!(fresh.code, 0, "{}", fresh.stderr);
    assert_holds(
        &fresh.stdout,
        &["has no config file", "databaseConfig.redis.keyPrefix = shop_", "laravel-echo-server init ", "laravel-echo-server start "],
    );

    let config = "port = 6009\nauthHost = \"http://shop.test\"\n[databaseConfig.redis]\nhost = \"cache.test\"\nkeyPrefix = \"shop_\"\n";
    folder.write("laravel-echo-server.toml", config);
    let ready = folder.run(&[]);
    assert_eq!(ready.code, 0, "{}", ready.stderr);
    assert_holds(
        &ready.stdout,
        &[
            "port 6009 (http)",
            "Redis at cache.test:6379, key prefix \"shop_\"",
            "http://shop.test/broadcasting/auth",
            "laravel-echo-server start ",
        ],
    );
    assert!(!ready.stdout.contains("laravel-echo-server init"), "{}", ready.stdout);

    folder.write("laravel-echo-server.toml", "port = [");
    let broken = folder.run(&[]);
    assert_eq!(broken.code, 1);
    assert_holds(&broken.stderr, &["laravel-echo-server.toml"]);
}

#[test]
fn without_arguments_and_without_a_project_it_prints_its_help() {
    let ended = Folder::new().run(&[]);
    assert_eq!(ended.code, 2);
    assert_holds(&ended.stderr, &["Usage: laravel-echo-server <COMMAND>"]);
}
