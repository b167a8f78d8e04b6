//! The keys that a node knows, as a table that follows the snapshot.
//!
//! Invariants: a ring never changes; the next one shares with it all parts in which no key changed. A lookup takes no
//! lock and allocates nothing, and costs the same for a key that does not exist as for one whose secret is wrong.
//!
//! Cost, measured by `examples/key_ring.rs` on one core: a million keys of 100,000 tenants take about 74 bytes each, tenants
//! included (64 of id, secret hash, expiry, tenant and rights, which is one cache line; the rest for parts and tenants). A lookup is mostly the
//! hash where its key is in the processor's caches; elsewhere it is the way to memory, so it goes there as seldom as can be: for the line of
//! the key, mostly guessed at once because ids are random, and for the tenant. Keys with the same list of models share one list.

mod shard;
mod tenants;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use plinth_store::resources::{KeyRecord, Role, TenantRecord};
use plinth_types::{Digest, Error, KeyId, ModelName, Reason, Result, TenantName, Timestamp};

use self::shard::{Shard, Slot};
use self::tenants::Tenants;
use crate::api_key::{ShownKey, number_of};
use crate::principal::{Caller, Principal, UserKey};

pub use self::tenants::Tenant;

/// The records of tenants, as a snapshot has them.
pub type TenantRecords = BTreeMap<TenantName, Arc<TenantRecord>>;

/// The records of keys, as a snapshot has them: by tenant and id.
pub type KeyRecords = BTreeMap<TenantName, Arc<BTreeMap<KeyId, Arc<KeyRecord>>>>;

/// The keys of one part, on average, when a ring is made from nothing.
const PART: usize = 32;

/// After so many rings made from the one before, one is made from nothing, so that lists of models that nobody has any
/// longer go.
const MAX_STEPS: u32 = 10_000;

/// Why credentials do not pass. Callers learn no difference between the first four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It does not look like a key.
    Malformed,
    /// No key has this id.
    UnknownId,
    /// The secret is another.
    WrongSecret,
    /// It was good once.
    Expired,
    /// Its tenant's requests are refused for the time being.
    Suspended,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let why = match refused {
            Refused::Malformed => "malformed",
            Refused::UnknownId => "unknown id",
            Refused::WrongSecret => "wrong secret",
            Refused::Expired => "expired",
            Refused::Suspended => return suspended(),
        };
        Self::new(Reason::CredentialsInvalid, "the key is not valid; `plinth key create` makes a new one").diagnostic(why)
    }
}

/// What the requests of a suspended tenant are told.
pub(crate) fn suspended() -> Error {
    Error::new(Reason::TenantSuspended, "this tenant is suspended; ask who runs the node")
}

/// All keys and tenants.
#[derive(Debug, Clone)]
pub struct KeyRing {
    tenants: Arc<Tenants>,
    /// A power of two of them; a key's part is told by the first bits of its id.
    parts: Vec<Shard>,
    /// The lists of models, by the number in a slot less one.
    lists: Arc<Lists>,
    keys: usize,
    /// What it was made from, to find out what is new in the next snapshot.
    seen: (Arc<TenantRecords>, Arc<KeyRecords>),
    steps: u32,
}

impl Default for KeyRing {
    fn default() -> Self {
        Self { tenants: Arc::default(), parts: vec![Shard::default()], lists: Arc::default(), keys: 0, seen: Default::default(), steps: 0 }
    }
}

impl KeyRing {
    /// A ring of these keys, of tenants that are there. For tests; a node follows its snapshot.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = (KeyId, TenantName, KeyRecord)>) -> Self {
        let (mut tenants, mut records) = (TenantRecords::new(), BTreeMap::<TenantName, BTreeMap<_, _>>::new());
        for (id, tenant, record) in keys {
            let made = TenantRecord { description: String::new(), created_at: record.created_at, plan: None, suspended: false };
            tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(made));
            records.entry(tenant).or_default().insert(id, Arc::new(record));
        }
        let records = records.into_iter().map(|(tenant, keys)| (tenant, Arc::new(keys))).collect();
        Self::default().follow(&Arc::new(tenants), &Arc::new(records))
    }

    /// The ring of a later snapshot. Its cost is that of what has changed, told by the pointers of what has not.
    #[must_use]
    pub fn follow(&self, tenants: &Arc<TenantRecords>, keys: &Arc<KeyRecords>) -> Self {
        let mut next = Self { seen: (tenants.clone(), keys.clone()), steps: self.steps + 1, ..self.clone() };
        if !Arc::ptr_eq(tenants, &self.seen.0) {
            Arc::make_mut(&mut next.tenants).follow(tenants);
        }
        if Arc::ptr_eq(keys, &self.seen.1) {
            return next;
        }
        let changes = changes(&self.seen.1, keys);
        let after = (self.keys + changes.len()).div_ceil(PART);
        if self.steps > MAX_STEPS || after > 4 * self.parts.len() || changes.len() > 1024 + self.keys / 4 {
            next.rebuild();
        } else {
            next.take(changes);
        }
        next
    }

    /// Makes all parts anew from the records.
    fn rebuild(&mut self) {
        (self.lists, self.steps) = (Arc::default(), 0);
        let records = self.seen.1.clone();
        let mut all = Vec::with_capacity(records.values().map(|keys| keys.len()).sum());
        for (tenant, keys) in records.iter() {
            let tenant = Arc::make_mut(&mut self.tenants).index_or_new(tenant);
            all.extend(keys.iter().filter_map(|(id, record)| Some((number_of(id)?, self.slot(tenant, record)))));
        }
        all.sort_unstable_by_key(|(id, slot)| (*id, slot.tenant));
        let count = all.len().div_ceil(PART).next_power_of_two();
        let mut rest = &all[..];
        self.parts = (0..count)
            .map(|part| {
                let (mine, later) = rest.split_at(rest.partition_point(|(id, _)| part_of(*id, count) <= part));
                rest = later;
                Shard::new(mine)
            })
            .collect();
        self.count();
    }

    /// Changes some keys.
    fn take(&mut self, changes: Vec<Changed<'_>>) {
        let count = self.parts.len();
        for Changed { tenant, id, record } in changes {
            let tenant = Arc::make_mut(&mut self.tenants).index_or_new(tenant);
            let slot = record.map(|record| self.slot(tenant, record));
            let Some(part) = self.parts.get_mut(part_of(id, count)) else { continue };
            // Ids are drawn by nodes; should two tenants ever have the same, none takes the other's away.
            if part.get(id, count.trailing_zeros()).is_none_or(|known| known.tenant == tenant) {
                part.set(id, slot);
            }
        }
        self.count();
    }

    fn count(&mut self) {
        self.keys = self.parts.iter().map(|part| part.len()).sum();
    }

    fn slot(&mut self, tenant: u32, record: &KeyRecord) -> Slot {
        let models = if record.models.is_empty() { 0 } else { Arc::make_mut(&mut self.lists).number(&record.models) };
        let expires = record.expires_at.map_or(u64::MAX, Timestamp::millis);
        Slot::new(*record.secret_hash.as_bytes(), expires, tenant, record.role, models)
    }

    /// Whether there is no key at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// How many keys there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.keys
    }

    /// One past the highest index of a tenant: how long a table by [`Principal::tenant_index`] must be.
    #[must_use]
    pub fn tenants(&self) -> usize {
        self.tenants.len()
    }

    /// The tenant of a name, with its index, while it is there.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<(u32, &Tenant)> {
        self.tenants.find(name)
    }

    /// Bytes on the heap, without what the snapshot holds too.
    #[must_use]
    pub fn memory(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.memory()).sum::<usize>() + self.parts.capacity() * size_of::<Shard>();
        parts + self.tenants.memory() + self.lists.memory()
    }

    /// Who shows this key. Neither locks nor allocates.
    ///
    /// # Errors
    /// Why it does not pass, for the log; callers are to learn only what [`Error::from`] says.
    pub fn check(&self, token: &str, now: Timestamp) -> Result<Principal, Refused> {
        let shown = ShownKey::read(token).ok_or(Refused::Malformed)?;
        // An unknown id is compared too, so that it takes as long as a wrong secret.
        let nobody = Slot::new([0; 32], 0, u32::MAX, Role::Viewer, 0);
        let count = self.parts.len();
        let known = self.parts.get(part_of(shown.id, count)).and_then(|part| part.get(shown.id, count.trailing_zeros()));
        let slot = known.unwrap_or(&nobody);
        // Before the hash, which is computed while what no cache holds comes from memory.
        let tenant = self.tenants.at(slot.tenant);
        let equal = same(&slot.secret, Digest::of(shown.secret.as_bytes()).as_bytes());
        match (known, tenant) {
            (None, _) | (_, None) => Err(Refused::UnknownId),
            (Some(_), _) if !equal => Err(Refused::WrongSecret),
            (Some(_), _) if slot.expires <= now.millis() => Err(Refused::Expired),
            (Some(_), Some(tenant)) if tenant.suspended => Err(Refused::Suspended),
            (Some(_), Some(tenant)) => Ok(Principal {
                tenant: tenant.name.clone(),
                tenant_index: slot.tenant,
                user: UserKey(shown.id),
                role: slot.role(),
                caller: Caller::Key(shown.id),
                models: self.lists.get(slot.models()),
                acting: false,
            }),
        }
    }

    /// As [`KeyRing::check`], with the refusal that a caller sees.
    ///
    /// # Errors
    /// [`Reason::CredentialsInvalid`], with one text for malformed, unknown, wrong and expired keys;
    /// [`Reason::TenantSuspended`].
    pub fn authenticate(&self, token: &str, now: Timestamp) -> Result<Principal> {
        self.check(token, now).map_err(Error::from)
    }

    /// The principal when an administrator of the default tenant acts for another tenant. It is then that tenant's
    /// administrator and no longer one of the whole; the audit names both.
    ///
    /// # Errors
    /// [`Reason::NotPermitted`], whether or not there is such a tenant; to those who may, [`Reason::RecordNotFound`].
    pub fn acting_for(&self, principal: Principal, tenant: &str) -> Result<Principal> {
        if tenant == principal.tenant.as_str() {
            return Ok(principal);
        }
        if !principal.is_platform() {
            return Err(Error::new(
                Reason::NotPermitted,
                "an admin key of the tenant 'default' may act for other tenants; this key may not",
            ));
        }
        let (tenant_index, found) =
            self.tenant(tenant).ok_or_else(|| Error::new(Reason::RecordNotFound, "there is no such tenant: list the tenants"))?;
        Ok(Principal { tenant: found.name.clone(), tenant_index, acting: true, ..principal })
    }
}

/// Lists of models, each once.
#[derive(Debug, Clone, Default)]
struct Lists {
    list: Vec<Arc<[ModelName]>>,
    numbers: HashMap<Arc<[ModelName]>, u32>,
}

impl Lists {
    fn number(&mut self, models: &[ModelName]) -> u32 {
        if let Some(number) = self.numbers.get(models) {
            return *number;
        }
        let list: Arc<[ModelName]> = models.into();
        self.list.push(list.clone());
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.numbers.insert(list, number);
        number
    }

    /// The list of a number; `None` for 0, which stands for all models. A number without a list allows nothing.
    fn get(&self, number: u32) -> Option<Arc<[ModelName]>> {
        let place = number.checked_sub(1)? as usize;
        Some(self.list.get(place).cloned().unwrap_or_default())
    }

    fn memory(&self) -> usize {
        let texts: usize = self.list.iter().map(|list| list.len() * size_of::<ModelName>() + 16).sum();
        texts + self.list.capacity() * size_of::<Arc<[ModelName]>>() + self.numbers.capacity() * 25
    }
}

/// A key that is new, other or gone.
struct Changed<'r> {
    tenant: &'r TenantName,
    id: u64,
    record: Option<&'r KeyRecord>,
}

/// The keys of a tenant that has none.
static NONE: BTreeMap<KeyId, Arc<KeyRecord>> = BTreeMap::new();

/// What differs between two sets of records, by their pointers.
fn changes<'r>(old: &'r KeyRecords, new: &'r KeyRecords) -> Vec<Changed<'r>> {
    let mut changes = Vec::new();
    let mut one = |tenant, was: &'r BTreeMap<KeyId, Arc<KeyRecord>>, is: &'r BTreeMap<KeyId, Arc<KeyRecord>>| {
        let gone = was.keys().filter(|id| !is.contains_key(*id)).map(|id| (id, None));
        let other = is.iter().filter(|(id, record)| was.get(*id).is_none_or(|known| !Arc::ptr_eq(known, record)));
        let all = gone.chain(other.map(|(id, record)| (id, Some(&**record))));
        changes.extend(all.filter_map(|(id, record)| Some(Changed { tenant, id: number_of(id)?, record })));
    };
    for (tenant, is) in new {
        match old.get(tenant) {
            Some(was) if Arc::ptr_eq(was, is) => {}
            was => one(tenant, was.map_or(&NONE, |was| was), is),
        }
    }
    for (tenant, was) in old.iter().filter(|(tenant, _)| !new.contains_key(*tenant)) {
        one(tenant, was, &NONE);
    }
    changes
}

/// The part of an id among a power of two of them: its first bits.
const fn part_of(id: u64, parts: usize) -> usize {
    match parts.trailing_zeros() {
        0 => 0,
        bits => (id >> (64 - bits)) as usize,
    }
}

/// Compares without stopping at the first difference.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests;
