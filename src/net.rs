//! What every connection has, whatever is spoken on it: a handle to cut it by, and TLS.
//!
//! Input: accepted streams, and the files of certificates. Output: streams for `server` and the built-in Redis endpoint.

pub mod link;
pub mod tls;
