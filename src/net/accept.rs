//! [`Listener`]: accepts TCP connections.
//!
//! Input: a bound listener. Output: [`Accepted`] connections. On Linux the runtime does not watch them before it has to: a client
//! that polls opens one for each request, which has often arrived, and can be answered, when the connection is accepted.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

#[cfg(target_os = "linux")]
use {
    rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, acceptfrom_with, recv, sendmsg, shutdown},
    std::os::fd::AsFd,
    tokio::io::Interest,
    tokio::io::unix::AsyncFd,
};

/// Accepts connections.
#[cfg(target_os = "linux")]
pub(crate) struct Listener(AsyncFd<std::net::TcpListener>);

/// Accepts connections.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Listener(TcpListener);

/// An accepted connection that the runtime may not watch yet.
#[cfg(target_os = "linux")]
pub(crate) struct Accepted(std::net::TcpStream);

/// An accepted connection.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Accepted(TcpStream);

#[cfg(target_os = "linux")]
impl Listener {
    /// Accepts the connections of `listener`.
    #[expect(deprecated, reason = "its successor is unsafe, for types that could change their descriptor; std's listener does not")]
    pub(crate) fn new(listener: TcpListener) -> io::Result<Self> {
        AsyncFd::with_interest(listener.into_std()?, Interest::READABLE).map(Self)
    }

    /// The next connection, and the address of its peer.
    pub(crate) async fn accept(&self) -> io::Result<(Accepted, SocketAddr)> {
        let accept = |listener: &_| Ok(acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?);
        let (socket, peer) = self.0.async_io(Interest::READABLE, accept).await?;
        let peer = peer.and_then(|peer| peer.try_into().ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
        Ok((Accepted(socket.into()), peer))
    }
}

#[cfg(not(target_os = "linux"))]
impl Listener {
    /// Accepts the connections of `listener`.
    pub(crate) fn new(listener: TcpListener) -> io::Result<Self> {
        Ok(Self(listener))
    }

    /// The next connection, and the address of its peer.
    pub(crate) async fn accept(&self) -> io::Result<(Accepted, SocketAddr)> {
        self.0.accept().await.map(|(stream, peer)| (Accepted(stream), peer))
    }
}

#[cfg(target_os = "linux")]
impl Accepted {
    /// Reads what has arrived by now.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has, or this cannot be found out.
    pub(crate) fn read_now<'a>(&self, room: &'a mut [MaybeUninit<u8>]) -> io::Result<&'a [u8]> {
        let ((bytes, _), _) = recv(&self.0, room, RecvFlags::empty())?;
        Ok(bytes)
    }

    /// As [`send_last`].
    pub(crate) fn send_last(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        send_last(&self.0, pieces)
    }

    /// Has the runtime watch it.
    pub(crate) fn watched(self) -> io::Result<TcpStream> {
        TcpStream::from_std(self.0)
    }
}

#[cfg(not(target_os = "linux"))]
impl Accepted {
    /// Reads what has arrived by now.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has, or this cannot be found out.
    pub(crate) fn read_now<'a>(&self, _room: &'a mut [MaybeUninit<u8>]) -> io::Result<&'a [u8]> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// As [`send_last`].
    pub(crate) fn send_last(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        send_last(&self.0, pieces)
    }

    /// Has the runtime watch it.
    pub(crate) fn watched(self) -> io::Result<TcpStream> {
        Ok(self.0)
    }
}

/// Sends what fits now, and if that is all, the end of the connection in the same packet. Closing the socket would end it as well, but
/// take back the bytes if the client had sent something that was not read.
///
/// # Errors
/// `WouldBlock` when nothing fits, or the system cannot do this.
#[cfg(target_os = "linux")]
pub(crate) fn send_last(socket: impl AsFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let sent = sendmsg(&socket, pieces, &mut SendAncillaryBuffer::default(), SendFlags::MORE | SendFlags::NOSIGNAL)?;
    if sent == pieces.iter().map(|piece| piece.len()).sum::<usize>() {
        shutdown(&socket, Shutdown::Write)?;
    }
    Ok(sent)
}

/// Sends what fits now, and if that is all, the end of the connection in the same packet.
///
/// # Errors
/// `WouldBlock` when nothing fits, or the system cannot do this.
#[cfg(not(target_os = "linux"))]
pub(crate) fn send_last<S>(_socket: &S, _pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    Err(io::ErrorKind::WouldBlock.into())
}
