//! `import`: converts the original's JSON file to an equivalent TOML file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{Folder, assert_holds, mode};

const JSON: &str = r#"{"authHost": "http://app.test", "port": "6002", "devMode": true, "clients": [{"appId": "a", "key": "k"}],
    "databaseConfig": {"redis": {"host": "r", "keyPrefix": "shop_"}, "publishPresence": true}, "verifyAuthPath": true}"#;

#[test]
fn the_toml_file_is_written_beside_the_json_and_takes_precedence() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.json", JSON);
    fs::set_permissions(folder.path("laravel-echo-server.json"), fs::Permissions::from_mode(0o604)).unwrap();
    let ended = folder.run(&["import"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(mode(&folder.path("laravel-echo-server.toml")), 0o604, "as readable as the old file");
    assert_holds(
        &ended.stderr,
        &["unknown key `verifyAuthPath`", "`allowedOrigins`", "`databaseConfig.publishPresence`", "shorter than 16"],
    );
    let text = folder.read("laravel-echo-server.toml");
    assert_holds(
        &text,
        &["port = 6002", "keyPrefix = \"shop_\"", "database = \"redis\"", "appId = \"a\"", "# Address of the Laravel application"],
    );
    assert_holds(&folder.run(&["config", "check"]).stdout, &["laravel-echo-server.toml is valid"]);
}

#[test]
fn nothing_is_overwritten_without_force() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.json", JSON);
    folder.write("laravel-echo-server.toml", "# mine\n");
    let ended = folder.run(&["import"]);
    assert_eq!(ended.code, 1);
    assert_holds(&ended.stderr, &["exists and is left as it is", "--force"]);
    assert_eq!(folder.read("laravel-echo-server.toml"), "# mine\n");
    assert_eq!(folder.run(&["import", "--output", "other.toml"]).code, 0);
    assert_eq!(folder.run(&["import", "--force"]).code, 0);
    assert_eq!(folder.read("laravel-echo-server.toml"), folder.read("other.toml"));
}

#[test]
fn secrets_in_the_environment_are_not_written() {
    let folder = Folder::new();
    folder.write("laravel-echo-server.json", JSON);
    folder.write(".env", "LARAVEL_ECHO_SERVER_REDIS_PASSWORD=hunter2\n");
    assert_eq!(folder.run(&["import"]).code, 0);
    assert!(!folder.read("laravel-echo-server.toml").contains("hunter2"));
}
