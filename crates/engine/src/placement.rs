//! Which processors a runner's instances compute on.
//!
//! A runner gets as many processors as its instances have threads, and not the same ones as its neighbour. On a machine
//! whose memory is in several places (NUMA nodes), each instance stays within one of them, and instances go round: the
//! threads of an execution then share caches and a memory bus. The choice is pure; reading the machine stands apart.

use std::io;
use std::path::Path;

use rustix::thread::{CpuSet, sched_getaffinity};

/// Where the kernel describes the machine's memory.
const NODES: &str = "/sys/devices/system/node";

/// The processors of each instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Sorted.
    all: Vec<usize>,
    /// For each instance; empty where instances need not be kept apart.
    each: Vec<Vec<usize>>,
}

impl Placement {
    /// The processors of the whole process.
    pub(crate) fn all(&self) -> Vec<usize> {
        self.all.clone()
    }

    /// Those of one instance, where it shall not use all.
    pub(crate) fn of(&self, instance: usize) -> Option<&[usize]> {
        self.each.get(instance).map(Vec::as_slice)
    }
}

/// Chooses on this machine, for this process.
pub(crate) fn here(instances: u16, threads: u16) -> io::Result<Placement> {
    let allowed = sched_getaffinity(None)?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let first = usize::try_from(rustix::process::getpid().as_raw_nonzero().get()).unwrap_or(0);
    Ok(choose(&allowed, &nodes(Path::new(NODES)), usize::from(instances), usize::from(threads.max(1)), first))
}

/// Chooses for `instances` of `threads` each among the `allowed` processors. `first` tells runners apart.
pub(crate) fn choose(allowed: &[usize], nodes: &[Vec<usize>], instances: usize, threads: usize, first: usize) -> Placement {
    let usable: Vec<Vec<usize>> = nodes
        .iter()
        .map(|node| node.iter().copied().filter(|cpu| allowed.contains(cpu)).collect::<Vec<_>>())
        .filter(|node| !node.is_empty())
        .collect();
    if usable.len() < 2 {
        return Placement { all: turn(allowed, first, instances.saturating_mul(threads)), each: Vec::new() };
    }
    let place = |instance: usize| {
        let node = usable.get((first + instance) % usable.len()).map_or(&[][..], Vec::as_slice);
        // The instances on the same node begin where the one before has ended.
        turn(node, first + (instance / usable.len()) * threads, threads)
    };
    let each: Vec<Vec<usize>> = (0..instances).map(place).collect();
    let mut all: Vec<usize> = each.iter().flatten().copied().collect();
    all.sort_unstable();
    all.dedup();
    Placement { all, each }
}

/// `wanted` of the processors, from the `first`th on and round, sorted; all of them when there are no more.
fn turn(processors: &[usize], first: usize, wanted: usize) -> Vec<usize> {
    let count = wanted.min(processors.len());
    let mut turned: Vec<usize> = processors.iter().copied().cycle().skip(first % processors.len().max(1)).take(count).collect();
    turned.sort_unstable();
    turned
}

/// The processors of each node; empty when the kernel does not say.
fn nodes(directory: &Path) -> Vec<Vec<usize>> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut nodes: Vec<(usize, Vec<usize>)> = entries
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let list = std::fs::read_to_string(entry.path().join("cpulist")).ok()?;
            Some((number, parse_list(&list)?))
        })
        .collect();
    nodes.sort();
    nodes.into_iter().map(|(_, processors)| processors).collect()
}

/// The kernel's lists: `0-3,8,10-11`.
fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut list = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to) = (from.parse::<usize>().ok()?, to.parse::<usize>().ok()?);
        if to >= CpuSet::MAX_CPU {
            return None;
        }
        list.extend(from..=to);
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_one_node_the_process_gets_what_its_threads_need() {
        let all = |instances, threads, first| choose(&[0, 1, 2, 3], &[vec![0, 1, 2, 3]], instances, threads, first).all();
        assert_eq!(all(1, 1, 0), [0]);
        assert_eq!(all(1, 2, 3), [0, 3], "runners begin at different processors");
        assert_eq!(all(2, 2, 1), [0, 1, 2, 3]);
        assert_eq!(all(9, 9, 1), [0, 1, 2, 3]);
        assert_eq!(choose(&[5], &[], 2, 2, 7).all(), [5], "a machine that does not say");
        assert_eq!(choose(&[0, 1], &[vec![0, 1], vec![2, 3]], 2, 1, 0).of(0), None, "the other node is not ours");
    }

    #[test]
    fn on_several_nodes_each_instance_stays_within_one() {
        let nodes = [vec![0, 1, 2, 3], vec![4, 5, 6, 7]];
        let placed = choose(&[0, 1, 2, 3, 4, 5, 6, 7], &nodes, 3, 2, 0);
        assert_eq!((placed.of(0).unwrap(), placed.of(1).unwrap(), placed.of(2).unwrap()), (&[0, 1][..], &[4, 5][..], &[2, 3][..]));
        assert_eq!(placed.all(), [0, 1, 2, 3, 4, 5]);
        let next = choose(&[0, 1, 2, 3, 4, 5, 6, 7], &nodes, 1, 2, 1);
        assert_eq!(next.of(0).unwrap(), [5, 6], "the next runner begins on the other node");
        assert_eq!(choose(&[0, 4], &nodes, 4, 3, 0).all(), [0, 4]);
    }

    #[test]
    fn lists_of_the_kernel() {
        assert_eq!(parse_list("0-2,5,7-8\n"), Some(vec![0, 1, 2, 5, 7, 8]));
        assert_eq!(parse_list("\n"), Some(vec![]));
        for bad in ["x", "1-", "3-99999999"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
        assert!(here(1, 1).unwrap().all().len() == 1);
    }
}
