//! What comes in from outside, turned into calls of the [`crate::hub::Hub`]. No rule lives here.

pub mod redis;
pub mod redis_server;
