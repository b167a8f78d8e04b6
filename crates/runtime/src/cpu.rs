//! How many processors this process may really use.
//!
//! A container sees all processors of its machine and gets the time of fewer: a quota of its control group, or of one
//! around that. Who starts as many threads as there are processors is then stopped in the middle of every period.
//! Invariant: the budget is what the tightest of all limits leaves, and at least one. The parsers are pure; reading the
//! machine is in one place.

use std::path::{Path, PathBuf};

use rustix::thread::{CpuSet, sched_getaffinity};

/// Where control groups are mounted.
const MOUNTED: &str = "/sys/fs/cgroup";
/// More groups than this are not within each other.
const MAX_DEPTH: usize = 32;

/// What a process may use of the machine's processors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuBudget {
    /// On how many processors its threads may run.
    pub processors: usize,
    /// How many processors' time it gets on average; `None` for as many as it can use.
    pub quota: Option<f64>,
}

impl CpuBudget {
    /// How many threads can compute at a time without being stopped: never more than the quota has whole processors for,
    /// and at least one.
    #[must_use]
    pub fn threads(&self) -> usize {
        let whole = self.quota.map_or(usize::MAX, |quota| quota as usize);
        self.processors.min(whole).max(1)
    }
}

/// Reads the budget of this process: the processors that it may run on, and the quotas of its control groups (version 2,
/// else version 1) up to the outermost that can be seen. What cannot be read limits nothing.
#[must_use]
pub fn cpu_budget() -> CpuBudget {
    let processors = match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).count(),
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    CpuBudget { processors: processors.max(1), quota: quota(&groups, Path::new(MOUNTED)) }
}

/// The tightest quota of the groups that `/proc/self/cgroup` names.
fn quota(groups: &str, mounted: &Path) -> Option<f64> {
    let groups = groups.lines().filter_map(Group::parse).collect::<Vec<_>>();
    let mut tightest: Option<f64> = None;
    let mut hold = |quota: Option<f64>| {
        if let Some(quota) = quota {
            tightest = Some(tightest.map_or(quota, |other| other.min(quota)));
        }
    };
    for group in &groups {
        match group.version {
            Version::Two => {
                // Where both versions are in use, the newer is mounted beside the older.
                for root in [mounted.to_owned(), mounted.join("unified")] {
                    up(&root, &group.path).for_each(|place| hold(read(&place.join("cpu.max")).as_deref().and_then(parse_max)));
                }
            }
            Version::One => {
                for root in ["cpu", "cpu,cpuacct", "cpuacct,cpu"].map(|name| mounted.join(name)) {
                    up(&root, &group.path).for_each(|place| {
                        let (quota, period) = (read(&place.join("cpu.cfs_quota_us")), read(&place.join("cpu.cfs_period_us")));
                        hold(quota.zip(period).and_then(|(quota, period)| parse_cfs(&quota, &period)));
                    });
                }
            }
        }
    }
    tightest
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The group's directory and all around it, up to the root. Within a container the path may name a place that only the
/// machine knows; then the root alone is there, and is the container's.
fn up(root: &Path, path: &str) -> impl Iterator<Item = PathBuf> {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty() && *name != "..").take(MAX_DEPTH).collect();
    let root = root.to_owned();
    (0..=names.len())
        .rev()
        .map(move |depth| names.iter().take(depth).fold(root.clone(), |path, name| path.join(name)))
        .collect::<Vec<_>>()
        .into_iter()
}

#[derive(Debug, PartialEq)]
enum Version {
    One,
    Two,
}

#[derive(Debug, PartialEq)]
struct Group {
    version: Version,
    path: String,
}

impl Group {
    /// A line such as `0::/user.slice` or `4:cpu,cpuacct:/docker/1f`; only groups that limit processors.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let version = match (number, controllers) {
            ("0", "") => Version::Two,
            (_, controllers) if controllers.split(',').any(|name| name == "cpu") => Version::One,
            _ => return None,
        };
        Some(Self { version, path: path.to_owned() })
    }
}

/// `cpu.max` of version 2: `max 100000` or `150000 100000`, in microseconds.
fn parse_max(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let (quota, period) = (words.next()?, words.next().unwrap_or("100000"));
    parse_cfs(quota, period)
}

/// Quota and period of version 1, in microseconds; `-1` is no limit.
fn parse_cfs(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (quota.trim().parse::<u64>().ok()?, period.trim().parse::<u64>().ok()?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_as_the_kernel_writes_them() {
        assert_eq!(parse_max("max 100000\n"), None);
        assert_eq!(parse_max("150000 100000\n"), Some(1.5));
        assert_eq!(parse_max("50000"), Some(0.5));
        assert_eq!(parse_cfs("-1\n", "100000\n"), None);
        assert_eq!(parse_cfs("200000\n", "100000\n"), Some(2.0));
        for bad in ["", "x 1", "1 x", "1 0", "0 1", "-5 10"] {
            assert_eq!(parse_max(bad), None, "{bad}");
        }
    }

    #[test]
    fn groups_as_the_kernel_names_them() {
        let group = |line| Group::parse(line).map(|group| (group.version, group.path));
        assert_eq!(group("0::/user.slice/a:b"), Some((Version::Two, "/user.slice/a:b".into())));
        assert_eq!(group("4:cpu,cpuacct:/docker/1f"), Some((Version::One, "/docker/1f".into())));
        assert_eq!(group("2:cpuacct:/"), None);
        assert_eq!(group("7:name=systemd:/"), None);
        assert_eq!(group("nonsense"), None);
    }

    #[test]
    fn the_tightest_of_all_groups_counts() {
        let machine = std::env::temp_dir().join(format!("plinth-cpu-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = machine.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a/cpu.max", "150000 100000");
        write("a/b/cpu.max", "400000 100000");
        write("a/b/c/cpu.max", "max 100000");
        write("cpu,cpuacct/x/cpu.cfs_quota_us", "50000");
        write("cpu,cpuacct/x/cpu.cfs_period_us", "100000");
        let of = |groups: &str| quota(groups, &machine);
        assert_eq!(of("0::/a/b/c"), Some(1.5), "a group around it");
        assert_eq!(of("0::/"), None);
        assert_eq!(of("0::/not/seen/from/here"), None);
        assert_eq!(of("3:cpu,cpuacct:/x/y\n0::/a"), Some(0.5));
        assert_eq!(of("0::/../../a"), Some(1.5), "a path from outside of the container's view");
        std::fs::remove_dir_all(&machine).unwrap();
    }

    #[test]
    fn threads_are_whole_and_at_least_one() {
        let threads = |processors, quota| CpuBudget { processors, quota }.threads();
        assert_eq!([threads(8, None), threads(8, Some(2.9)), threads(2, Some(16.0)), threads(4, Some(0.3))], [8, 2, 2, 1]);
        let here = cpu_budget();
        assert!(here.processors >= 1 && here.threads() <= here.processors, "{here:?}");
    }
}
