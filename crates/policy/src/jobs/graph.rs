//! Which of several jobs that wait for each other can be stored first.

/// Jobs that wait for each other in a circle; the position of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the jobs wait for each other in a circle, job {0} among them")]
pub struct Cycle(pub usize);

/// An order in which every job comes after those that it waits for; jobs that do not depend on each other keep their order.
/// `waits_for[i]` holds the positions of what job `i` waits for; positions that do not exist are left to the caller to refuse, and ignored.
///
/// # Errors
/// [`Cycle`]. A job that waits for itself is one too.
pub fn order(waits_for: &[Vec<usize>]) -> Result<Vec<usize>, Cycle> {
    let count = waits_for.len();
    let mut missing: Vec<usize> = waits_for.iter().map(|on| on.iter().filter(|at| **at < count).count()).collect();
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (job, on) in waits_for.iter().enumerate() {
        for at in on {
            if let Some(list) = followers.get_mut(*at) {
                list.push(job);
            }
        }
    }
    let mut ready: std::collections::BTreeSet<usize> = (0..count).filter(|job| missing.get(*job) == Some(&0)).collect();
    let mut sorted = Vec::with_capacity(count);
    while let Some(job) = ready.pop_first() {
        sorted.push(job);
        for follower in followers.get(job).into_iter().flatten() {
            if let Some(left) = missing.get_mut(*follower) {
                *left -= 1;
                if *left == 0 {
                    ready.insert(*follower);
                }
            }
        }
    }
    match missing.iter().position(|left| *left > 0) {
        Some(stuck) => Err(Cycle(stuck)),
        None => Ok(sorted),
    }
}
