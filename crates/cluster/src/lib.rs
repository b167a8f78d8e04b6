//! The snapshot: all that a node needs in order to serve, on local disk.
//!
//! Invariant: serving reads nothing but the snapshot. [`SnapshotFile`] keeps it complete, versioned
//! and checksummed, replaced atomically; [`Keeper`] builds it from the ledger at a steady pace and on
//! change, and goes on with the last one while the ledger is away. What a snapshot means for models
//! and keys is left to `serving` and `identity`.
#![warn(missing_docs)]

mod file;
mod keeper;
mod snapshot;

pub use file::{SnapshotFile, SnapshotFileError};
pub use keeper::{Keeper, KeeperOptions, KeeperParts, View};
pub use snapshot::{ModelEntry, OfTenants, Shared, Snapshot, SnapshotBuilder};
