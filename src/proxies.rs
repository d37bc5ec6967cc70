//! [`TrustedProxies`]: finds the address of a client behind proxies. Pure.
//!
//! Input: `trustProxies`, the peer of a connection, and the `X-Forwarded-For` of its request. Output: addresses that only
//! a trusted proxy could have forged.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

/// Addresses and networks of `trustProxies`. Clones share one list, so that a reload changes it for all parts of a server.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<ArcSwap<Vec<IpNet>>>);

/// Parses a network; a single address is a network of one.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Whether text is an address, or a network in CIDR notation.
#[must_use]
pub(crate) fn is_network(text: &str) -> bool {
    network(text).is_some()
}

impl TrustedProxies {
    /// Reads `trustProxies`. Invalid entries would be skipped, but the settings have been validated.
    #[must_use]
    pub fn new(entries: &[String]) -> Self {
        let proxies = Self::default();
        proxies.set(entries);
        proxies
    }

    /// Replaces the list for all clones.
    pub fn set(&self, entries: &[String]) {
        self.0.store(Arc::new(entries.iter().filter_map(|text| network(text)).collect()));
    }

    /// Whether `address` belongs to a trusted proxy. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.load().iter().any(|network| network.contains(&address))
    }

    /// The client's address: the peer or, if it is a trusted proxy, the last address in `X-Forwarded-For` that is not.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines: Vec<_> = headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes).collect();
        let mut hops = lines.iter().flat_map(|line| line.split(|byte| *byte == b',')).rev();
        while self.contains(client) {
            match hops.next().map(address) {
                Some(Some(address)) => client = address.to_canonical(),
                Some(None) | None => break,
            }
        }
        client
    }
}

/// The address of a hop; some proxies include the port: `203.0.113.5`, `203.0.113.5:443`, `2001:db8::1`,
/// `[2001:db8::1]`, `[2001:db8::1]:443`.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().map(IpAddr::V6).ok();
    let with_port = || hop.parse().ok().as_ref().map(SocketAddr::ip);
    hop.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(entries: &[&str]) -> TrustedProxies {
        TrustedProxies::new(&entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn networks_end_at_their_bits() {
        let proxies = trusted(&["10.0.0.0/8", "192.168.1.7", "fd00::/8", "0.0.0.0/32"]);
        for (address, is_trusted) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("192.168.1.7", true),
            ("192.168.1.8", false),
            ("::ffff:10.1.2.3", true),
            ("fdff::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(proxies.contains(address.parse().unwrap()), is_trusted, "{address}");
        }
        assert!(trusted(&["0.0.0.0/0"]).contains([8, 8, 8, 8].into()));
        // Bits after the prefix are ignored.
        assert!(trusted(&["10.1.2.3/8"]).contains([10, 9, 9, 9].into()));
        for wrong in ["10.0.0.0/33", "fd00::/129", "10.0.0.0/", "10.0.0/8", "/8", "10.0.0.0/a", ""] {
            assert!(!is_network(wrong), "{wrong}");
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "6.6.6.6, 203.0.113.5, 10.0.0.2".parse().unwrap());
        let proxies = trusted(&["10.0.0.0/8"]);
        assert_eq!(proxies.client([10, 0, 0, 1].into(), &headers), IpAddr::from([203, 0, 113, 5]));
        assert_eq!(proxies.client([9, 9, 9, 9].into(), &headers), IpAddr::from([9, 9, 9, 9]));
        assert_eq!(proxies.client([10, 0, 0, 1].into(), &HeaderMap::new()), IpAddr::from([10, 0, 0, 1]));
    }

    #[test]
    fn hops_may_have_ports() {
        let proxies = trusted(&["10.0.0.0/8", "fd00::/8"]);
        for (hops, client) in [
            ("203.0.113.5:4711", "203.0.113.5"),
            ("203.0.113.5 , 10.0.0.2:80", "203.0.113.5"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443, [fd00::1]:80", "2001:db8::1"),
            // An invalid address ends the search.
            ("203.0.113.5, unknown", "10.0.0.1"),
            ("203.0.113.5:port", "10.0.0.1"),
            ("[203.0.113.5]", "10.0.0.1"),
            ("unknown, 10.0.0.2", "10.0.0.2"),
            ("caf\u{e9}, 203.0.113.5", "203.0.113.5"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", HeaderValue::from_bytes(hops.as_bytes()).unwrap());
            assert_eq!(proxies.client([10, 0, 0, 1].into(), &headers).to_string(), client, "{hops}");
        }
    }

    #[test]
    fn clones_trust_the_same() {
        let proxies = trusted(&["10.0.0.0/8"]);
        let clone = proxies.clone();
        proxies.set(&["192.168.1.7".to_owned()]);
        assert!(clone.contains([192, 168, 1, 7].into()) && !clone.contains([10, 0, 0, 1].into()));
    }
}
