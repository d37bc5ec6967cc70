//! One task for all clients: the fault of one is not the end of the others.

use std::net::IpAddr;

use tokio::io::AsyncReadExt as _;

use super::*;
use crate::config::value::Port;
use crate::egress::{EmitError, Frame};
use crate::event::SocketId;
use crate::hub::tests::Nobody;
use crate::metrics::Metrics;

/// A socket that breaks whoever sends to it.
#[derive(Clone)]
struct Faulty(http::HeaderMap);

impl Socket for Faulty {
    fn id(&self) -> SocketId {
        SocketId::parse("AbCd-_0123456789").unwrap()
    }

    fn handshake(&self) -> &http::HeaderMap {
        &self.0
    }

    fn peer(&self) -> Option<IpAddr> {
        None
    }

    fn emit(&self, _: &Frame<'_>) -> Result<(), EmitError> {
        panic!("a fault that this test makes")
    }

    fn close(&self) {}

    fn terminate(&self) {}
}

#[tokio::test]
async fn a_fault_ends_one_client_alone() {
    let mut config = Config::default();
    config.redis_server.port = Port(0);
    let store = crate::store::open(&config).await.unwrap();
    let hub = Hub::new(&config, Arc::new(Nobody), store, None, Arc::new(Metrics::new()));
    let socket = Faulty(http::HeaderMap::new());
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
