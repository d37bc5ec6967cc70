//! Sources of events outside the server. They call the [`crate::hub::Hub`] and hold no rules of their own.

pub mod redis;
pub mod redis_server;
