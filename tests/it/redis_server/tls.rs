//! `redisServer.tls`, with real publishers.

use std::path::Path;

use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::tls::Certificate;

/// A server with TLS and a separate certificate for the endpoint.
async fn with_tls(certificate: &Certificate) -> Setup {
    setup(json!({ "tls": files(certificate) })).await
}

fn files(certificate: &Certificate) -> Value {
    json!({ "certPath": certificate.0.join("crt"), "keyPath": certificate.0.join("key") })
}

async fn connect(setup: &Setup) -> MultiplexedConnection {
    let client = redis::Client::open(format!("rediss://127.0.0.1:{}/0#insecure", setup.port)).expect("a valid URL");
    client.get_multiplexed_async_connection().await.expect("the endpoint answers")
}

/// redis-cli that trusts only this certificate.
fn cli(setup: &Setup, certificate: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-p", &setup.port.to_string(), "--tls", "--cacert"]).arg(certificate).args(args);
    command
}

#[tokio::test]
async fn all_clients_publish_over_tls() {
    let certificate = Certificate::new("redis-clients");
    let setup = with_tls(&certificate).await;
    let mut client = setup.subscriber().await;
    let mut redis = connect(&setup).await;
    assert_eq!(redis.publish("news", event(1)).await.unwrap(), 1);
    let mut pipe = redis::pipe();
    (2..500).for_each(|n| _ = pipe.publish("news", event(n)));
    assert_eq!(pipe.query_async::<Vec<usize>>(&mut redis).await.unwrap(), vec![1; 498]);
    expect(&mut client, 1..500).await;

    let crt = certificate.0.join("crt");
    assert_eq!(output(&mut cli(&setup, &crt, &["PUBLISH", "news", &event(500)])).await, "1\n");
    expect(&mut client, [500]).await;

    // Like Laravel with `scheme` tls; `context` is passed to phpredis and `ssl` to predis unchanged.
    let phpredis = "$redis = new Redis();
        $redis->connect('tls://127.0.0.1', PORT, 10, null, 0, 10, ['stream' => ['cafile' => 'CRT', 'peer_name' => 'localhost']]);
        $eval = fn ($script, ...$args) => $redis->eval($script, $args, 0);";
    let predis = "require 'Predis/autoload.php';
        $ssl = ['cafile' => 'CRT', 'peer_name' => 'localhost'];
        $redis = new Predis\\Client(['scheme' => 'tls', 'host' => '127.0.0.1', 'port' => PORT, 'ssl' => $ssl]);
        $eval = fn ($script, ...$args) => $redis->eval($script, 0, ...$args);";
    for connect in [phpredis, predis] {
        let connect = connect.replace("PORT", &setup.port.to_string()).replace("CRT", &crt.display().to_string());
        let script = format!("{connect} echo $redis->publish('news', $argv[1]); $eval($argv[3], $argv[2], 'news', 'other');");
        assert_eq!(output(Command::new("php").args(["-r", &script, &event(1), &event(2), LARAVEL])).await, "1");
        expect(&mut client, [1, 2]).await;
    }
}

#[tokio::test]
async fn the_certificate_of_https_is_the_default_and_is_renewed_with_it() {
    let (first, second) = (Certificate::new("redis-first"), Certificate::new("redis-second"));
    let settings = |certificate: &Certificate| json!({ "sslCertPath": certificate.0.join("crt"), "sslKeyPath": certificate.0.join("key") });
    let port = free_port();
    let mut all = settings(&first);
    all["redisServer"] = json!({ "enabled": true, "port": port, "tls": true });
    let setup = Setup { server: TestServer::start(all).await, port };
    let mut redis = connect(&setup).await;

    let believes = async |certificate: &Certificate| {
        let output = cli(&setup, &certificate.0.join("crt"), &["PING"]).output().await.expect("this test needs redis-cli");
        output.stdout == b"PONG\n"
    };
    assert!(believes(&first).await && !believes(&second).await);
    let reload = &setup.server.reload;
    assert_eq!(reload.reload(&setup.server.changed(settings(&second))).unwrap(), [""; 0]);
    assert!(believes(&second).await && !believes(&first).await);
    // A separate certificate, and an unusable one: nothing changes.
    let mut wrong = files(&first);
    wrong["keyPath"] = json!("/nowhere.key");
    let error = reload.reload(&setup.server.changed(json!({ "redisServer": { "tls": wrong } }))).unwrap_err();
    assert_eq!(error.to_string(), "redisServer.tls.keyPath: cannot read `/nowhere.key`");
    assert!(believes(&second).await);
    reload.reload(&setup.server.changed(json!({ "redisServer": { "tls": files(&first) } }))).unwrap();
    assert!(believes(&first).await);
    // The earlier connection is not affected.
    assert_eq!(redis.publish("news", event(1)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_with_the_wrong_protocol_gets_an_error() {
    let certificate = Certificate::new("redis-wrong");
    let tls = with_tls(&certificate).await;
    assert_eq!(talk(&tls, b"PING\r\n").await, "-ERR this port speaks TLS: connect with scheme tls (redis-cli --tls)\r\n");
    let plain = setup(json!({})).await;
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    assert_eq!(talk(&plain, &hello).await, "-ERR this port does not speak TLS: set redisServer.tls, or connect without TLS\r\n");

    // Neither an incomplete handshake nor a plaintext client delays the handshakes of others.
    let mut half = tls.raw().await;
    half.write_all(&hello).await.unwrap();
    assert_eq!(connect(&tls).await.publish("news", event(1)).await.unwrap(), 0);
}
