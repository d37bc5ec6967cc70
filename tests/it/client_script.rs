//! `/socket.io/socket.io.js`: from the npm package if that is available, otherwise instructions.

use serde_json::json;

use crate::support::TestServer;

#[tokio::test]
async fn the_script_comes_from_the_configured_folder() {
    let folder = std::env::temp_dir().join(format!("echo-script-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("socket.io.js"), "var io;").unwrap();
    let server = TestServer::start(json!({ "socketio": { "clientPath": folder } })).await;
    let response = reqwest::get(server.url("/socket.io/socket.io.js")).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/javascript; charset=utf-8");
    let etag = response.headers()["etag"].clone();
    assert_eq!(response.text().await.unwrap(), "var io;");
    let again = reqwest::Client::new().get(server.url("/socket.io/socket.io.js")).header("if-none-match", etag).send().await.unwrap();
    assert_eq!(again.status(), 304);
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn without_the_package_the_response_says_what_to_do() {
    let server = TestServer::start(json!({ "socketio": { "clientPath": "/nowhere" } })).await;
    let response = reqwest::get(server.url("/socket.io/socket.io.min.js")).await.unwrap();
    assert_eq!(response.status(), 404);
    assert!(response.text().await.unwrap().contains("npm install socket.io-client"));
}
