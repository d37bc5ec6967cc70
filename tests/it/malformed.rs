//! Packets that no client library sends. The sender may lose its connection; other clients are not affected.

use serde_json::{Value, json};

use crate::support::{Laravel, TestServer, metrics, until};

const PACKETS: &[&str] = &[
    "42",
    "42[]",
    "42{}",
    "42null",
    "42[null]",
    "42[5]",
    r#"42["subscribe"]"#,
    r#"42["subscribe",null]"#,
    r#"42["subscribe",5]"#,
    r#"42["subscribe",{"channel":null}]"#,
    r#"42["subscribe",{"channel":""}]"#,
    r#"42["subscribe",{"channel":{"toString":1}}]"#,
    r#"42["subscribe",{"channel":"constructor"}]"#,
    r#"42["subscribe",{"channel":"__proto__"}]"#,
    r#"42["subscribe",{"channel":"private-x","auth":5}]"#,
    r#"42["subscribe",{"channel":"private-x","auth":{"headers":{"a\r\nb":"c","x":"\u0000"}}}]"#,
    r#"42["unsubscribe",null]"#,
    r#"42["unsubscribe",{"channel":123}]"#,
    r#"42["unsubscribe",{"channel":[1]}]"#,
    r#"42["unsubscribe",{"channel":"presence-never-joined"}]"#,
    r#"42["client event"]"#,
    r#"42["client event","null"]"#,
    r#"42["client event","{"]"#,
    r#"42["client event",{"channel":["private-x"],"event":["client-x"]}]"#,
    r#"451-["subscribe",{"_placeholder":true,"num":0}]"#,
    "459999999999999999999-[]",
    "43",
    "431[]",
    "40",
    "41",
    "44",
    "4",
    "4/none,",
    "9",
    "2probe",
    "žluťoučký kůň",
    "",
];

#[tokio::test]
async fn other_clients_are_not_affected() {
    let laravel = Laravel::start().await;
    // With recovery, a client that disconnects without a close would stay a member for a while.
    let server = TestServer::start(json!({ "authHost": laravel.url, "recovery": { "enabled": false } })).await;
    let mut alice = server.client_of(1).await;
    alice.subscribe("presence-room").await;
    alice.event("presence:subscribed").await;
    for packet in PACKETS {
        let mut attacker = server.client_of(2).await;
        attacker.subscribe("presence-room").await;
        alice.event("presence:joining").await;
        attacker.send_text(packet).await;
        drop(attacker);
        assert_eq!(alice.event("presence:leaving").await[1]["user_id"], 2, "after {packet}");
    }
    assert!(alice.left_over().is_empty(), "{:?}", alice.left_over());
}

/// Opens a polling session that has sent nothing yet; returns the URL to post to.
async fn polling_session(server: &TestServer, http: &reqwest::Client) -> String {
    let answer = http.get(server.url("/socket.io/?EIO=4&transport=polling")).send().await.expect("an answer");
    let open = answer.text().await.expect("a text");
    let open: Value = serde_json::from_str(open.strip_prefix('0').expect("an open packet")).expect("JSON");
    server.url(&format!("/socket.io/?EIO=4&transport=polling&sid={}", open["sid"].as_str().expect("an id")))
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_connection() {
    let server = TestServer::start(json!({ "socketio": { "maxHttpBufferSize": "10KB" } })).await;
    let mut alice = server.client_in("open").await;
    alice.send_text(&format!(r#"42["subscribe",{{"channel":"{}"}}]"#, "x".repeat(11_000))).await;
    alice.closed().await;
    server.subscribed("open", 0).await;

    let http = reqwest::Client::new();
    let session = polling_session(&server, &http).await;
    assert_eq!(http.post(session).body("4".repeat(11_000)).send().await.unwrap().status(), 413);
    let metrics = metrics(server.address).await;
    assert!(metrics.contains("laravel_echo_refusals_total{cause=\"message_size\"} 2\n"), "{metrics}");
}

#[tokio::test]
async fn a_subscribe_right_after_connect_is_never_lost() {
    const COUNT: u64 = 300;
    let server = TestServer::start(json!({})).await;
    let mut clients = Vec::new();
    for _ in 0..COUNT {
        let mut client = server.client().await;
        client.subscribe("open").await;
        clients.push(client);
    }
    server.subscribed("open", COUNT).await;
}

#[tokio::test]
async fn repeated_connects_leave_nothing_behind() {
    let server = TestServer::start(json!({})).await;
    let http = reqwest::Client::new();
    let session = polling_session(&server, &http).await;
    // The last packet ends the session.
    let packets = ["40", "40", "41", "40/none,", "40", "40", "1"].join("\u{1e}");
    assert_eq!(http.post(session).body(packets).send().await.unwrap().status(), 200);
    let status = server.url("/apps/app/status?auth_key=test-key");
    until("all clients to be gone", async || {
        let status = reqwest::get(&status).await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&status).unwrap()["subscription_count"] == 0
    })
    .await;
}
