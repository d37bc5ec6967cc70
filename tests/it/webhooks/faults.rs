//! Applications that fail, hang, or close the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::net::TcpListener;

use super::{Answer, Receiver, SECRET, metric, server, short, told};
use crate::support::{TestServer, until};

#[tokio::test]
async fn failed_deliveries_are_retried_in_order() {
    let receiver = Receiver::start().await;
    let (server, _laravel) = server(&receiver, json!({}), json!({})).await;
    for status in [500, 302, 429] {
        let refused = receiver.refused();
        receiver.answer(Answer::Status(status));
        let mut client = server.client_in("news").await;
        until("a try", async || receiver.refused() > refused).await;
        client.subscribe(&format!("other-{status}")).await;
        until("both to wait", async || metric(&server, "events_waiting").await == 2).await;
        drop(client);
        until("further tries", async || receiver.refused() > refused + 1).await;
        receiver.answer(Answer::Status(200));
        let rounds = [500, 302, 429].iter().position(|other| *other == status).expect("one of them") + 1;
        told(&receiver, rounds * 4).await;
    }
    let told = short(&receiver.events());
    assert_eq!(told.len(), 12, "{told:?}");
    let of_news: Vec<_> = told.iter().filter(|event| event.ends_with(" news")).collect();
    assert_eq!(of_news, ["channel_occupied news", "channel_vacated news"].repeat(3).iter().collect::<Vec<_>>());
    assert!(metric(&server, "deliveries_failed_total").await >= 6);
    assert_eq!(metric(&server, "events_dropped_total").await, 0);
    until("nothing to wait", async || metric(&server, "events_waiting").await == 0).await;
}

#[tokio::test]
async fn a_target_that_hangs_delays_no_other() {
    let (hanging, well) = (Receiver::start().await, Receiver::start().await);
    hanging.answer(Answer::Hang);
    let entry = |receiver: &Receiver| json!({ "url": receiver.url, "key": "echo", "secret": SECRET });
    let server = TestServer::start(json!({ "webhooks": [entry(&hanging), entry(&well)], "webhooksDelivery": { "timeout": "1h" } })).await;
    let mut clients = vec![server.client_in("news").await];
    until("the first to hang", async || hanging.refused() == 1).await;
    for n in 0..5 {
        clients.push(server.client_in(&format!("news-{n}")).await);
        assert_eq!(told(&well, n + 2).await.len(), n + 2);
    }
    assert_eq!(hanging.refused(), 1);
}

#[tokio::test]
async fn a_target_that_hangs_is_retried_after_the_timeout() {
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Hang);
    let (server, _laravel) = server(&receiver, json!({}), json!({ "webhooksDelivery": { "timeout": "300ms" } })).await;
    let _client = server.client_in("news").await;
    until("two tries", async || receiver.refused() == 2).await;
    receiver.answer(Answer::Status(200));
    assert_eq!(short(&told(&receiver, 1).await), ["channel_occupied news"]);
}

#[tokio::test]
async fn reset_connections_are_reopened() {
    let resets = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let resetting = tokio::spawn({
        let resets = Arc::clone(&resets);
        async move {
            while resets.load(Ordering::Relaxed) < 3 {
                let (stream, _) = listener.accept().await.unwrap();
                socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
                drop(stream);
                resets.fetch_add(1, Ordering::Relaxed);
            }
            Receiver::on(listener)
        }
    });
    let entry = json!({ "url": format!("http://{address}/hook"), "key": "echo", "secret": SECRET });
    let server = TestServer::start(json!({ "webhooks": [entry] })).await;
    let _client = server.client_in("news").await;
    let receiver = resetting.await.unwrap();
    assert_eq!(short(&told(&receiver, 1).await), ["channel_occupied news"]);
    assert_eq!(metric(&server, "deliveries_failed_total").await, 3);
}

#[tokio::test]
async fn the_queue_is_bounded_and_keeps_the_newest() {
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Status(503));
    let (server, _laravel) = server(&receiver, json!({}), json!({ "webhooksDelivery": { "queue": 10 } })).await;
    let mut client = server.client().await;
    for n in 0..100 {
        client.subscribe(&format!("news-{n:02}")).await;
    }
    server.subscribed("news-99", 1).await;
    until("90 to be dropped", async || metric(&server, "events_dropped_total").await == 90).await;
    assert_eq!(metric(&server, "events_waiting").await, 10);
    receiver.answer(Answer::Status(200));
    let told = short(&told(&receiver, 10).await);
    assert_eq!(told.len(), 10, "{told:?}");
    assert_eq!(metric(&server, "events_waiting").await, 0);
}

#[tokio::test]
async fn deliveries_that_are_too_old_are_dropped() {
    let receiver = Receiver::start().await;
    receiver.answer(Answer::Status(500));
    let (server, _laravel) = server(&receiver, json!({}), json!({ "webhooksDelivery": { "retryFor": "1s" } })).await;
    let _client = server.client_in("news").await;
    until("it to be given up", async || metric(&server, "events_dropped_total").await == 1).await;
    assert!(receiver.refused() >= 2);
    receiver.answer(Answer::Status(200));
    let _other = server.client_in("other").await;
    assert_eq!(short(&told(&receiver, 1).await), ["channel_occupied other"]);
}
