//! One task serves all clients: a panic in one does not end the others.

use tokio::io::AsyncReadExt as _;

use super::*;
use crate::event::SocketId;
use crate::hub::fake_socket::{FakeSocket, Receiver};
use crate::hub::tests::Nobody;
use crate::hub::{Push, PushError};
use crate::metrics::Metrics;

/// Panics when an event is pushed to it.
struct Faulty;

impl Receiver for Faulty {
    fn push(&self, push: &Push<'_>) -> Result<(), PushError> {
        if !matches!(push.message, crate::hub::Message::Event { .. }) {
            return Ok(());
        }
        panic!("a panic that this test causes")
    }
}

#[tokio::test]
async fn a_panic_ends_only_its_own_client() {
    let mut config = Config::default();
    config.redis_server.port = 0;
    let store = crate::store::open(&config).await.unwrap();
    let hub = Hub::new(&config, Arc::new(Nobody), store, None, Arc::new(Metrics::new()));
    let socket = FakeSocket::new(SocketId::parse("123.456").unwrap(), Faulty);
    hub.connect(socket.clone());
    hub.subscribe(socket.id(), "news", Vec::new());
    let server = RedisServer::bind(&config, hub, None).await.unwrap();
    let address = server.local_addr().unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(server.run(stop.clone()));

    let mut other = TcpStream::connect(address).await.unwrap();
    let mut unlucky = TcpStream::connect(address).await.unwrap();
    unlucky.write_all(b"PUBLISH news {\"event\":\"sent\"}\r\n").await.unwrap();
    assert_eq!(unlucky.read(&mut [0; 100]).await.unwrap(), 0);
    other.write_all(b"PING\r\n").await.unwrap();
    let mut answer = [0; 7];
    other.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
    stop.cancel();
    running.await.unwrap();
    assert_eq!(other.read(&mut [0; 100]).await.unwrap(), 0);
}
