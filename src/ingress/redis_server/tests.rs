//! One task serves all clients: a panic in one does not end the others.

use std::net::IpAddr;

use tokio::io::AsyncReadExt as _;

use super::*;
use crate::config::Limits;
use crate::event::SocketId;
use crate::hub::tests::Nobody;
use crate::hub::{Allowance, Push, PushError};
use crate::metrics::Metrics;

/// A socket that panics when something is pushed to it.
#[derive(Clone)]
struct Faulty(Arc<(http::HeaderMap, Allowance)>);

impl Socket for Faulty {
    fn id(&self) -> SocketId {
        SocketId::parse("123.456").unwrap()
    }

    fn handshake(&self) -> &http::HeaderMap {
        &self.0.0
    }

    fn peer(&self) -> Option<IpAddr> {
        None
    }

    fn allowance(&self) -> &Allowance {
        &self.0.1
    }

    fn push(&self, push: &Push<'_>) -> Result<(), PushError> {
        if !matches!(push.message, crate::hub::Message::Event { .. }) {
            return Ok(());
        }
        panic!("a panic that this test causes")
    }

    fn close(&self) {}

    fn terminate(&self) {}
}

#[tokio::test]
async fn a_panic_ends_only_its_own_client() {
    let mut config = Config::default();
    config.redis_server.port = 0;
    let store = crate::store::open(&config).await.unwrap();
    let hub = Hub::new(&config, Arc::new(Nobody), store, None, Arc::new(Metrics::new()));
    let socket = Faulty(Arc::new((http::HeaderMap::new(), Allowance::new(&Limits::default()))));
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
