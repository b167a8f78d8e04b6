//! Which addresses may come at all: a list of networks to deny and one to allow.
//!
//! The rule, in this order: an address in the deny list is denied; if there is an allow list, an address outside of it is not
//! allowed; everything else may come. There is no "most specific wins": a deny is a deny. An IPv4 address is judged by IPv4
//! networks, also when it is written as IPv4-mapped IPv6; `::/0` therefore says nothing about IPv4. Networks are merged into sorted
//! ranges once, so a look costs O(log n) and no allocation.

use std::net::IpAddr;

use ipnet::IpNet;

/// Lists of networks, ready to be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressRules {
    allow: Option<Ranges>,
    deny: Ranges,
}

/// What the rules say of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressVerdict {
    /// It may come.
    Pass,
    /// It is in the deny list.
    Denied,
    /// There is an allow list and it is not in it.
    NotAllowed,
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither an address nor a network such as 10.0.0.0/8 or 2001:db8::/32")]
pub struct AddressError(pub String);

impl AddressRules {
    /// Rules of networks. No allow list (an empty one) allows all.
    #[must_use]
    pub fn new(allow: &[IpNet], deny: &[IpNet]) -> Self {
        Self { allow: (!allow.is_empty()).then(|| Ranges::of(allow)), deny: Ranges::of(deny) }
    }

    /// Rules of texts: networks, or single addresses.
    ///
    /// # Errors
    ///
    /// The first text that is neither.
    pub fn parse<T: AsRef<str>>(allow: &[T], deny: &[T]) -> Result<Self, AddressError> {
        let nets = |texts: &[T]| texts.iter().map(|text| network(text.as_ref())).collect::<Result<Vec<_>, _>>();
        Ok(Self::new(&nets(allow)?, &nets(deny)?))
    }

    /// Whether there is nothing to check.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.v4.is_empty() && self.deny.v6.is_empty()
    }

    /// What the rules say of an address.
    #[must_use]
    pub fn check(&self, address: IpAddr) -> AddressVerdict {
        let address = address.to_canonical();
        if self.deny.has(address) {
            AddressVerdict::Denied
        } else if self.allow.as_ref().is_some_and(|allow| !allow.has(address)) {
            AddressVerdict::NotAllowed
        } else {
            AddressVerdict::Pass
        }
    }
}

fn network(text: &str) -> Result<IpNet, AddressError> {
    let text = text.trim();
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| AddressError(text.to_owned()))
}

/// Inclusive ranges: sorted, apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    fn of(networks: &[IpNet]) -> Self {
        let mut ranges = Self::default();
        for network in networks {
            match (network.network(), network.broadcast()) {
                (IpAddr::V4(first), IpAddr::V4(last)) => ranges.v4.push((first.to_bits(), last.to_bits())),
                (IpAddr::V6(first), IpAddr::V6(last)) => match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
                    (Some(first), Some(last)) => ranges.v4.push((first.to_bits(), last.to_bits())),
                    _ => ranges.v6.push((first.to_bits(), last.to_bits())),
                },
                _ => {}
            }
        }
        merge(&mut ranges.v4);
        merge(&mut ranges.v6);
        ranges
    }

    fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => within(&self.v4, address.to_bits()),
            IpAddr::V6(address) => within(&self.v6, address.to_bits()),
        }
    }
}

fn merge<T: Ord + Copy>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlaps = next.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
}

fn within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let at = ranges.partition_point(|(first, _)| *first <= address);
    at.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn check(rules: &AddressRules, address: &str) -> AddressVerdict {
        rules.check(address.parse().unwrap())
    }

    #[test]
    fn deny_goes_first_then_the_allow_list() {
        let rules = AddressRules::parse(&["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"], &["10.1.0.0/16", "2001:db8:bad::/48"]).unwrap();
        for (address, verdict) in [
            ("10.0.0.1", AddressVerdict::Pass),
            ("10.1.2.3", AddressVerdict::Denied),
            ("::ffff:10.1.2.3", AddressVerdict::Denied),
            ("::ffff:10.2.2.3", AddressVerdict::Pass),
            ("192.0.2.7", AddressVerdict::Pass),
            ("192.0.2.8", AddressVerdict::NotAllowed),
            ("2001:db8::1", AddressVerdict::Pass),
            ("2001:db8:bad::1", AddressVerdict::Denied),
            ("::1", AddressVerdict::NotAllowed),
        ] {
            assert_eq!(check(&rules, address), verdict, "{address}");
        }
    }

    #[test]
    fn each_family_has_its_own_everything() {
        let rules = AddressRules::parse(&[], &["::/0"]).unwrap();
        assert_eq!((check(&rules, "2001::1"), check(&rules, "1.2.3.4")), (AddressVerdict::Denied, AddressVerdict::Pass));
        assert_eq!(check(&rules, "::ffff:1.2.3.4"), AddressVerdict::Pass);
        let rules = AddressRules::parse(&[], &["::ffff:1.2.0.0/112"]).unwrap();
        assert_eq!((check(&rules, "1.2.3.4"), check(&rules, "1.3.3.4")), (AddressVerdict::Denied, AddressVerdict::Pass));
        assert!(AddressRules::default().is_open() && !rules.is_open());
        assert_eq!(AddressRules::parse(&["10.0.0.0/33"], &[]), Err(AddressError("10.0.0.0/33".to_owned())));
    }

    fn network() -> impl Strategy<Value = IpNet> {
        let v4 =
            (any::<u32>(), 0u8..=32).prop_map(|(bits, prefix)| IpNet::new(Ipv4Addr::from_bits(bits & 0x0f0f_ffff).into(), prefix).unwrap());
        let v6 = (any::<u128>(), 0u8..=128)
            .prop_map(|(bits, prefix)| IpNet::new(Ipv6Addr::from_bits(bits & (u128::MAX >> 120)).into(), prefix).unwrap());
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn agrees_with_looking_at_each(
            allow in proptest::collection::vec(network(), 0..12),
            deny in proptest::collection::vec(network(), 0..6),
            v4 in any::<u32>(), v6 in 0u128..512, is_v4 in any::<bool>(),
        ) {
            let address = if is_v4 { IpAddr::from(Ipv4Addr::from_bits(v4 & 0x0f0f_ffff)) } else { IpAddr::from(Ipv6Addr::from_bits(v6)) };
            let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
            let expected = if within(&deny) {
                AddressVerdict::Denied
            } else if !allow.is_empty() && !within(&allow) {
                AddressVerdict::NotAllowed
            } else {
                AddressVerdict::Pass
            };
            prop_assert_eq!(AddressRules::new(&allow, &deny).check(address), expected);
        }
    }
}
