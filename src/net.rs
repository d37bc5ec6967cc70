//! What is under every connection, whatever is spoken on it: listeners, TLS, websockets, and peers that do not read.
//!
//! Input: accepted streams, and the files of certificates. Output: streams for `server` and the built-in Redis endpoint.

pub(crate) mod answer;
pub(crate) mod connection;
pub(crate) mod deflate;
pub(crate) mod headers;
pub mod listen;
pub(crate) mod replay;
pub mod tls;
pub(crate) mod websocket;
