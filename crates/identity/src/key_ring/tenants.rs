//! The tenants by name and by index.
//!
//! Invariant: a tenant keeps its index as long as the process lives, also while it is suspended or gone, and an index is
//! never given to another: a table by index that is older or newer than the ring never mixes two tenants up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use plinth_store::resources::TenantRecord;
use plinth_types::TenantName;

/// A tenant, as a request needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: TenantName,
    /// Whether its requests are refused for the time being.
    pub suspended: bool,
    /// Whether it is there still.
    pub(super) present: bool,
}

/// All tenants that were ever seen.
#[derive(Debug, Clone)]
pub(super) struct Tenants {
    by_name: HashMap<TenantName, u32>,
    list: Vec<Tenant>,
}

impl Default for Tenants {
    /// The default tenant alone, which is always there and always the first.
    fn default() -> Self {
        let name = TenantName::default_tenant();
        let list = vec![Tenant { name: name.clone(), suspended: false, present: true }];
        Self { by_name: HashMap::from([(name, 0)]), list }
    }
}

impl Tenants {
    /// Takes in what the records say now.
    pub(super) fn follow(&mut self, records: &BTreeMap<TenantName, Arc<TenantRecord>>) {
        for tenant in self.list.iter_mut().skip(1) {
            tenant.present = false;
        }
        for (name, record) in records {
            let index = self.index_or_new(name);
            if let Some(tenant) = self.list.get_mut(index as usize) {
                // Were the default tenant suspended, nobody could take it back.
                (tenant.suspended, tenant.present) = (record.suspended && index > 0, true);
            }
        }
    }

    /// The index of a tenant that is, was, or will be there.
    pub(super) fn index_or_new(&mut self, name: &TenantName) -> u32 {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(Tenant { name: name.clone(), suspended: false, present: false });
        self.by_name.insert(name.clone(), index);
        index
    }

    /// The tenant at an index, while it is there.
    pub(super) fn at(&self, index: u32) -> Option<&Tenant> {
        self.list.get(index as usize).filter(|tenant| tenant.present)
    }

    /// The tenant of a name, while it is there.
    pub(super) fn find(&self, name: &str) -> Option<(u32, &Tenant)> {
        let index = *self.by_name.get(name)?;
        Some((index, self.at(index)?))
    }

    /// One past the highest index.
    pub(super) const fn len(&self) -> usize {
        self.list.len()
    }

    /// Bytes on the heap, without the names, which the snapshot has too.
    pub(super) fn memory(&self) -> usize {
        self.list.capacity() * size_of::<Tenant>() + self.by_name.capacity() * (size_of::<(TenantName, u32)>() + 1)
    }
}
