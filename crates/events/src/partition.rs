//! Which partition a key is in.
//!
//! Pure and stable: the same key, partitioner and number of partitions give the same partition in every release, on every machine. Hashes
//! are the first 8 bytes, big endian, of SHA-256, so that nobody can choose keys that all fall into one partition cheaply.

#[cfg(test)]
mod tests;

use plinth_types::Digest;
use serde::{Deserialize, Serialize};

use crate::error::EventsError;

/// Assigns keys to partitions.
pub trait Partitioner: Send + Sync {
    /// The partition of a key, less than the number of partitions. The same for the same key, always.
    fn partition(&self, key: &str) -> u16;
}

/// A partitioner as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PartitionerSpec {
    /// See [`Hash`].
    Hash,
    /// See [`Range`].
    Range {
        /// The first key of each partition but the first, ascending.
        splits: Vec<String>,
    },
    /// See [`ConsistentHash`].
    ConsistentHash {
        /// Points on the ring for each partition, 1 to 1,024.
        virtual_nodes: u16,
    },
}

impl PartitionerSpec {
    /// Builds it for so many partitions.
    ///
    /// # Errors
    /// [`EventsError::Invalid`] when the settings do not fit the number of partitions.
    pub fn build(&self, partitions: u16) -> Result<Box<dyn Partitioner>, EventsError> {
        Ok(match self {
            Self::Hash => Box::new(Hash::new(partitions)?),
            Self::Range { splits } if splits.len() + 1 == usize::from(partitions) => Box::new(Range::new(splits.clone())?),
            Self::Range { .. } => return Err(EventsError::Invalid("ranges need one split less than there are partitions")),
            Self::ConsistentHash { virtual_nodes } => Box::new(ConsistentHash::new(partitions, *virtual_nodes)?),
        })
    }
}

/// The first 8 bytes of a text's SHA-256.
fn hash(text: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&Digest::of(text).as_bytes()[..8]);
    u64::from_be_bytes(first)
}

/// Equal shares of the space of hashes. With many keys each partition has its share within a few standard deviations of chance; another
/// number of partitions moves nearly all keys.
#[derive(Debug, Clone, Copy)]
pub struct Hash {
    partitions: u16,
}

impl Hash {
    /// # Errors
    /// For no partitions.
    pub const fn new(partitions: u16) -> Result<Self, EventsError> {
        if partitions == 0 { Err(EventsError::Invalid("a stream has at least one partition")) } else { Ok(Self { partitions }) }
    }
}

impl Partitioner for Hash {
    fn partition(&self, key: &str) -> u16 {
        // The hash as a fraction of 2^64, times the number of partitions: no modulo, no bias worth naming.
        let scaled = (u128::from(hash(key.as_bytes())) * u128::from(self.partitions)) >> 64;
        u16::try_from(scaled).unwrap_or(0)
    }
}

/// Ranges of keys, by the bytes of their UTF-8: neighbours stay together. How even it is depends on the splits alone.
#[derive(Debug, Clone)]
pub struct Range {
    splits: Vec<String>,
}

impl Range {
    /// The first key of each partition but the first.
    ///
    /// # Errors
    /// When the splits do not ascend.
    pub fn new(splits: Vec<String>) -> Result<Self, EventsError> {
        if splits.len() >= usize::from(u16::MAX) || !splits.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(EventsError::Invalid("the splits of ranges ascend, and none is there twice"));
        }
        Ok(Self { splits })
    }
}

impl Partitioner for Range {
    fn partition(&self, key: &str) -> u16 {
        u16::try_from(self.splits.partition_point(|split| split.as_str() <= key)).unwrap_or(u16::MAX)
    }
}

/// A ring of hashes on which each partition has points; a key belongs to the next point after its hash (Karger et al., 1997).
///
/// With one partition more, keys move only to the new one, about 1 in `partitions + 1` of them. A partition's share varies by about
/// `1 / sqrt(virtual_nodes)` around the mean.
#[derive(Debug, Clone)]
pub struct ConsistentHash {
    /// Ascending.
    ring: Vec<(u64, u16)>,
}

impl ConsistentHash {
    /// A ring for so many partitions with so many points each.
    ///
    /// # Errors
    /// For no partitions or points, and for more than 1,024 points each.
    pub fn new(partitions: u16, virtual_nodes: u16) -> Result<Self, EventsError> {
        if partitions == 0 || !(1..=1024).contains(&virtual_nodes) {
            return Err(EventsError::Invalid("a ring has at least one partition, and 1 to 1,024 points for each"));
        }
        let point = |partition: u16, node: u16| (hash(format!("{partition}/{node}").as_bytes()), partition);
        let mut ring: Vec<_> = (0..partitions).flat_map(|partition| (0..virtual_nodes).map(move |node| point(partition, node))).collect();
        ring.sort_unstable();
        Ok(Self { ring })
    }
}

impl Partitioner for ConsistentHash {
    fn partition(&self, key: &str) -> u16 {
        let hash = hash(key.as_bytes());
        let next = self.ring.partition_point(|(point, _)| *point < hash);
        // Past the last point the ring begins again.
        self.ring.get(next).or_else(|| self.ring.first()).map_or(0, |(_, partition)| *partition)
    }
}
