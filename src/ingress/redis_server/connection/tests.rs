//! Clients that stop in the middle of a command: their memory is released in time.

use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::config::Config;
use crate::config::value::Secret;
use crate::hub::Hub;
use crate::hub::tests::{Nobody, Recorder};
use crate::metrics::Metrics;

/// The server's side of a connection, and the client's.
struct Served {
    shared: Arc<Shared<Recorder>>,
    client: DuplexStream,
    running: JoinHandle<Result<(), ConnectionError>>,
}

impl Served {
    async fn new(password: Option<&str>) -> Self {
        let mut config = Config::default();
        config.redis_server.password = password.map(|password| Secret(password.to_owned()));
        config.redis_server.max_message_bytes = 1_000_000;
        let store = crate::store::open(&config).await.unwrap();
        let hub = Hub::new(&config, Arc::new(Nobody), store, None, Arc::new(Metrics::new()));
        let shared = Arc::new(Shared::new(&config, hub, None));
        let (ours, client) = tokio::io::duplex(64 * 1024);
        let connection = Connection::new(Arc::clone(&shared));
        Self { shared, client, running: tokio::spawn(connection.run(ours, CancellationToken::new())) }
    }

    /// How long the connection lasts from now on, and why it ends.
    async fn end(self) -> (Duration, String) {
        let begun = Instant::now();
        let error = self.running.await.unwrap().unwrap_err();
        assert_eq!(self.shared.pending.load(Ordering::Relaxed), 0);
        (begun.elapsed(), error.to_string())
    }
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_command_times_out() {
    let mut served = Served::new(None).await;
    // Whatever length is announced, only received bytes count.
    served.client.write_all(b"*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$900000\r\n{").await.unwrap();
    while served.shared.pending.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(served.shared.pending.load(Ordering::Relaxed), 37);
    assert_eq!(served.end().await, (COMMAND_TIMEOUT, ConnectionError::HalfACommand.to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_authenticate_times_out() {
    let served = Served::new(Some("secret")).await;
    assert_eq!(served.end().await.0, COMMAND_TIMEOUT);
    let mut idle = Served::new(Some("secret")).await;
    idle.client.write_all(b"AUTH secret\r\n").await.unwrap();
    let mut answer = [0; 5];
    idle.client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"+OK\r\n");
    // An authenticated client may be idle for any time.
    tokio::time::sleep(100 * COMMAND_TIMEOUT).await;
    assert!(!idle.running.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_replies_is_not_read_from() {
    let mut served = Served::new(None).await;
    let echo = [&b"*2\r\n$4\r\nECHO\r\n$60000\r\n"[..], &[b'x'; 60_000], b"\r\n"].concat();
    let begun = Instant::now();
    let mut sent = 0;
    while timeout(Duration::from_secs(1), served.client.write_all(&echo)).await.is_ok() {
        sent += 1;
    }
    assert!(sent < 10, "{sent}");
    let (_, error) = served.end().await;
    assert_eq!(error, ConnectionError::NotReading.to_string());
    assert!(begun.elapsed() <= WRITE_TIMEOUT + Duration::from_secs(1));
}

#[tokio::test]
async fn the_warning_about_too_many_clients_is_throttled() {
    let shared = Served::new(None).await.shared;
    let said = (0..1_000).filter(|_| shared.should_warn()).count();
    assert_eq!(said, 1);
}
