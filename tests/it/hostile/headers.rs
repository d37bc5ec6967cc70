//! A client that chooses headers of the callback, against an application that could be misled by them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Client, TestServer, free_port, until};

/// An application that gives everyone the same answer, and supports method overrides like PHP frameworks. Returns its address
/// and the number of requests it got.
async fn framework(says: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && !head.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
                        return;
                    }
                }
                counter.fetch_add(1, Ordering::SeqCst);
                let head = String::from_utf8_lossy(&head).to_ascii_lowercase().replace('_', "-");
                let overridden = ["x-http-method-override: options", "x-method-override: options", "x-http-method: head"];
                let is_overridden = overridden.iter().any(|header| head.contains(header));
                // Long enough for a proxy to compress it.
                let body = if is_overridden { String::new() } else { format!("{}{says}", " ".repeat(4000)) };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    (format!("http://{address}"), asked)
}

/// nginx in front of the application; it compresses JSON.
struct Nginx {
    url: String,
    process: Child,
    folder: PathBuf,
}

impl Nginx {
    async fn before(application: &str) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("echo-gzip-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let at = folder.display();
        let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {at}/{name};"));
        let text = format!(
            "daemon off; master_process off; pid {at}/pid; error_log stderr crit; events {{}}\nhttp {{ access_log off; {} gzip on; gzip_types application/json; \
             gzip_proxied any; gzip_min_length 1;\nserver {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {application}; }} }} }}",
            paths.join(" ")
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, text).expect("a file");
        let process = Command::new("nginx")
            .args(["-c".as_ref(), Path::new(&file)])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("this test needs nginx ({error}): apt-get install nginx-light"));
        until("nginx to listen", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
        Self { url: format!("http://127.0.0.1:{port}"), process, folder }
    }

    /// Whether it compresses a response if the request allows that.
    async fn compresses(&self) -> bool {
        // Maybe no server in this process has installed a crypto provider yet, which reqwest needs even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let request = reqwest::Client::new().post(&self.url).header("accept-encoding", "gzip").body("channel_name=x");
        let answer = request.send().await.expect("an answer");
        answer.headers().get("content-encoding").is_some_and(|encoding| encoding == "gzip")
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn no_client_header_turns_a_refusal_into_a_grant() {
    let (application, _) = framework("false").await;
    let nginx = Nginx::before(&application).await;
    assert!(nginx.compresses().await, "otherwise this test could not fail");
    for url in [&application, &nginx.url] {
        let server = TestServer::start(json!({ "authHost": url })).await;
        let mut client = Client::connect(server.address, &[]).await;
        for (number, headers) in [
            json!({}),
            json!({ "X-HTTP-Method-Override": "OPTIONS" }),
            json!({ "x_http_method_override": "OPTIONS" }),
            json!({ "X-Method-Override": "OPTIONS" }),
            json!({ "X-HTTP-Method": "HEAD" }),
            json!({ "Accept-Encoding": "gzip" }),
            json!({ "accept_encoding": "gzip" }),
            json!({ "If-None-Match": "*" }),
            json!({ "Range": "bytes=0-0" }),
            json!({ "Expect": "100-continue" }),
        ]
        .into_iter()
        .enumerate()
        {
            let channel = format!("private-orders.{number}");
            client.emit("subscribe", json!({ "channel": channel, "auth": { "headers": headers } })).await;
            assert_eq!(client.event("subscription_error").await, [json!(channel), json!(403)], "{headers}");
        }
    }
}

#[tokio::test]
async fn no_client_header_hides_the_expiry_of_a_grant() {
    let (application, asked) = framework(r#"{"expires_in":1}"#).await;
    let nginx = Nginx::before(&application).await;
    assert!(nginx.compresses().await, "otherwise this test could not fail");
    for url in [&application, &nginx.url] {
        let server = TestServer::start(json!({ "authHost": url })).await;
        for headers in [json!({}), json!({ "Accept-Encoding": "gzip" }), json!({ "accept_encoding": "gzip, br" }), json!({ "TE": "gzip" })]
        {
            let mut client = Client::connect(server.address, &[]).await;
            client.emit("subscribe", json!({ "channel": "private-orders", "auth": { "headers": headers } })).await;
            server.subscribed("private-orders", 1).await;
            let before = asked.load(Ordering::SeqCst);
            until("the application to be asked again", async || asked.load(Ordering::SeqCst) > before).await;
            drop(client);
            server.subscribed("private-orders", 0).await;
        }
    }
}
