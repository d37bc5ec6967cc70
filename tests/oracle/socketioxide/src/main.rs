//! A small socketioxide server: clients join channels, and events are published by `POST /publish`.
//!
//! Input: requests. Output: the port that it listens on, as a line on stdout; what its clients see.

use axum::Json;
use axum::routing::post;
use serde::Deserialize;
use socketioxide::SocketIo;
use socketioxide::extract::{Data, SocketRef};
use socketioxide::handler::ConnectHandler as _;

#[derive(Deserialize)]
struct Subscribe {
    channel: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (layer, io) = SocketIo::new_layer();
    // Before CONNECT is answered: what a client says right behind it would find no handler otherwise.
    let handlers = async |socket: SocketRef| {
        socket.on("subscribe", async |socket: SocketRef, Data(Subscribe { channel }): Data<Subscribe>| socket.join(channel));
        Ok::<(), std::convert::Infallible>(())
    };
    io.ns("/", (async |_: SocketRef| {}).with(handlers));
    let publish = async move |Json(number): Json<u32>| {
        io.to("news").emit("told", &("news", number)).await.expect("clients take an event");
    };
    let app = axum::Router::new().route("/publish", post(publish)).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("an address").port());
    axum::serve(listener, app).await.expect("a listener");
}
