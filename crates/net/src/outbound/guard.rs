//! Which addresses may be dialled.
//!
//! Invariant: what is not a public unicast address of IPv4 or IPv6 is refused, unless it is listed. The rule looks at addresses
//! and never at names, and at what an IPv6 address carries inside (RFC 4291 mapped, RFC 6052 NAT64, RFC 3056 6to4, RFC 4380
//! Teredo). Ranges: the IANA registries of special-purpose addresses. The services that tell a machine its credentials are
//! refused unless they are listed by themselves: a list that opens a network for upstreams does not open these.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Refused ranges of IPv4, each with its name.
const V4: [(Ipv4Net, &str); 15] = [
    (v4(0, 0, 0, 0, 8), "unspecified"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared (carrier-grade NAT)"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "protocol assignment"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "benchmarking"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved or broadcast"),
];

/// Refused ranges of IPv6; what is in none of them and outside 2000::/3 is refused as not assigned.
const V6: [(Ipv6Net, &str); 11] = [
    (v6([0; 8], 128), "unspecified"),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "loopback"),
    (v6([0; 8], 96), "IPv4-compatible"),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), "local NAT64"),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), "private (unique local)"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local"),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), "site-local"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast"),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), "protocol assignment"),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "documentation"),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), "documentation"),
];

const GLOBAL: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

/// Where clouds answer with credentials: the common one, AWS (ECS, EKS), Alibaba, Oracle.
const METADATA: [IpAddr; 7] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(s: [u16; 8], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), length)
}

/// An address that may not be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not allowed: {range}")]
pub struct Refused {
    /// The address.
    pub address: IpAddr,
    /// The range to which it belongs, in words.
    pub range: &'static str,
}

/// The rule. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allowed: Arc<[IpNet]>,
}

impl Guard {
    /// Public addresses, and those that are listed.
    #[must_use]
    pub fn new(allowed: impl IntoIterator<Item = IpNet>) -> Self {
        Self { allowed: allowed.into_iter().collect() }
    }

    /// Whether an address may be dialled.
    ///
    /// # Errors
    /// With the range because of which it may not.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        self.judge(address).map_err(|range| Refused { address, range })
    }

    fn judge(&self, address: IpAddr) -> Result<(), &'static str> {
        let address = address.to_canonical();
        if METADATA.contains(&address) {
            let listed = self.allowed.iter().any(|net| net.prefix_len() == net.max_prefix_len() && net.contains(&address));
            return if listed { Ok(()) } else { Err("a metadata service, which has to be listed by itself") };
        }
        if self.allowed.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        match address {
            IpAddr::V4(address) => V4.iter().find(|(net, _)| net.contains(&address)).map_or(Ok(()), |(_, range)| Err(*range)),
            IpAddr::V6(address) => self.judge_v6(address),
        }
    }

    fn judge_v6(&self, address: Ipv6Addr) -> Result<(), &'static str> {
        let [.., a, b, c, d] = address.octets();
        let segments = address.segments();
        if NAT64.contains(&address) {
            return self.judge(Ipv4Addr::new(a, b, c, d).into());
        }
        if SIX_TO_FOUR.contains(&address) {
            return self.judge(inside(segments[1], segments[2]).into());
        }
        if TEREDO.contains(&address) {
            self.judge(inside(segments[2], segments[3]).into())?;
            return self.judge(Ipv4Addr::new(!a, !b, !c, !d).into());
        }
        if let Some((_, range)) = V6.iter().find(|(net, _)| net.contains(&address)) {
            return Err(range);
        }
        if GLOBAL.contains(&address) { Ok(()) } else { Err("not assigned") }
    }
}

/// The IPv4 address in two segments.
const fn inside(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, address: &str) -> Result<(), &'static str> {
        guard.check(address.parse().unwrap()).map_err(|refused| refused.range)
    }

    #[test]
    fn public_addresses_pass() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:0:808:808::f7f7:f7f7",
            "2001:200::1",
            "3ffe::1",
            "2620:4f:8000::1",
        ] {
            assert_eq!(check(&Guard::default(), address), Ok(()), "{address}");
        }
    }

    #[test]
    fn everything_else_is_refused_however_it_is_wrapped() {
        let plain = [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("10.0.0.0", "private"),
            ("10.255.255.255", "private"),
            ("100.64.0.0", "shared (carrier-grade NAT)"),
            ("100.127.255.255", "shared (carrier-grade NAT)"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.0.1", "link-local"),
            ("169.254.169.254", "a metadata service, which has to be listed by itself"),
            ("169.254.170.2", "a metadata service, which has to be listed by itself"),
            ("100.100.100.200", "a metadata service, which has to be listed by itself"),
            ("172.16.0.0", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.1", "protocol assignment"),
            ("192.0.2.1", "documentation"),
            ("192.88.99.1", "6to4 relay"),
            ("192.168.0.1", "private"),
            ("198.18.0.0", "benchmarking"),
            ("198.19.255.255", "benchmarking"),
            ("198.51.100.7", "documentation"),
            ("203.0.113.7", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved or broadcast"),
            ("255.255.255.255", "reserved or broadcast"),
        ];
        for (address, range) in plain {
            assert_eq!(check(&Guard::default(), address), Err(range), "{address}");
            let [a, b, c, d] = address.parse::<Ipv4Addr>().unwrap().octets();
            let wrapped = [
                format!("::ffff:{address}"),
                format!("64:ff9b::{address}"),
                format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"),
                format!("2001:0:808:808:0:0:{:02x}{:02x}:{:02x}{:02x}", !a, !b, !c, !d),
                format!("2001:0:{a:02x}{b:02x}:{c:02x}{d:02x}:0:0:f7f7:f7f7"),
            ];
            for address in wrapped {
                assert_eq!(check(&Guard::default(), &address), Err(range), "{address}");
            }
        }
        for (address, range) in [
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::127.0.0.1", "IPv4-compatible"),
            ("::8.8.8.8", "IPv4-compatible"),
            ("64:ff9b:1::1", "local NAT64"),
            ("fc00::1", "private (unique local)"),
            ("fd12:3456::1", "private (unique local)"),
            ("fd00:ec2::254", "a metadata service, which has to be listed by itself"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
            ("2001:2::1", "protocol assignment"),
            ("2001:10::1", "protocol assignment"),
            ("2001:20::1", "protocol assignment"),
            ("2001:db8::1", "documentation"),
            ("3fff::1", "documentation"),
            ("100::1", "not assigned"),
            ("4000::1", "not assigned"),
            ("5f00::1", "not assigned"),
            ("::ffff:0:127.0.0.1", "not assigned"),
            ("200::1", "not assigned"),
        ] {
            assert_eq!(check(&Guard::default(), address), Err(range), "{address}");
        }
    }

    #[test]
    fn a_list_opens_what_it_names_and_no_credentials() {
        let guard = Guard::new(["127.0.0.0/8", "169.254.0.0/16", "fd00::/8"].map(|net| net.parse().unwrap()));
        for address in ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::127.0.0.1", "169.254.1.1", "fd00::1"] {
            assert_eq!(check(&guard, address), Ok(()), "{address}");
        }
        for address in ["10.0.0.1", "::1", "169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254", "fc00::1"] {
            assert!(check(&guard, address).is_err(), "{address}");
        }
        let guard = Guard::new(["169.254.169.254/32".parse().unwrap()]);
        assert_eq!(check(&guard, "169.254.169.254"), Ok(()));
        assert!(check(&guard, "169.254.170.2").is_err());
    }
}
