//! Addresses of the settings, and listeners on them. Input: a [`Config`]. Output: what is to be listened on, each with
//! the keys that name it, so that whoever reports a failure can name them too.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol as Transport, Socket, Type};
use tokio::net::TcpListener;

use crate::config::{Config, Protocol};

/// Connections that may wait for their turn; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A host and a port of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address; `None` for all interfaces.
    pub host: Option<String>,
    /// 0 takes any free one.
    pub port: u16,
    /// Key path of the host.
    pub host_key: &'static str,
    /// Key path of the port.
    pub port_key: &'static str,
}

/// An address of the settings cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}:{} (`{}`)", address.shown_host(), address.port, address.port_key)]
pub struct ListenError {
    /// Which one.
    pub address: Address,
    /// Why.
    pub source: io::Error,
}

impl Address {
    /// That of `host` and `port`.
    #[must_use]
    pub fn main(config: &Config) -> Self {
        Self { host: some(config.host.as_deref()), port: config.port.0, host_key: "host", port_key: "port" }
    }

    /// That of `httpPort`, plain HTTP beside https.
    #[must_use]
    pub fn http(config: &Config) -> Option<Self> {
        let port = config.http_port.filter(|_| config.protocol == Protocol::Https)?;
        Some(Self { port: port.0, port_key: "httpPort", ..Self::main(config) })
    }

    /// That of `metrics.port`, if metrics are to have a listener of their own.
    #[must_use]
    pub fn metrics(config: &Config) -> Option<Self> {
        let port = config.metrics.port.filter(|_| config.metrics.enabled.0)?;
        Some(Self { host: some(Some(&config.metrics.host)), port: port.0, host_key: "metrics.host", port_key: "metrics.port" })
    }

    /// That of the built-in Redis endpoint, whether it is on or not.
    #[must_use]
    pub fn redis_server(config: &Config) -> Self {
        let (host, port) = (some(Some(&config.redis_server.host)), config.redis_server.port.0);
        Self { host, port, host_key: "redisServer.host", port_key: "redisServer.port" }
    }

    /// The host for people.
    #[must_use]
    pub fn shown_host(&self) -> &str {
        self.host.as_deref().unwrap_or("all interfaces")
    }

    /// Listens on it.
    ///
    /// # Errors
    /// When the host has no address or none can be listened on.
    pub async fn bind(self) -> Result<TcpListener, ListenError> {
        bind(self.host.as_deref(), self.port).await.map_err(|source| ListenError { address: self, source })
    }

    /// Takes a socket that listens on it already.
    pub(crate) fn take(self, socket: std::net::TcpListener) -> Result<TcpListener, ListenError> {
        let taken = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket));
        taken.map_err(|source| ListenError { address: self, source })
    }
}

/// Binds a listener. Without a host it takes all interfaces, IPv6 and IPv4, or IPv4 alone where there is no IPv6.
///
/// # Errors
/// When the host has no address or none can be listened on.
pub async fn bind(host: Option<&str>, port: u16) -> io::Result<TcpListener> {
    let Some(host) = host.filter(|host| !host.is_empty()) else {
        return match listen_on((Ipv6Addr::UNSPECIFIED, port).into()) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => listen_on((Ipv4Addr::UNSPECIFIED, port).into()),
            result => result,
        };
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("`{host}` has no address"));
    for address in tokio::net::lookup_host((host, port)).await? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Transport::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // On Windows this option would let two servers take the same port.
    if cfg!(not(windows)) {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// An empty host is none.
fn some(host: Option<&str>) -> Option<String> {
    host.filter(|host| !host.is_empty()).map(str::to_owned)
}
