//! Who may come at all: networks allowed and denied, and bans.
//!
//! Invariants: deny is stronger than allow; the addresses of trusted proxies and those that the operator exempts are never banned, for
//! behind one of them are many; a list that cannot be read changes nothing. Where nobody is banned and no list is written a look is
//! two loads.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use plinth_policy::limits::{AddressError, AddressRules, AddressVerdict, BanSettings, BanVerdict, Bans};
use plinth_store::resources::gateway::AddressesRecord;
use plinth_telemetry::LimitMetrics;
use plinth_types::{Error, Reason, Result};

use super::client_address::Networks;

/// What the record says, ready to be asked.
#[derive(Default)]
pub(super) struct Lists {
    rules: AddressRules,
    pub trusted: Networks,
}

impl Lists {
    fn read(record: &AddressesRecord) -> Result<Self, AddressError> {
        Ok(Self { rules: AddressRules::parse(&record.allow, &record.deny)?, trusted: Networks::parse(&record.trusted_proxies)? })
    }
}

/// The door.
pub(super) struct Door {
    pub lists: ArcSwap<Lists>,
    bans: Option<Bans>,
    exempt: Networks,
    metrics: LimitMetrics,
}

impl Door {
    pub fn new(bans: Option<BanSettings>, exempt: Networks, seed: u64, metrics: LimitMetrics) -> Self {
        Self { lists: ArcSwap::default(), bans: bans.map(|bans| Bans::new(bans, seed)), exempt, metrics }
    }

    pub fn apply(&self, record: Option<&AddressesRecord>) {
        match record.map_or_else(|| Ok(Lists::default()), Lists::read) {
            Ok(lists) => self.lists.store(Arc::new(lists)),
            Err(error) => tracing::warn!(%error, "the lists of addresses cannot be read; those before go on"),
        }
    }

    pub fn pass(&self, address: IpAddr, now: Duration) -> Result<()> {
        let lists = self.lists.load();
        let refused = match lists.rules.check(address) {
            AddressVerdict::Pass => None,
            AddressVerdict::Denied | AddressVerdict::NotAllowed => {
                Some(Error::new(Reason::AddressNotAllowed, "requests from this address are not let in"))
            }
        };
        let refused = refused.or_else(|| self.banned(address, &lists, now));
        refused.map_or(Ok(()), |error| {
            self.metrics.refused(error.reason());
            Err(error)
        })
    }

    fn banned(&self, address: IpAddr, lists: &Lists, now: Duration) -> Option<Error> {
        let bans = self.bans.as_ref()?;
        if self.exempt.has(address) || lists.trusted.has(address) {
            return None;
        }
        let BanVerdict::Banned { left, .. } = bans.look(address, now) else { return None };
        let text = "too many requests of this address were refused, and it is banned for a while: come back after the stated time, and more slowly";
        Some(Error::new(Reason::AddressBanned, text).retry_after(left))
    }

    /// Counts a request that was refused. Who is let in may come as often as its limits allow.
    pub fn blame(&self, address: IpAddr, now: Duration) {
        let Some(bans) = self.bans.as_ref().filter(|_| !self.exempt.has(address) && !self.lists.load().trusted.has(address)) else {
            return;
        };
        if let BanVerdict::Banned { left, begins: true } = bans.check(address, now) {
            self.metrics.bans.inc();
            tracing::warn!(%address, seconds = left.as_secs(), "an address is banned: too many of its requests were refused");
        }
    }

    pub fn lift(&self, address: IpAddr, now: Duration) -> bool {
        self.bans.as_ref().is_some_and(|bans| bans.lift(address, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(threshold: u32) -> Door {
        let bans = BanSettings { threshold, capacity: 4096, ..BanSettings::default() };
        Door::new(Some(bans), Networks::parse(&["127.0.0.0/8", "::1"]).unwrap(), 7, LimitMetrics::default())
    }

    fn flood(door: &Door, address: &str, requests: u32) -> usize {
        let pass = |_: &u32| {
            door.blame(address.parse().unwrap(), Duration::from_secs(5));
            door.pass(address.parse().unwrap(), Duration::from_secs(5)).is_ok()
        };
        (0..requests).filter(pass).count()
    }

    #[test]
    fn a_flood_is_banned_and_proxies_are_not() {
        let door = door(500);
        assert_eq!(flood(&door, "203.0.113.9", 600), 500);
        assert_eq!(flood(&door, "203.0.113.10", 400), 400, "others come in");
        assert_eq!((flood(&door, "127.0.0.1", 900), flood(&door, "::1", 900)), (900, 900));
        let error = door.pass("203.0.113.9".parse().unwrap(), Duration::from_secs(6)).unwrap_err();
        assert_eq!((error.reason(), error.retry_delay()), (Reason::AddressBanned, Some(Duration::from_secs(59))));
        assert_eq!((door.metrics.bans.value(), door.metrics.refusals(Reason::AddressBanned)), (1, 101));
        assert!(door.pass("203.0.113.9".parse().unwrap(), Duration::from_secs(66)).is_ok(), "a ban ends");
        assert!(door.lift("203.0.113.9".parse().unwrap(), Duration::from_secs(66)) || flood(&door, "203.0.113.9", 3) == 3);
        door.apply(Some(&AddressesRecord { trusted_proxies: vec!["203.0.113.0/24".into()], ..AddressesRecord::default() }));
        assert_eq!(flood(&door, "203.0.113.77", 900), 900);
    }

    #[test]
    fn lists_hold_and_a_bad_one_changes_nothing() {
        let door = door(500);
        let list = |allow: &[&str], deny: &[&str]| AddressesRecord {
            allow: allow.iter().map(ToString::to_string).collect(),
            deny: deny.iter().map(ToString::to_string).collect(),
            ..AddressesRecord::default()
        };
        let reason = |address: &str| door.pass(address.parse().unwrap(), Duration::ZERO).err().map(|error| error.reason());
        door.apply(Some(&list(&["10.0.0.0/8"], &["10.9.0.0/16"])));
        let refused = Some(Reason::AddressNotAllowed);
        assert_eq!((reason("10.1.1.1"), reason("10.9.1.1"), reason("11.1.1.1")), (None, refused, refused));
        door.apply(Some(&list(&["10.0.0.0/99"], &[])));
        assert_eq!(reason("10.9.1.1"), refused);
        door.apply(None);
        assert_eq!((reason("10.9.1.1"), door.metrics.refusals(Reason::AddressNotAllowed)), (None, 3));
    }
}
