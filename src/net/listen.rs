//! Listeners on the configured addresses. Input: a [`Config`]. Output: each address to listen on, with the config keys it
//! comes from, so that error messages can name them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol as Transport, Socket, Type};
use tokio::net::TcpListener;

use crate::config::{Config, Protocol};

/// Maximum number of connections waiting to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A configured host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or IP address; `None` for all interfaces.
    pub host: Option<String>,
    /// 0 picks any free port.
    pub port: u16,
    /// Key path of the host.
    pub host_key: &'static str,
    /// Key path of the port.
    pub port_key: &'static str,
}

/// A configured address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}:{} (`{}`)", address.shown_host(), address.port, address.port_key)]
pub struct ListenError {
    /// Which one.
    pub address: Address,
    /// Why.
    pub source: io::Error,
}

impl Address {
    /// The address of `host` and `port`.
    #[must_use]
    pub fn main(config: &Config) -> Self {
        Self { host: some(config.host.as_deref()), port: config.port, host_key: "host", port_key: "port" }
    }

    /// The address of `httpPort`: plain HTTP beside https.
    #[must_use]
    pub fn http(config: &Config) -> Option<Self> {
        let port = config.http_port.filter(|_| config.protocol == Protocol::Https)?;
        Some(Self { port, port_key: "httpPort", ..Self::main(config) })
    }

    /// The address of `metrics.port`, if metrics have their own listener.
    #[must_use]
    pub fn metrics(config: &Config) -> Option<Self> {
        let port = config.metrics.port.filter(|_| config.metrics.enabled)?;
        Some(Self { host: some(Some(&config.metrics.host)), port, host_key: "metrics.host", port_key: "metrics.port" })
    }

    /// The address of the built-in Redis endpoint, whether or not that is enabled.
    #[must_use]
    pub fn redis_server(config: &Config) -> Self {
        let (host, port) = (some(Some(&config.redis_server.host)), config.redis_server.port);
        Self { host, port, host_key: "redisServer.host", port_key: "redisServer.port" }
    }

    /// The host as shown to people.
    #[must_use]
    pub fn shown_host(&self) -> &str {
        self.host.as_deref().unwrap_or("all interfaces")
    }

    /// Binds a listener to this address.
    ///
    /// # Errors
    /// When the host has no address or none can be listened on.
    pub async fn bind(self) -> Result<TcpListener, ListenError> {
        bind(self.host.as_deref(), self.port).await.map_err(|source| ListenError { address: self, source })
    }

    /// Takes over a socket that already listens on this address.
    pub(crate) fn take(self, socket: std::net::TcpListener) -> Result<TcpListener, ListenError> {
        let taken = socket.set_nonblocking(true).and_then(|()| TcpListener::from_std(socket));
        taken.map_err(|source| ListenError { address: self, source })
    }
}

/// Binds a listener. Without a host it listens on all interfaces, IPv6 and IPv4, or only IPv4 if there is no IPv6.
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
    // On Windows this option would let two servers listen on the same port.
    if cfg!(not(windows)) {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Treats an empty host as unset, and removes the brackets of an IPv6 address.
fn some(host: Option<&str>) -> Option<String> {
    let host = host?.trim();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then(|| host.to_owned())
}
