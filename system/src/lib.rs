//! The server's only unsafe code, which it forbids itself: calls of the system and of the allocator.

#[cfg(target_os = "linux")]
pub mod listener;
pub mod memory;
