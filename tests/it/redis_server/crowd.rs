//! Many idle connections.

use tokio::io::AsyncBufReadExt as _;

use super::*;

/// `bench/idle-publishers.mjs` opens ten times as many and measures their cost.
const CROWD: usize = 1_000;

/// Raises the limit, since both ends of all connections are in this process.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).expect("open files up to the hard limit");
}

#[tokio::test]
async fn many_idle_connections_do_not_affect_others() {
    raise_open_files();
    let setup = setup(json!({ "maxClients": CROWD + 1 })).await;
    let mut client = setup.subscriber().await;
    let mut idle = Vec::new();
    for n in 0..CROWD {
        let mut stream = BufReader::new(setup.raw().await);
        stream.write_all(b"PING\r\n").await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert_eq!(line, "+PONG\r\n");
        if n % 2 == 0 {
            stream.write_all(b"*3\r\n$7\r\nPUBLISH\r\n$1000000\r\nhalf").await.unwrap();
        }
        idle.push(stream);
    }
    let mut redis = setup.connect().await;
    for n in 1..=10 {
        assert_eq!(redis.publish("news", event(n)).await.unwrap(), 1);
    }
    expect(&mut client, 1..=10).await;
    assert_eq!(talk(&setup, b"").await, "-ERR max number of clients reached\r\n");
    drop(idle);
    until("places to be free", async || talk(&setup, b"PING\r\nQUIT\r\n").await.starts_with("+PONG")).await;
}
