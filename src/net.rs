//! What is under every connection, whatever is spoken on it: listeners, TLS, websockets, and peers that do not read.
//!
//! Input: accepted streams, and the files of certificates. Output: streams for `server` and the built-in Redis endpoint.

pub mod answer;
pub mod connection;
pub mod headers;
pub mod listen;
pub mod replay;
pub mod tls;
pub mod websocket;
