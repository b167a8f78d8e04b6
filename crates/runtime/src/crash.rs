//! Named places at which a test may kill the process, as `kill -9` would.
//!
//! Every step that must survive a crash passes a point before and after it. In life no point is
//! armed and passing one is a comparison with `None`. The catalogue is closed so that the fault
//! tests can visit every point and a point without a test is found.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

macro_rules! crash_points {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// A place at which the process may be made to die.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CrashPoint { $($(#[$doc])* $variant,)* }

        impl CrashPoint {
            /// All points.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The point's name, such as `push.blob_renamed`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

crash_points! {
    /// A blob's bytes are in a temporary file, not yet synced.
    PushBlobWritten "push.blob_written";
    /// A blob's temporary file is synced, not yet renamed.
    PushBlobSynced "push.blob_synced";
    /// A blob has its final name, its directory is not yet synced.
    PushBlobRenamed "push.blob_renamed";
    /// All blobs are there, the version is not yet committed.
    PushBeforeCommit "push.before_commit";
    /// The version is committed, the caller does not know yet.
    PushAfterCommit "push.after_commit";
    /// The alias is about to move.
    PromoteBeforeCommit "promote.before_commit";
    /// The alias has moved, the caller does not know yet.
    PromoteAfterCommit "promote.after_commit";
    /// A new snapshot is in a temporary file.
    SnapshotWritten "snapshot.written";
    /// A new snapshot has its final name.
    SnapshotRenamed "snapshot.renamed";
    /// A migration step is about to begin.
    MigrateBeforeStep "migrate.before_step";
    /// A migration step has run, its transaction is not yet committed.
    MigrateBeforeCommit "migrate.before_commit";
    /// A migration step is committed, the next has not begun.
    MigrateAfterCommit "migrate.after_commit";
    /// Jobs are committed, their callers do not know yet.
    JobSubmitted "job.submitted";
    /// A worker is about to claim.
    JobBeforeClaim "job.before_claim";
    /// Jobs are claimed and committed, the worker does not know yet.
    JobAfterClaim "job.after_claim";
    /// A handler is about to begin.
    JobAtStart "job.at_start";
    /// A handler is at work.
    JobMidRun "job.mid_run";
    /// A result's bytes are in the object store, the ledger does not know.
    JobAfterBlob "job.after_blob";
    /// Results are in a transaction that is not yet committed.
    JobBeforeCommit "job.before_commit";
    /// Results are committed, the worker does not know yet.
    JobAfterCommit "job.after_commit";
    /// Events are in a transaction that is not yet committed.
    EventsBeforeCommit "events.before_commit";
    /// Events are committed, their callers do not know yet.
    EventsAfterCommit "events.after_commit";
}

/// The armed point, if any. Cheap to clone.
#[derive(Clone, Default)]
pub struct CrashPoints(Option<Arc<Armed>>);

struct Armed {
    point: CrashPoint,
    passes_left: AtomicU32,
}

impl CrashPoints {
    /// Nothing armed.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Arms a point by name: the process dies when it is reached for the `nth` time (1 is the first).
    ///
    /// # Errors
    /// With the list of names when there is no such point.
    pub fn arm(name: &str, nth: u32) -> Result<Self, String> {
        let point = CrashPoint::ALL.iter().find(|p| p.name() == name).copied();
        let point = point.ok_or_else(|| {
            let names: Vec<_> = CrashPoint::ALL.iter().map(|p| p.name()).collect();
            format!("no crash point '{name}'; there are: {}", names.join(", "))
        })?;
        Ok(Self(Some(Arc::new(Armed { point, passes_left: AtomicU32::new(nth.max(1)) }))))
    }

    /// Passes a point; does not return when it is armed and this is the pass to die at.
    pub fn reach(&self, point: CrashPoint) {
        let Some(armed) = &self.0 else { return };
        if armed.point == point && armed.passes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
            die();
        }
    }
}

/// Ends the process at once: no destructor, no flush, as `kill -9` does.
fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_found_by_name() {
        for point in CrashPoint::ALL {
            assert!(CrashPoints::arm(point.name(), 1).is_ok());
        }
        assert!(CrashPoints::arm("push.nowhere", 1).err().unwrap().contains("push.blob_written"));
    }

    #[test]
    fn other_points_and_earlier_passes_do_nothing() {
        let points = CrashPoints::arm("push.blob_written", 2).unwrap();
        points.reach(CrashPoint::PushBlobWritten);
        points.reach(CrashPoint::PushAfterCommit);
        CrashPoints::none().reach(CrashPoint::PushBlobWritten);
    }
}
