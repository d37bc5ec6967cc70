//! Which clients may connect: `allowedOrigins`, `limits.connections` and `limits.connectionsPerIp`.
//!
//! Input: the origin and address of each client that begins a session. Output: a [`Slot`], which the session holds as long as
//! it lives, or the reason why it is refused.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use http::HeaderValue;
use parking_lot::Mutex;

use crate::channel::Pattern;
use crate::config::Limits;
use crate::metrics::Refusal;
use crate::warn_throttled;

/// The origins of pages that may connect: `allowedOrigins`.
#[derive(Debug)]
pub(crate) struct Origins(Vec<Pattern>);

impl Origins {
    /// Browsers send scheme and host in lower case.
    #[must_use]
    pub(crate) fn new(allowed: &[String]) -> Self {
        Self(allowed.iter().map(|text| Pattern::new(&text.trim_end_matches('/').to_ascii_lowercase())).collect())
    }

    /// Whether pages of this origin may connect. A refused origin is logged.
    #[must_use]
    pub(crate) fn allow(&self, origin: &HeaderValue) -> bool {
        let text = origin.to_str().unwrap_or_default();
        let is_allowed = self.0.iter().any(|pattern| pattern.matches(text));
        if !is_allowed {
            let hint = format!("if this is a page of yours, add {text:?} to allowedOrigins");
            warn_throttled!(class = 0, key = text, origin = text, hint, "refused a page: its origin is not in allowedOrigins");
        }
        is_allowed
    }
}

/// Why a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The server is stopping.
    Draining,
    /// `limits.connections`, with its value.
    Connections(u64),
    /// `limits.connectionsPerIp`, with its value.
    ConnectionsPerIp(u64),
}

impl Full {
    /// The kind of refusal that metrics count it as.
    #[must_use]
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::Draining => Refusal::Draining,
            Self::Connections(_) => Refusal::Connections,
            Self::ConnectionsPerIp(_) => Refusal::ConnectionsPerIp,
        }
    }
}

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Draining => f.write_str("the server is stopping"),
            Self::Connections(limit) => write!(f, "limits.connections ({limit}) is reached"),
            Self::ConnectionsPerIp(limit) => write!(f, "limits.connectionsPerIp ({limit}) is reached"),
        }
    }
}

/// Counts the connected clients.
#[derive(Debug)]
pub struct Admission(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    is_draining: bool,
    /// 0: no limit.
    most: u64,
    /// 0: no limit.
    most_per_address: u64,
    total: u64,
    by_address: HashMap<IpAddr, u64>,
}

impl Admission {
    /// No client is connected yet.
    #[must_use]
    pub fn new(limits: &Limits) -> Arc<Self> {
        let admission = Self(Mutex::default());
        admission.set_limits(limits);
        Arc::new(admission)
    }

    /// Applies new limits; clients that are connected stay.
    pub fn set_limits(&self, limits: &Limits) {
        let mut counts = self.0.lock();
        (counts.most, counts.most_per_address) = (limits.connections, limits.connections_per_ip);
    }

    /// Refuses every client from now on.
    pub fn drain(&self) {
        self.0.lock().is_draining = true;
    }

    /// Admits a client.
    ///
    /// # Errors
    /// [`Full`] when a limit is reached or the server is stopping.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Slot, Full> {
        let address = client_network(address);
        let mut counts = self.0.lock();
        let from_address = counts.by_address.get(&address).copied().unwrap_or_default();
        if counts.is_draining {
            return Err(Full::Draining);
        }
        if counts.most > 0 && counts.total >= counts.most {
            return Err(Full::Connections(counts.most));
        }
        if counts.most_per_address > 0 && from_address >= counts.most_per_address {
            return Err(Full::ConnectionsPerIp(counts.most_per_address));
        }
        counts.total += 1;
        counts.by_address.insert(address, from_address + 1);
        Ok(Slot { admission: Arc::clone(self), address })
    }
}

/// The network that counts as one client: with one IPv6 address a client usually has the other 2^64 of its /64 network too.
pub(crate) fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// The place of one session, which is free again when this is dropped.
#[derive(Debug)]
pub struct Slot {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.admission.0.lock();
        counts.total -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(connections: u64, connections_per_ip: u64) -> Arc<Admission> {
        Admission::new(&Limits { connections, connections_per_ip, ..Limits::default() })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_free_when_its_session_ends() {
        let admission = admission(2, 0);
        let first = admission.enter(address("10.0.0.1")).unwrap();
        let second = admission.enter(address("10.0.0.1")).unwrap();
        assert_eq!(admission.enter(address("10.0.0.2")).unwrap_err(), Full::Connections(2));
        drop(first);
        let third = admission.enter(address("10.0.0.2")).unwrap();
        assert_eq!(admission.enter(address("10.0.0.2")).unwrap_err().to_string(), "limits.connections (2) is reached");
        drop((second, third));
        assert!(admission.0.lock().by_address.is_empty());
    }

    #[test]
    fn addresses_are_counted_apart_and_networks_of_ipv6_together() {
        let admission = admission(0, 1);
        let _first = admission.enter(address("10.0.0.1")).unwrap();
        assert_eq!(admission.enter(address("::ffff:10.0.0.1")).unwrap_err(), Full::ConnectionsPerIp(1));
        let _second = admission.enter(address("10.0.0.2")).unwrap();
        let _third = admission.enter(address("2001:db8::1")).unwrap();
        assert_eq!(admission.enter(address("2001:db8::2")).unwrap_err(), Full::ConnectionsPerIp(1));
        let _fourth = admission.enter(address("2001:db8:0:1::1")).unwrap();
    }

    #[test]
    fn other_limits_hold_for_newcomers() {
        let admission = admission(1, 0);
        let _first = admission.enter(address("10.0.0.1")).unwrap();
        admission.set_limits(&Limits::default());
        let _second = admission.enter(address("10.0.0.1")).unwrap();
        admission.drain();
        assert_eq!(admission.enter(address("10.0.0.1")).unwrap_err(), Full::Draining);
    }
}
