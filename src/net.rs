//! Connection layer below all protocols: listeners, TLS, websockets, and detection of peers that do not read.
//!
//! Input: accepted streams, and certificate files. Output: streams for `server` and the built-in Redis endpoint.

pub(crate) mod accept;
pub(crate) mod answer;
pub(crate) mod connection;
pub(crate) mod deflate;
pub(crate) mod headers;
pub mod listen;
pub(crate) mod replay;
pub(crate) mod response;
pub(crate) mod shared;
pub(crate) mod stream;
pub mod tls;
pub mod unanswered;
pub(crate) mod websocket;
