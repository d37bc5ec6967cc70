//! Clients that make their own callbacks fail or hang, beside one that just wants to join.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{TestServer, metrics, until};

/// An application that closes connections with large headers, never answers for some channels, and grants the rest.
async fn application() -> String {
    const MAX_HEAD: usize = 16 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.windows(13).any(|text| text == b"channel_name=") {
                    if stream.read_buf(&mut request).await.unwrap_or_default() == 0 {
                        return;
                    }
                }
                if request.len() > MAX_HEAD {
                    return;
                }
                if String::from_utf8_lossy(&request).contains("private-hangs") {
                    return std::future::pending().await;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ntrue").await;
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn callbacks_that_clients_make_fail_do_not_affect_others() {
    let server = TestServer::start(json!({ "authHost": application().await })).await;
    let large = "x".repeat(20 * 1024);
    let mut attackers = Vec::new();
    for attacker in 0..3 {
        let mut client = server.client().await;
        for n in 0..30 {
            let channel = format!("private-{attacker}.{n}");
            client.emit("subscribe", json!({ "channel": channel, "auth": { "headers": { "X-Large": large } } })).await;
        }
        attackers.push(client);
    }
    attackers[0].event("subscription_error").await;
    let mut victim = server.client().await;
    for n in 0..20 {
        victim.subscribe(&format!("private-victim.{n}")).await;
    }
    for n in 0..20 {
        server.subscribed(&format!("private-victim.{n}"), 1).await;
    }
}

#[tokio::test]
async fn a_socket_whose_callbacks_hang_does_not_delay_others() {
    let settings = json!({ "authHost": application().await, "auth": { "timeout": "60s" } });
    let server = TestServer::start(settings).await;
    let mut attacker = server.client().await;
    for n in 0..200 {
        attacker.subscribe(&format!("private-hangs.{n}")).await;
    }
    until("all turns that a socket may have", async || metrics(server.address).await.contains("laravel_echo_auth_callbacks_in_flight 8\n"))
        .await;
    let mut victim = server.client().await;
    victim.subscribe("private-victim").await;
    server.subscribed("private-victim", 1).await;
    assert!(metrics(server.address).await.contains("laravel_echo_auth_callbacks_in_flight 8\n"), "they hang still");
}
