//! What clients are told where they cannot use the address under which they reached us: behind a
//! port that is published under another number, or in a network of their own.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Value;

/// `10.0.0.5:9876=203.0.113.7:19876; 192.168.0.0/16=192.168.1.9:10911`: the first that fits wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdvertisedAddresses(Vec<(Way, String)>);

/// How a connection came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To this address of ours.
    To(SocketAddr),
    /// To this port of ours, whatever the address: a container does not know its own beforehand.
    ToPort(u16),
    /// From a client of this network: address, number of bits that count.
    From(IpAddr, u32),
}

impl AdvertisedAddresses {
    /// What a client at `peer` is told that has reached us at `local`.
    #[must_use]
    pub fn find(&self, local: SocketAddr, peer: IpAddr) -> Option<&str> {
        let fits = |way: &Way| match way {
            Way::To(ours) => *ours == local,
            Way::ToPort(port) => *port == local.port(),
            Way::From(network, bits) => has_prefix(peer, *network, *bits),
        };
        self.0.iter().find(|(way, _)| fits(way)).map(|(_, told)| told.as_str())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Value for AdvertisedAddresses {
    const ALLOWED: &'static str = "`way=host:port` separated by `;`, where a way is an address of \
         ours (10.0.0.5:9876, or *:9876 for any) or a network of clients (192.168.0.0/16)";

    fn parse(text: &str) -> Option<Self> {
        let entry = |text: &str| {
            let (way, told) = text.split_once('=')?;
            let (host, port) = told.trim().rsplit_once(':')?;
            port.parse().ok().filter(|port: &u16| *port != 0)?;
            // A host with a colon is an IPv6 address, and stands in brackets.
            let is_host = !host.is_empty()
                && !host.contains(|c: char| c.is_whitespace() || "=,/".contains(c))
                && (!host.contains(':') || told.trim().parse::<SocketAddr>().is_ok());
            is_host.then_some((way.trim().parse().ok()?, told.trim().to_owned()))
        };
        let parts = text.split(';').filter(|part| !part.trim().is_empty());
        parts.map(entry).collect::<Option<_>>().map(Self)
    }

    fn text(&self) -> String {
        self.0.iter().map(|(way, told)| format!("{way}={told}")).collect::<Vec<_>>().join(";")
    }
}

impl std::str::FromStr for Way {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(port) = text.strip_prefix("*:") {
            return port.parse().map(Self::ToPort).map_err(|_| ());
        }
        let Some((network, bits)) = text.split_once('/') else {
            return text.parse().map(Self::To).map_err(|_| ());
        };
        let network: IpAddr = network.parse().map_err(|_| ())?;
        let bits = bits.parse().ok().filter(|bits| *bits <= width(network)).ok_or(())?;
        Ok(Self::From(network, bits))
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::To(addr) => addr.fmt(f),
            Self::ToPort(port) => write!(f, "*:{port}"),
            Self::From(network, bits) => write!(f, "{network}/{bits}"),
        }
    }
}

fn has_prefix(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    let number = |ip| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let differing = number(ip) ^ number(network);
    // A shift by the whole width, which leaves nothing, has no operator.
    let rest = differing.checked_shr(width(network) - bits).unwrap_or(0);
    ip.is_ipv4() == network.is_ipv4() && rest == 0
}

fn width(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(map: &str, local: &str, peer: &str) -> Option<String> {
        let map = AdvertisedAddresses::parse(map).unwrap();
        map.find(local.parse().unwrap(), peer.parse().unwrap()).map(ToOwned::to_owned)
    }

    #[test]
    fn the_first_way_that_fits_says_what_a_client_is_told() {
        let map = "172.17.0.0/16=172.17.0.2:10911; 172.17.0.2:9876 = shop.example:19876;";
        let find = |local, peer| told(map, local, peer);
        assert_eq!(find("172.17.0.2:9876", "172.17.0.9").as_deref(), Some("172.17.0.2:10911"));
        assert_eq!(find("172.17.0.2:9876", "10.1.1.1").as_deref(), Some("shop.example:19876"));
        assert_eq!(find("172.17.0.2:10911", "10.1.1.1"), None);
        assert_eq!(find("172.17.0.2:9876", "::1").as_deref(), Some("shop.example:19876"));
        assert_eq!(find("127.0.0.1:9876", "172.18.0.1"), None);
    }

    #[test]
    fn a_port_is_published_whatever_the_address_of_the_container() {
        let map = "172.17.0.0/16=172.17.0.2:9876; *:9876=shop.example:19876";
        let find = |local, peer| told(map, local, peer);
        for local in ["172.17.0.2:9876", "[fd00::2]:9876"] {
            assert_eq!(find(local, "10.1.1.1").as_deref(), Some("shop.example:19876"), "{local}");
        }
        assert_eq!(find("172.17.0.2:10911", "10.1.1.1"), None);
        assert_eq!(find("172.17.0.2:9876", "172.17.0.9").as_deref(), Some("172.17.0.2:9876"));
    }

    #[test]
    fn a_network_has_any_number_of_bits() {
        for (network, inside, outside) in [
            ("0.0.0.0/0", "9.9.9.9", "::1"),
            ("10.1.0.0/15", "10.0.3.4", "10.2.0.0"),
            ("10.0.0.7/32", "10.0.0.7", "10.0.0.6"),
            ("::/0", "fe80::1", "1.2.3.4"),
            ("fd00::/8", "fd12::1", "fc00::1"),
            ("::1/128", "::1", "::2"),
        ] {
            let map = format!("{network}=h:1");
            assert_eq!(told(&map, "1.1.1.1:1", inside).as_deref(), Some("h:1"), "{network}");
            assert_eq!(told(&map, "1.1.1.1:1", outside), None, "{network}");
        }
    }

    #[test]
    fn what_is_no_map_is_refused_and_what_is_reads_back() {
        for bad in [
            "a",
            "10.0.0.5=h:1",
            "host:9876=h:1",
            "10.0.0.5:9876=h",
            "10.0.0.5:9876=h:0",
            "10.0.0.5:9876=:1",
            "10.0.0.5:9876=::1:1",
            "10.0.0.0/33=h:1",
            "10.0.0.0/-1=h:1",
            "10.0.0.5:9876=h:1,10.0.0.6:9876=h:1",
            "10.0.0.5:9876=a=b:1",
            "*=h:1",
            "*:x=h:1",
        ] {
            assert_eq!(AdvertisedAddresses::parse(bad), None, "{bad}");
        }
        let map = "10.0.0.5:9876=h:1;[::1]:9876=[fd00::1]:1;fd00::/8=h:2;*:9876=h:3";
        assert_eq!(AdvertisedAddresses::parse(map).unwrap().text(), map);
        assert!(AdvertisedAddresses::parse("").unwrap().is_empty());
    }
}
