//! How many connections one client may have.
//!
//! A client is an IPv4 address or an IPv6 network of 64 bits, which is what one subscriber is given.
//! Invariant: the table holds exactly the clients with an open connection, so it is never larger than
//! the number of connections. It is split into parts with a lock each; a connection takes one lock when
//! it is taken and one when it ends, none on its requests.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The parts of the table; a power of two.
const PARTS: usize = 16;

/// A client, as its connections are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
}

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        // An IPv4 client on a socket of both kinds is the same client.
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// The connections of all clients of a listener.
pub struct Clients {
    max: usize,
    hasher: RandomState,
    parts: [Mutex<HashMap<Client, usize>>; PARTS],
}

impl Clients {
    /// At most `max` connections for each.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, hasher: RandomState::new(), parts: Default::default() })
    }

    fn with<T>(&self, client: Client, change: impl FnOnce(&mut HashMap<Client, usize>) -> T) -> T {
        let part = usize::try_from(self.hasher.hash_one(client) % PARTS as u64).unwrap_or(0);
        change(&mut self.parts[part].lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts a connection of a client; `None` when it has its most already.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<ClientSlot> {
        let client = Client::from(address);
        let entered = self.with(client, |open| {
            let count = open.get(&client).copied().unwrap_or(0);
            (count < self.max).then(|| open.insert(client, count + 1)).is_some()
        });
        entered.then(|| ClientSlot { clients: self.clone(), client })
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().unwrap().len()).sum()
    }
}

/// One connection of a client, until it is dropped.
pub struct ClientSlot {
    clients: Arc<Clients>,
    client: Client,
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        self.clients.with(self.client, |open| match open.get_mut(&self.client) {
            Some(count @ 2..) => *count -= 1,
            _ => {
                open.remove(&self.client);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_of_one_subscriber_are_one_client() {
        let clients = Clients::new(2);
        let enter = |address: &str| clients.enter(address.parse().unwrap());
        let held = [enter("2001:db8::1"), enter("2001:db8::ffff:2")];
        assert!(held.iter().all(Option::is_some) && enter("2001:db8::3").is_none());
        assert!(enter("2001:db8:0:1::1").is_some(), "the next network is somebody else");
        let mapped = [enter("10.0.0.1"), enter("::ffff:10.0.0.1")];
        assert!(mapped.iter().all(Option::is_some) && enter("10.0.0.1").is_none() && enter("10.0.0.2").is_some());
        assert_eq!(clients.len(), 2);
        drop((held, mapped));
        assert_eq!(clients.len(), 0);
    }

    proptest! {
        /// The table is that of a simple count, and empty when all have left.
        #[test]
        fn it_counts(steps in prop::collection::vec((any::<bool>(), 0..4u32), 0..60)) {
            let clients = Clients::new(3);
            let mut held: HashMap<u32, Vec<ClientSlot>> = HashMap::new();
            for (enter, client) in steps {
                let slots = held.entry(client).or_default();
                if enter {
                    let slot = clients.enter(IpAddr::from(client.to_be_bytes()));
                    prop_assert_eq!(slot.is_some(), slots.len() < 3);
                    slots.extend(slot);
                } else {
                    slots.pop();
                }
                prop_assert_eq!(clients.len(), held.values().filter(|slots| !slots.is_empty()).count());
            }
        }
    }
}
