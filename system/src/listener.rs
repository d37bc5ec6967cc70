//! An option of listeners for which the standard library has no call. Input: a TCP listener. Output: connections that have sent
//! something.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

/// Has the kernel keep a new connection of a TCP listener until its client has sent something, or until some seconds have passed,
/// about `patience`.
///
/// # Errors
/// The system's, for example for a listener that is not of TCP.
pub fn defer_accept(listener: impl AsFd, patience: Duration) -> io::Result<()> {
    let seconds = libc::c_int::try_from(patience.as_secs()).unwrap_or(libc::c_int::MAX);
    let size = size_of_val(&seconds) as libc::socklen_t;
    let descriptor = listener.as_fd();
    // SAFETY: the descriptor is open as long as it is borrowed, and the option takes an int.
    let outcome =
        unsafe { libc::setsockopt(descriptor.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, (&raw const seconds).cast(), size) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
