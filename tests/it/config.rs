//! Config files that the original wrote (`fixtures/config`) work unchanged, and are edited without a trace.

use std::path::{Path, PathBuf};

use laravel_echo_server::config::env::Environment;
use laravel_echo_server::config::load::{LoadOptions, Loaded, load_with};
use laravel_echo_server::config::{Config, Database, validate};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config").join(name)
}

fn load(name: &str) -> Loaded {
    let options = LoadOptions { config: Some(fixture(name)), ..LoadOptions::default() };
    load_with(&options, &Environment::default()).expect("the original's file is taken")
}

/// The defaults here, as far as the original's file does not say otherwise.
#[test]
fn what_init_wrote_is_the_defaults_with_members_in_redis() {
    let loaded = load("init.json");
    let mut expected = Config { database: Database::Redis, secure_options: Some(67_108_864), ..Config::default() };
    expected.auth.tls.verify.0 = false;
    assert_eq!(loaded.config, expected);
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("`secureOptions` is read but has no effect"), "{:?}", loaded.warnings);
}

#[test]
fn an_id_that_was_stored_as_a_number_is_text_here() {
    let config = load("client-add.json").config;
    assert_eq!(config.clients[0].app_id, "12345");
    assert_eq!(validate::check(&config), Ok(()));
}

#[test]
fn adding_and_removing_a_client_leaves_the_file_as_it_was() {
    for name in ["init.json", "client-add.json"] {
        let folder = crate::cli::Folder::new();
        let before = std::fs::read_to_string(fixture(name)).expect("the fixture is there");
        folder.write("laravel-echo-server.json", &before);
        assert_eq!(folder.run(&["client:add", "my-app"]).code, 0);
        assert_ne!(folder.read("laravel-echo-server.json"), before);
        assert_eq!(folder.run(&["client:remove", "my-app"]).code, 0);
        assert_eq!(folder.read("laravel-echo-server.json"), before, "{name}");
    }
}

#[test]
fn an_env_file_that_cannot_be_read_is_passed_over_with_a_warning() {
    let folder = crate::cli::Folder::new();
    folder.write("laravel-echo-server.toml", "port = 6002\n");
    // Nobody can read a folder as a file, not even root.
    folder.write(".env/file", "");
    let ended = folder.run(&["config", "check"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stderr.contains("`.env` cannot be read"), "{}", ended.stderr);
}

#[test]
fn the_env_file_beside_the_config_wins_over_that_of_the_working_directory() {
    let folder = crate::cli::Folder::new();
    folder.write("sub/laravel-echo-server.toml", "port = 1\n");
    folder.write("sub/.env", "LARAVEL_ECHO_SERVER_PORT=2\n");
    folder.write(".env", "LARAVEL_ECHO_SERVER_PORT=3\nLARAVEL_ECHO_SERVER_HOST=${MY_HOST}\nMY_HOST=127.0.0.9\n");
    let ended = folder.run(&["config", "check", "--dir", "sub", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("it prints JSON");
    assert_eq!(json["values"]["port"], serde_json::json!({"value": 2, "source": "LARAVEL_ECHO_SERVER_PORT in sub/.env"}));
    assert_eq!(json["values"]["host"], serde_json::json!({"value": "127.0.0.9", "source": "LARAVEL_ECHO_SERVER_HOST in .env"}));
}
