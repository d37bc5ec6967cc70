//! The built-in Redis endpoint, with real publishers and with hostile clients.

use redis::aio::MultiplexedConnection;
use redis::{AsyncTypedCommands as _, RedisError};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::{Client, DEADLINE, Redis, TestServer, free_port, until};

mod crowd;
mod tls;

const LARAVEL: &str = "for i = 2, #ARGV do\n  redis.call('publish', ARGV[i], ARGV[1])\nend";

struct Setup {
    server: TestServer,
    port: u16,
}

async fn setup(mut options: Value) -> Setup {
    let port = free_port();
    options["enabled"] = json!(true);
    options["port"] = json!(port);
    Setup { server: TestServer::start(json!({ "redisServer": options })).await, port }
}

impl Setup {
    async fn connect(&self) -> MultiplexedConnection {
        self.connect_as("").await.expect("the endpoint answers")
    }

    async fn connect_as(&self, credentials: &str) -> Result<MultiplexedConnection, RedisError> {
        let client = redis::Client::open(format!("redis://{credentials}127.0.0.1:{}/0", self.port)).expect("a valid URL");
        client.get_multiplexed_async_connection().await
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.expect("the endpoint listens")
    }

    /// A client in the channel `news`.
    async fn subscriber(&self) -> Client {
        let mut client = self.server.client().await;
        client.subscribe("news").await;
        self.server.subscribed("news", 1).await;
        client
    }
}

fn event(n: u32) -> String {
    json!({ "event": "sent", "data": { "n": n }, "socket": null }).to_string()
}

async fn expect(client: &mut Client, numbers: impl IntoIterator<Item = u32>) {
    for n in numbers {
        assert_eq!(client.event("sent").await, [json!("news"), json!({ "n": n })]);
    }
    assert!(client.left_over().is_empty());
}

/// Sends bytes and reads to the end of the connection.
async fn talk(setup: &Setup, bytes: &[u8]) -> String {
    let mut stream = setup.raw().await;
    stream.write_all(bytes).await.expect("the endpoint reads");
    let mut answer = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn output(command: &mut Command) -> String {
    let program = format!("this test needs {:?}", command.as_std().get_program());
    let output = timeout(DEADLINE, command.kill_on_drop(true).output()).await.expect("it ends in time").expect(&program);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test]
async fn publish_returns_how_many_sockets_it_reached() {
    let setup = setup(json!({})).await;
    let mut client = setup.subscriber().await;
    let mut redis = setup.connect().await;
    assert_eq!(redis.publish("news", event(1)).await.unwrap(), 1);
    assert_eq!(redis.publish("other", event(2)).await.unwrap(), 0);
    assert_eq!(redis.publish("news", "no event").await.unwrap(), 0);
    let spublish: usize = redis::cmd("SPUBLISH").arg("news").arg(event(3)).query_async(&mut redis).await.unwrap();
    assert_eq!(spublish, 1);
    expect(&mut client, [1, 3]).await;
}

#[tokio::test]
async fn only_laravels_script_runs() {
    let setup = setup(json!({})).await;
    let mut client = setup.subscriber().await;
    let mut redis = setup.connect().await;
    let eval = redis::cmd("EVAL").arg(LARAVEL).arg(0).arg(event(1)).arg("news").arg("other").clone();
    eval.query_async::<()>(&mut redis).await.unwrap();
    expect(&mut client, [1]).await;
    let queue =
        redis::cmd("EVAL").arg("return redis.call('llen', KEYS[1])").arg(1).arg("queues:default").query_async::<()>(&mut redis).await;
    assert!(queue.unwrap_err().to_string().contains("only Laravel's broadcast script"));
    let get = redis.get("key").await.unwrap_err().to_string();
    assert!(get.contains("takes broadcasts only"), "{get}");
}

#[tokio::test]
async fn pipelines_keep_their_order() {
    let setup = setup(json!({})).await;
    let mut client = setup.subscriber().await;
    let mut redis = setup.connect().await;
    let mut pipe = redis::pipe();
    (0..500).for_each(|n| _ = pipe.publish("news", event(n)));
    assert_eq!(pipe.query_async::<Vec<usize>>(&mut redis).await.unwrap(), vec![1; 500]);
    expect(&mut client, 0..500).await;
    let refused = redis::cmd("MULTI").query_async::<()>(&mut redis).await.unwrap_err().to_string();
    assert!(refused.contains("takes broadcasts only"), "{refused}");
}

#[tokio::test]
async fn a_password_is_required_if_set() {
    let setup = setup(json!({ "password": "pass word", "username": "laravel" })).await;
    for good in [":pass%20word@", "laravel:pass%20word@"] {
        setup.connect_as(good).await.unwrap().publish("news", event(1)).await.unwrap();
    }
    for bad in ["", ":wrong@", "other:pass%20word@", "laravel:@"] {
        let refused = match setup.connect_as(bad).await {
            Ok(mut redis) => redis.publish("news", event(1)).await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "`{bad}` came in");
    }
    assert!(talk(&setup, b"*1\r\n$20000\r\n").await.starts_with("-ERR the command is larger"));
    assert!(talk(&setup, b"PUBLISH news x\r\nQUIT\r\n").await.starts_with("-NOAUTH"));
    let hello = talk(&setup, b"HELLO 3 AUTH laravel 'pass word'\r\nPING\r\nQUIT\r\n").await;
    assert!(hello.starts_with("%7\r\n") && hello.ends_with("+PONG\r\n+OK\r\n"), "{hello}");
}

#[tokio::test]
async fn invalid_input_is_answered_with_an_error_and_disconnected() {
    let setup = setup(json!({ "maxMessageBytes": "100KB", "maxClients": 20 })).await;
    for (bytes, error) in [
        (&b"*1\r\n$4294967296\r\n"[..], "-ERR the command is larger than redisServer.maxMessageBytes (100000)"),
        (b"*2147483647\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n*1\r\n*1\r\n", "-ERR Protocol error: expected '$', got '*'"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\nPUBLISH news x\r\n", "-ERR this port speaks Redis, not HTTP"),
    ] {
        let answer = talk(&setup, bytes).await;
        assert!(answer.starts_with(error), "{answer}");
        assert_eq!(answer.matches("\r\n").count(), 1, "{answer}");
    }
    assert_eq!(talk(&setup, b"ping\r\nQUIT\r\n").await, "+PONG\r\n+OK\r\n");
    let unknown = talk(&setup, b"FLUSHALL\r\nQUIT\r\n").await;
    assert!(
        unknown.starts_with("-ERR unknown command 'FLUSHALL': this endpoint of laravel-echo-server takes broadcasts only"),
        "{unknown}"
    );

    let mut idle = Vec::new();
    let refused = async {
        loop {
            let mut stream = setup.raw().await;
            stream.write_all(b"PING\r\n").await.unwrap();
            let mut line = String::new();
            BufReader::new(&mut stream).read_line(&mut line).await.unwrap();
            if line.starts_with("-ERR max number of clients") {
                return;
            }
            idle.push(stream);
        }
    };
    timeout(DEADLINE, refused).await.expect("clients are limited");
    assert!(idle.len() <= 20, "{}", idle.len());
    drop(idle);
    until("places to be free", async || talk(&setup, b"PING\r\nQUIT\r\n").await.starts_with("+PONG")).await;
}

#[tokio::test]
async fn incomplete_commands_of_all_clients_together_are_bounded() {
    let setup = setup(json!({ "maxMessageBytes": 100_000 })).await;
    let half = [&b"*1\r\n$99000\r\n"[..], &[b'x'; 98_000]].concat();
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = setup.raw().await;
        let _ = stream.write_all(&half).await;
        streams.push(stream);
    }
    let mut closed = 0;
    while closed < 20 {
        let (ended, rest): (Vec<_>, Vec<_>) = streams.into_iter().partition(|stream| match stream.try_read(&mut [0; 64]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        });
        closed += ended.len();
        streams = rest;
        tokio::task::yield_now().await;
    }
    assert!(streams.len() <= 20);
    let mut redis = setup.connect().await;
    assert_eq!(redis.publish("news", event(1)).await.unwrap(), 0);
}

#[tokio::test]
async fn redis_cli_publishes() {
    let setup = setup(json!({})).await;
    let mut client = setup.subscriber().await;
    let port = setup.port.to_string();
    for protocol in ["-2", "-3"] {
        let cli = |args: &[&str]| {
            let mut command = Command::new("redis-cli");
            command.args(["-p", &port, protocol]).args(args);
            command
        };
        assert_eq!(output(&mut cli(&["PUBLISH", "news", &event(1)])).await, "1\n");
        assert_eq!(output(&mut cli(&["EVAL", LARAVEL, "0", &event(2), "news"])).await, "\n");
        assert_eq!(output(&mut cli(&["PING"])).await, "PONG\n");
        assert!(output(&mut cli(&["INFO"])).await.contains("server_name:laravel-echo-server"));
        expect(&mut client, [1, 2]).await;
    }
}

#[tokio::test]
async fn php_publishes_with_both_of_laravels_clients() {
    let setup = setup(json!({ "password": "secret" })).await;
    let mut client = setup.subscriber().await;
    let phpredis = "$redis = new Redis(); $redis->connect('127.0.0.1', PORT); $redis->auth('secret'); $redis->select(0);
        $eval = fn ($script, ...$args) => $redis->eval($script, $args, 0);";
    let predis = "require 'Predis/autoload.php';
        $redis = new Predis\\Client(['port' => PORT, 'password' => 'secret', 'database' => 0]);
        $eval = fn ($script, ...$args) => $redis->eval($script, 0, ...$args);";
    for connect in [phpredis, predis] {
        let script = format!(
            "{} echo $redis->publish('news', $argv[1]); $eval($argv[3], $argv[2], 'news', 'other');",
            connect.replace("PORT", &setup.port.to_string())
        );
        let answer = output(Command::new("php").args(["-r", &script, &event(1), &event(2), LARAVEL])).await;
        assert_eq!(answer, "1");
        expect(&mut client, [1, 2]).await;
    }
}

#[tokio::test]
async fn python_publishes_in_its_ways() {
    let setup = setup(json!({ "password": "secret" })).await;
    let mut client = setup.subscriber().await;
    let script = format!(
        "import redis, sys
r = redis.Redis(port={}, password='secret', client_name='test')
print(r.ping(), r.publish('news', sys.argv[1]))
with r.pipeline(transaction=False) as pipe: print(pipe.publish('news', sys.argv[2]).publish('other', '{{}}').execute())
r.eval(sys.argv[4], 0, sys.argv[3], 'news')",
        setup.port
    );
    // Debian's python3: another one in the path may lack the library.
    let mut python = Command::new("/usr/bin/python3");
    let answer = output(python.args(["-c", &script, &event(1), &event(2), &event(3), LARAVEL])).await;
    assert_eq!(answer, "True 1\n[1, 0]\n");
    expect(&mut client, 1..=3).await;
}

#[tokio::test]
async fn in_a_cluster_messages_are_forwarded_to_its_redis() {
    let mut redis = Redis::start().await;
    let port = free_port();
    let shared = json!({
        "database": "redis",
        "cluster": { "enabled": true },
        "subscribers": { "redis": true },
        "databaseConfig": { "redis": { "host": "127.0.0.1", "port": redis.port } },
    });
    let mut first = shared.clone();
    first["redisServer"] = json!({ "enabled": true, "port": port });
    let (one, other) = (TestServer::start(first).await, TestServer::start(shared).await);
    let (mut here, mut there) = (one.client().await, other.client().await);
    // Each node counts the sockets of all nodes.
    for (server, client, count) in [(&one, &mut here, 1), (&other, &mut there, 2)] {
        client.subscribe("news").await;
        server.subscribed("news", count).await;
    }
    until("both to listen", async || redis.publish("x", "x", &json!(1), None).await == 2).await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let patient = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = client.get_multiplexed_async_connection_with_config(&patient).await.unwrap();
    connection.publish("news", event(1)).await.unwrap();
    let before = redis.calls("exec").await;
    let () = redis::cmd("EVAL").arg((LARAVEL, 0, event(2), "news", "other")).query_async(&mut connection).await.unwrap();
    assert_eq!(redis.calls("exec").await, before + 1, "an event for several channels is one transaction");
    // 40 MB in one transaction would disconnect the nodes: more than Redis keeps for a subscriber.
    let large = json!({ "event": "large", "data": "x".repeat(100_000) }).to_string();
    let channels: Vec<_> = (0..400).map(|n| format!("room.{n}")).chain(["news".to_owned()]).collect();
    let () = redis::cmd("EVAL").arg((LARAVEL, 0, large, channels)).query_async(&mut connection).await.unwrap();
    assert!(redis.calls("exec").await > before + 2, "a large one is several transactions");
    let () = redis::cmd("EVAL").arg((LARAVEL, 0, event(3))).query_async(&mut connection).await.unwrap();
    for client in [&mut here, &mut there] {
        expect(client, 1..=2).await;
        client.event("large").await;
    }
    redis.down();
    until("Laravel to be told", async || {
        let refused = connection.publish("news", event(4)).await.expect_err("there is no Redis");
        refused.to_string().contains("the Redis of the cluster does not answer")
    })
    .await;
}
