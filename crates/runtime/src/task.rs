//! Tasks that somebody owns.
//!
//! Invariant: every task belongs to a [`TaskGroup`], has a name and a policy for its end, and is
//! gone when [`TaskGroup::close`] returns: those that do not end within the deadline are aborted and
//! named. A panic ends that task alone and is logged. This is the only place that spawns.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the end of a task means to its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// Tasks of this kind come and go, such as one for each connection.
    Ignore,
    /// The task should live as long as the group: when it returns or panics early, the group is cancelled, so that
    /// the process ends in order instead of limping.
    CancelGroup,
}

/// A set of tasks that end together. Cheap to clone; clones share the group.
#[derive(Clone)]
pub struct TaskGroup {
    inner: Arc<Inner>,
    cancel: CancellationToken,
}

struct Inner {
    name: &'static str,
    tracker: TaskTracker,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, (&'static str, tokio::task::AbortHandle)>>,
}

impl TaskGroup {
    /// An empty group.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self::with_token(name, CancellationToken::new())
    }

    /// A group that is cancelled when `parent` is.
    #[must_use]
    pub fn child_of(parent: &Self, name: &'static str) -> Self {
        Self::with_token(name, parent.cancel.child_token())
    }

    fn with_token(name: &'static str, cancel: CancellationToken) -> Self {
        let inner = Inner { name, tracker: TaskTracker::new(), next: AtomicU64::new(0), running: Mutex::default() };
        Self { inner: Arc::new(inner), cancel }
    }

    /// The token that tasks of this group watch in order to end.
    #[must_use]
    pub const fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Asks every task to end; does not wait.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// How many tasks are running.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.tracker.len()
    }

    /// Whether no task is running.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.tracker.is_empty()
    }

    /// Starts a task on the current tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn(&self, name: &'static str, on_end: OnEnd, future: impl Future<Output = ()> + Send + 'static) {
        let id = self.inner.next.fetch_add(1, Ordering::Relaxed);
        // The guard runs also on panic and on abort. It waits for this lock, so it never runs before the entry is there.
        let guard = EndGuard { group: self.clone(), id, name, on_end };
        let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = self.inner.tracker.spawn(async move {
            let _guard = guard;
            future.await;
        });
        running.insert(id, (name, handle.abort_handle()));
    }

    /// Cancels all, waits until `deadline` has passed, aborts what is left.
    ///
    /// Returns the names of the aborted tasks. Cancel safe: tasks keep being cancelled.
    pub async fn close(&self, deadline: Duration) -> Vec<&'static str> {
        self.cancel.cancel();
        self.wait(deadline).await
    }

    /// As [`TaskGroup::close`], but lets the tasks end on their own until the deadline.
    pub async fn wait(&self, deadline: Duration) -> Vec<&'static str> {
        self.inner.tracker.close();
        if tokio::time::timeout(deadline, self.inner.tracker.wait()).await.is_ok() {
            return Vec::new();
        }
        let late: Vec<_> = {
            let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.values().map(|(name, handle)| (*name, handle.clone())).collect()
        };
        self.cancel.cancel();
        for (_, handle) in &late {
            handle.abort();
        }
        // An aborted task ends at its next await; one that never awaits must not hold us.
        let _ = tokio::time::timeout(Duration::from_millis(500), self.inner.tracker.wait()).await;
        late.into_iter().map(|(name, _)| name).collect()
    }
}

struct EndGuard {
    group: TaskGroup,
    id: u64,
    name: &'static str,
    on_end: OnEnd,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.group.inner.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        let panicked = std::thread::panicking();
        if panicked {
            tracing::error!(group = self.group.inner.name, task = self.name, "task panicked");
        }
        if self.on_end == OnEnd::CancelGroup && !self.group.cancel.is_cancelled() {
            tracing::error!(group = self.group.inner.name, task = self.name, panicked, "task ended early, ending its group");
            self.group.cancel.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn close_cancels_and_waits() {
        let group = TaskGroup::new("test");
        let token = group.cancelled().clone();
        group.spawn("polite", OnEnd::CancelGroup, async move { token.cancelled().await });
        assert_eq!(group.len(), 1);
        assert!(group.close(Duration::from_secs(1)).await.is_empty());
        assert!(group.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn late_tasks_are_aborted_and_named() {
        let group = TaskGroup::new("test");
        group.spawn("deaf", OnEnd::Ignore, std::future::pending());
        assert_eq!(group.close(Duration::from_secs(1)).await, vec!["deaf"]);
        assert!(group.is_empty());
    }

    #[tokio::test]
    async fn an_early_end_cancels_the_group_and_a_panic_stays_inside() {
        let group = TaskGroup::new("test");
        group.spawn("comes and goes", OnEnd::Ignore, async {});
        tokio::task::yield_now().await;
        assert!(!group.cancelled().is_cancelled());
        group.spawn("must live", OnEnd::CancelGroup, async { panic!("on purpose") });
        group.cancelled().cancelled().await;
    }

    #[tokio::test]
    async fn a_child_ends_with_its_parent_and_not_the_other_way() {
        let parent = TaskGroup::new("parent");
        let child = TaskGroup::child_of(&parent, "child");
        child.cancel();
        assert!(!parent.cancelled().is_cancelled());
        let child = TaskGroup::child_of(&parent, "child");
        parent.cancel();
        assert!(child.cancelled().is_cancelled());
    }
}
