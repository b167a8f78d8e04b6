//! Bans of addresses that send far more than anybody should.
//!
//! The requests of each client are counted over a sliding second; above a threshold the client is banned for a while, each time
//! twice as long, and forgiven step by step. A client is an IPv4 address or a /64 of IPv6, which is what one subscriber gets.
//!
//! Invariants: the table never grows. It is made of sets of eight places; a new client takes the place of the quietest of its set that
//! is not banned, or of the ban that ends first. So a flood of addresses costs no memory and pushes out the quiet, not the loud. A look
//! takes one short lock that only the clients of the same shard share, and compares eight numbers; nothing is allocated.
//! Which listener asks, and what is answered, belongs to the caller.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::nanos;

const WAYS: usize = 8;
const SHARDS: usize = 64;
const SECOND: u64 = 1_000_000_000;

/// When to ban, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BanSettings {
    /// Requests in a second that are still tolerated.
    pub threshold: u32,
    /// The first ban.
    pub first: Duration,
    /// No ban is longer.
    pub longest: Duration,
    /// After so long without a ban the next one is a step shorter.
    pub forgiven: Duration,
    /// Clients that are remembered at most (rounded up to whole sets).
    pub capacity: usize,
}

impl Default for BanSettings {
    /// 500 requests a second; 60 s doubling to an hour, a step forgiven each 10 minutes; 65,536 clients, about 3 MiB.
    fn default() -> Self {
        Self {
            threshold: 500,
            first: Duration::from_secs(60),
            longest: Duration::from_secs(3600),
            forgiven: Duration::from_secs(600),
            capacity: 65_536,
        }
    }
}

/// What to do with a client's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BanVerdict {
    /// Let it in.
    Pass,
    /// Refuse it.
    Banned {
        /// For how much longer.
        left: Duration,
        /// The ban began with this request: worth a line in the log.
        begins: bool,
    },
}

/// One client. All zero: a free place.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    key: u64,
    /// The second in which `current` counts, and one more.
    second: u64,
    banned_until: u64,
    previous: u32,
    current: u32,
    strikes: u32,
}

/// The table of clients.
#[derive(Debug)]
pub struct Bans {
    settings: BanSettings,
    seed: u64,
    sets: u64,
    shards: Box<[Mutex<Box<[Place]>>]>,
}

impl Bans {
    /// An empty table. `seed` should be random: it decides which clients share a set, and an abuser should not be able to choose.
    #[must_use]
    pub fn new(settings: BanSettings, seed: u64) -> Self {
        let sets = settings.capacity.div_ceil(WAYS * SHARDS).max(1);
        let shard = || Mutex::new(vec![Place::default(); sets * WAYS].into_boxed_slice());
        Self { settings, seed, sets: sets as u64, shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Whether a client is banned, without counting anything.
    #[must_use]
    pub fn look(&self, address: IpAddr, now: Duration) -> BanVerdict {
        let key = key(address);
        let (shard, at) = self.shard(key);
        let now = nanos(now);
        let until =
            shard.iter().skip(at).take(WAYS).find(|place| place.second != 0 && place.key == key).map_or(0, |place| place.banned_until);
        if until > now { BanVerdict::Banned { left: Duration::from_nanos(until - now), begins: false } } else { BanVerdict::Pass }
    }

    /// Counts a request and says what to do with it.
    pub fn check(&self, address: IpAddr, now: Duration) -> BanVerdict {
        let (now, key) = (nanos(now), key(address));
        let (mut shard, at) = self.shard(key);
        let Some(set) = shard.get_mut(at..at + WAYS) else { return BanVerdict::Pass };
        let known = set.iter().position(|place| place.second != 0 && place.key == key);
        let index = known.unwrap_or_else(|| quietest(set, now));
        let Some(place) = set.get_mut(index) else { return BanVerdict::Pass };
        if known.is_none() {
            *place = Place { key, second: now / SECOND + 1, ..Place::default() };
        }
        if place.banned_until > now {
            return BanVerdict::Banned { left: Duration::from_nanos(place.banned_until - now), begins: false };
        }
        place.count(now);
        if place.rate(now) <= u64::from(self.settings.threshold) {
            return BanVerdict::Pass;
        }
        let left = self.ban(place, now);
        BanVerdict::Banned { left, begins: true }
    }

    /// Ends a client's ban and forgets its past. Whether there was one.
    pub fn lift(&self, address: IpAddr, now: Duration) -> bool {
        let key = key(address);
        let (mut shard, at) = self.shard(key);
        let found = shard.iter_mut().skip(at).take(WAYS).find(|place| place.second != 0 && place.key == key);
        found.is_some_and(|place| std::mem::take(place).banned_until > nanos(now))
    }

    /// How many clients are banned now. Walks the table; for metrics.
    #[must_use]
    pub fn banned(&self, now: Duration) -> usize {
        let count = |shard: &Mutex<Box<[Place]>>| lock(shard).iter().filter(|place| place.banned_until > nanos(now)).count();
        self.shards.iter().map(count).sum()
    }

    /// Doubles with each strike; a strike is forgiven for each `forgiven` since the last ban ended.
    fn ban(&self, place: &mut Place, now: u64) -> Duration {
        let quiet = now.saturating_sub(place.banned_until) / nanos(self.settings.forgiven).max(1);
        let before = place.strikes.saturating_sub(u32::try_from(quiet).unwrap_or(u32::MAX));
        let longest = nanos(self.settings.longest);
        let time = nanos(self.settings.first).saturating_mul(1u64.checked_shl(before).unwrap_or(u64::MAX)).min(longest);
        *place =
            Place { banned_until: now.saturating_add(time), strikes: before.saturating_add(1).min(32), previous: 0, current: 0, ..*place };
        Duration::from_nanos(time)
    }

    fn shard(&self, key: u64) -> (MutexGuard<'_, Box<[Place]>>, usize) {
        let mixed = mix(key ^ self.seed);
        let shard = (mixed >> 58) as usize; // the top six bits: one of SHARDS
        let set = mixed % self.sets;
        (lock(&self.shards[shard]), set as usize * WAYS)
    }
}

impl Place {
    fn count(&mut self, now: u64) {
        let second = now / SECOND + 1;
        match second.saturating_sub(self.second) {
            0 => {}
            1 => (self.previous, self.current, self.second) = (self.current, 0, second),
            _ => (self.previous, self.current, self.second) = (0, 0, second),
        }
        self.current = self.current.saturating_add(1);
    }

    /// Requests in the last second: the current one's, and of the one before the part that is not yet over.
    fn rate(&self, now: u64) -> u64 {
        let (second, past) = (now / SECOND + 1, now % SECOND);
        match second.saturating_sub(self.second) {
            0 => u64::from(self.current) + u64::from(self.previous) * (SECOND - past) / SECOND,
            1 => u64::from(self.current) * (SECOND - past) / SECOND,
            _ => 0,
        }
    }
}

/// The place to give up: a free one, else the quietest that is not banned and has not been lately, else the ban that ends first.
fn quietest(set: &[Place], now: u64) -> usize {
    let order = |place: &Place| {
        let banned = place.banned_until > now;
        (banned, if banned { place.banned_until } else { place.rate(now) }, place.strikes, place.second)
    };
    set.iter().enumerate().min_by_key(|(_, place)| order(place)).map_or(0, |(index, _)| index)
}

fn lock(shard: &Mutex<Box<[Place]>>) -> MutexGuard<'_, Box<[Place]>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// IPv4 addresses stand in a part of the /64s that no client can have (multicast).
fn key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => 0xff00_0000_0000_0000 | u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// The last step of splitmix64.
const fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
