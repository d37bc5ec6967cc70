//! Drop-in replacement for laravel-echo-server: takes events from Laravel and sends them to Laravel Echo clients.
//!
//! ```text
//!   Redis PUBLISH ───────── ingress::redis ────────┐
//!   Laravel, without Redis ─ ingress::redis_server ┤
//!   HTTP POST ───────────── api::events ───────────┼─▶ Hub ─▶ Push ─▶ sockets
//!   Echo, Pusher clients ── socket_io, pusher ─────┘    │
//!                                                       ├── auth: may this socket join? (asks the Laravel application)
//!                                                       ├── store: who is in a presence channel?
//!                                                       ├── cluster: messages to and from other nodes, through Redis
//!                                                       └── webhooks: tells the application about channels and members
//! ```
//!
//! Every event takes the same path, whatever its source, so each rule lives in one place: the [`hub`].
//!
//! Words: an *ingress* turns outside input into calls to the hub and holds no rules. To *publish* is to hand an event to the
//! hub; to *push* is to put a message of the hub into a client's outbox. A *channel* is public, private or presence, depending
//! on its name; the last two are *guarded*. A *member* is a user in a presence channel, with one or more sockets. A *whisper*
//! is a client event. The *callback* is the HTTP request that asks the application whether a socket may join.
//!
//! Where the server deliberately differs from laravel-echo-server 1.6.3, a comment starts with `Compat:`.

mod admission;
mod api;
pub mod auth;
pub mod channel;
pub mod checks;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod event;
pub mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hub;
pub mod ingress;
pub mod jws;
pub mod metrics;
pub mod net;
mod proxies;
mod pusher;
pub mod readiness;
pub mod redis_client;
pub mod server;
pub mod signature;
pub mod socket_io;
pub mod store;
pub mod telemetry;
pub mod webhooks;

pub use config::Config;
pub use server::Server;
