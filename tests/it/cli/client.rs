//! `client:add` and `client:remove` edit only the named file, and only what they have to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{Folder, assert_holds, mode};

const TOML: &str = "# my server\nport = \"6001\" # text\n\n[log]\nlevel = \"info\"\n";
const JSON: &str =
    "{\n    \"port\": 6001,\n    \"headers\": {\n        \"X-A\": \"b\"\n    },\n    \"clients\": [],\n    \"authHost\": \"http://a\"\n}\n";

/// The value after `label: ` in the output.
fn shown<'a>(output: &'a str, label: &str) -> &'a str {
    output.lines().find_map(|line| line.strip_prefix(label)).expect("the label is in the output")
}

#[test]
fn an_id_and_a_key_are_generated_and_stored() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.toml", TOML);
    let added = folder.run(&["client:add"]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    assert_holds(&added.stdout, &["API Client added!"]);
    let (id, key) = (shown(&added.stdout, "appId: "), shown(&added.stdout, "key: "));
    let is_hex = |text: &str, len| text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_hex(id, 16) && is_hex(key, 32), "{}", added.stdout);
    assert_eq!(folder.read("laravel-echo-server.toml"), format!("{TOML}\n[[clients]]\nappId = \"{id}\"\nkey = \"{key}\"\n"));
}

#[test]
fn comments_order_unknown_keys_and_mode_are_preserved() {
    for (name, text) in [("echo.toml", TOML), ("echo.json", JSON)] {
        let folder = Folder::new();
        folder.write(name, text);
        fs::set_permissions(folder.path(name), fs::Permissions::from_mode(0o604)).unwrap();
        assert_eq!(folder.run(&["client:add", "my-app", "--config", name]).code, 0);
        assert_eq!(folder.names(), [name], "only the named file is written");
        let with = folder.read(name);
        assert_holds(&with, &["my-app", "6001"]);
        assert_eq!(folder.run(&["client:remove", "my-app", "--config", name]).code, 0);
        assert_eq!(folder.read(name).trim_end(), text.trim_end());
        assert_eq!(mode(&folder.path(name)), 0o604);
    }
}

#[test]
fn a_known_id_gets_a_new_key_and_keeps_the_rest() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.json", r#"{"clients": [{"appId": "a", "key": "old", "secret": "s"}]}"#);
    let updated = folder.run(&["client:add", "a"]);
    assert_holds(&updated.stdout, &["API Client updated!"]);
    let json: serde_json::Value = serde_json::from_str(&folder.read("laravel-echo-server.json")).unwrap();
    assert_eq!(json["clients"][0]["key"], shown(&updated.stdout, "key: "));
    assert_eq!(json["clients"][0]["secret"], "s");
}

#[test]
fn an_unknown_id_removes_no_client() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.json", r#"{"clients": [{"appId": "a", "key": "k"}]}"#);
    let before = folder.read("laravel-echo-server.json");
    let removed = folder.run(&["client:remove", "b"]);
    assert_eq!(removed.code, 1);
    assert_holds(&removed.stderr, &["no client `b`", "the clients are: a"]);
    assert_eq!(folder.read("laravel-echo-server.json"), before);
}

#[test]
fn environment_values_are_not_written() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.json", JSON);
    folder.write(".env", "LARAVEL_ECHO_SERVER_REDIS_PASSWORD=hunter2\nLARAVEL_ECHO_SERVER_PORT=7001\n");
    assert_eq!(folder.run(&["client:add", "a"]).code, 0);
    let text = folder.read("laravel-echo-server.json");
    assert!(!text.contains("hunter2") && !text.contains("7001"), "{text}");
}

#[test]
fn symbolic_links_are_preserved() {
    let folder = Folder::new();
    folder.write("real/echo.json", JSON);
    std::os::unix::fs::symlink("real/echo.json", folder.path("laravel-echo-server.json")).unwrap();
    assert_eq!(folder.run(&["client:add", "a"]).code, 0);
    assert!(folder.path("laravel-echo-server.json").is_symlink());
    assert_holds(&folder.read("real/echo.json"), &["\"a\""]);
}

#[test]
fn the_output_says_that_a_running_server_needs_sighup() {
    let (folder, _) = Folder::with_config();
    let running = folder.start(&[]);
    let hang_up = format!("`kill -HUP {}`", running.pid());
    assert!(folder.run(&["client:add", "app"]).stdout.contains(&hang_up));
    assert!(folder.run(&["client:remove", "app"]).stdout.contains(&hang_up));
    drop(running);
    assert!(!folder.run(&["client:add", "app"]).stdout.contains("running server"));
}
