//! Two nodes on one store: the bound over every span of an hour, with a store that is killed in the middle of it.

use std::process::{Child, Command, Stdio};

use plinth_runtime::Random;
use plinth_store::limits::{MemoryLeases, RedisLeases, RedisLeasesOptions};

use super::*;

/// A node of several, with a clock of its own.
struct Member {
    limits: Limits,
    clock: Arc<ManualClock>,
    metrics: LimitMetrics,
    tasks: TaskGroup,
}

impl Member {
    fn new(start: u64, store: Arc<dyn LeaseStore>, plan: PlanRecord) -> Self {
        let ((world, clock), tasks) = (world(start), TaskGroup::new("test"));
        let (metrics, timeout) = (LimitMetrics::default(), Duration::from_secs(2));
        let shared = SharedLimits { store, nodes: 2, timeout, tasks: tasks.clone() };
        let limits = Limits::new(&world, metrics.clone(), LimitOptions { users: 10_000, ..LimitOptions::default() }, Some(shared));
        let (name, record) = ("acme".parse().unwrap(), tenant(Some("p")));
        limits.apply(&BTreeMap::from([("p".parse().unwrap(), plan)]), std::iter::once((&name, 0, &record)), None);
        Self { limits, clock, metrics, tasks }
    }

    async fn enter(&self, user: u64, units: u32) -> Result<Entry, Refused> {
        let (name, address) = ("acme".parse().unwrap(), IpAddr::from([203, 0, 113, 5]));
        let caller = Caller { tenant: &name, tenant_index: 0, user: UserKey(user), address };
        let spec = CostSpec { fixed: units, ..CostSpec::default() };
        self.limits.enter(caller, "infer", Cost { spec, body: 0 }, self.clock.monotonic()).await
    }

    async fn count(&self, user: u64, requests: u32) -> usize {
        let mut count = 0;
        for _ in 0..requests {
            count += usize::from(self.enter(user, 1).await.is_ok());
        }
        count
    }
}

fn plan(limits: Vec<LimitSpec>) -> PlanRecord {
    PlanRecord { limits, ..PlanRecord::default() }
}

#[tokio::test]
async fn two_nodes_share_one_limit_and_a_lost_store_halves_it() {
    let (_, clock) = world(NOON);
    let store = Arc::new(MemoryLeases::new(clock.clone()));
    let nodes = [5, 9_000_000].map(|start| Member::new(NOON + start, store.clone(), plan(vec![limit("all", "100/s", Some(80))])));
    let tick = |millis| {
        let by = Duration::from_millis(millis);
        clock.advance(by);
        nodes.iter().for_each(|node| node.clock.advance(by));
    };
    // Two leases of 10 may be held and not used.
    tick(1000);
    let first = nodes[0].count(1, 50).await + nodes[1].count(1, 50).await;
    assert!((60..=80).contains(&first), "one burst for both: {first}");
    tick(200);
    let all = first + nodes[0].count(1, 50).await + nodes[1].count(1, 50).await;
    assert!((80..=100).contains(&all), "{all}");
    // At once: what is earned until somebody notices is earned.
    store.set_down(true);
    tick(1);
    let (a, b) = (nodes[0].count(1, 80).await, nodes[1].count(1, 80).await);
    assert!(a <= 10 && b <= 10, "no more than each held, however long it was: {a} and {b}");
    for _ in 0..10 {
        tick(100);
        assert_eq!((nodes[0].count(1, 80).await, nodes[1].count(1, 80).await), (5, 5), "its share of 100/s");
    }
    store.set_down(false);
    tick(100);
    let together = nodes[0].count(1, 80).await + nodes[1].count(1, 80).await;
    assert!(together <= 10 + 10, "the time without the store is not paid twice: {together}");
    let metrics = &nodes[0].metrics;
    assert!(metrics.leases_granted.value() > 0 && metrics.leases_short.value() > 0);
}

#[tokio::test]
async fn a_user_is_counted_on_all_nodes() {
    let (_, clock) = world(NOON);
    let store = Arc::new(MemoryLeases::new(clock.clone()));
    let user = LimitSpec { scope: LimitScope::User, ..limit("each", "10/minute", Some(10)) };
    let cost = LimitSpec { scope: LimitScope::User, counts: Counted::Cost, ..limit("units", "1/s", Some(100)) };
    let nodes = [5, 7].map(|start| Member::new(NOON + start, store.clone(), plan(vec![user.clone(), cost.clone()])));
    assert_eq!((nodes[0].count(1, 7).await, nodes[1].count(1, 7).await), (7, 3));
    let refused = nodes[1].enter(1, 1).await.unwrap_err();
    assert_eq!((refused.error.reason(), refused.error.retry_delay()), (Reason::RateLimited, Some(Duration::from_secs(6))));
    assert_eq!(nodes[1].count(2, 7).await, 7, "another user");
    // Cost that was reserved on one node and not used is there on the other.
    let entry = nodes[0].enter(3, 90).await.unwrap();
    assert_eq!(nodes[1].enter(3, 90).await.unwrap_err().error.reason(), Reason::RateLimited);
    entry.settle(0);
    tokio::time::timeout(Duration::from_secs(5), async {
        while nodes[1].enter(3, 90).await.is_err() {
            clock.advance(Duration::from_millis(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("what was given back is there for all");
    store.set_down(true);
    assert_eq!((nodes[0].count(9, 20).await, nodes[1].count(9, 20).await), (5, 5), "without the store each node has its share");
}

#[tokio::test]
async fn leases_are_brought_back_when_a_node_stops() {
    let (_, clock) = world(NOON);
    let store = Arc::new(MemoryLeases::new(clock));
    let nodes = [5, 7].map(|start| Member::new(NOON + start, store.clone(), plan(vec![limit("day", "1000/day", Some(80))])));
    assert_eq!(nodes[0].count(1, 1).await, 1);
    assert!(nodes[0].tasks.close(Duration::from_secs(5)).await.is_empty());
    assert_eq!(nodes[1].count(1, 100).await, 79, "only what was used is missing");
}

/// A server of our own that remembers; killed when dropped.
struct Server {
    port: u16,
    child: Child,
}

impl Server {
    fn start(port: u16, directory: &std::path::Path) -> Option<Self> {
        let started = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "yes", "--appendfsync", "no", "--dir"])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        started.inspect_err(|error| println!("SKIPPED: redis-server cannot be started ({error})")).ok().map(|child| Self { port, child })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was admitted, in milliseconds and units.
#[derive(Default)]
struct Record(Vec<(u64, i64)>);

impl Record {
    /// The most, over all spans of time, of what was admitted beyond rate × span.
    fn excess(&self, per_second: u64) -> f64 {
        let (mut sum, mut least, mut worst) = (0f64, f64::MAX, f64::MIN);
        for (at, units) in &self.0 {
            let earned = (*at * per_second) as f64 / 1000.0;
            least = least.min(sum - earned);
            sum += *units as f64;
            worst = worst.max(sum - earned - least);
        }
        worst
    }

    fn sum(&self) -> i64 {
        self.0.iter().map(|(_, units)| units).sum()
    }
}

/// An hour in simulated time against a real server, which is killed after 20 minutes and comes back 10 minutes later.
#[tokio::test]
async fn an_hour_with_a_killed_redis_stays_within_the_bound() {
    const RATE: u64 = 50;
    const BURST: u64 = 100;
    const STEP: u64 = 500;
    let directory = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(mut server) = Server::start(port, directory.path()) else { return };
    let ((real, clock), random, group) = (world(NOON), SeededRandom::new(17), TaskGroup::new("stores"));
    let system = World { clock: World::real().clock, ..real };
    let stores: Vec<_> = (0..2)
        .map(|_| {
            let options = RedisLeasesOptions::new(format!("redis://127.0.0.1:{port}"), Duration::from_secs(2));
            RedisLeases::open(RedisLeasesOptions { clock: Some(clock.clone()), ..options }, &system, &group).unwrap()
        })
        .collect();
    let units = LimitSpec { counts: Counted::Cost, ..limit("units", &format!("{RATE}/s"), Some(BURST)) };
    let nodes: Vec<_> =
        stores.iter().zip([3, 777_000]).map(|(store, start)| Member::new(NOON + start, store.clone(), plan(vec![units.clone()]))).collect();
    let (mut record, mut held, mut largest) = (Record::default(), Vec::<(u64, Entry, u64)>::new(), BURST / 8);
    let both = async |up: bool| {
        for store in &stores {
            tokio::time::timeout(Duration::from_secs(20), store.until(up)).await.expect("the server is seen as it is");
        }
    };
    both(true).await;
    for step in 0..3_600_000 / STEP {
        let now = step * STEP;
        match now {
            1_200_000 => {
                drop(server.child.kill());
                drop(server.child.wait());
                both(false).await;
            }
            1_800_000 => {
                server = Server::start(server.port, directory.path()).unwrap();
                both(true).await;
            }
            _ => {}
        }
        clock.advance(Duration::from_millis(STEP));
        nodes.iter().for_each(|node| node.clock.advance(Duration::from_millis(STEP)));
        while held.first().is_some_and(|(at, ..)| *at <= now) {
            let (_, entry, cost) = held.remove(0);
            let actual = random.next_u64() % (cost + 1);
            entry.settle(actual);
            record.0.push((now, actual.cast_signed() - cost.cast_signed()));
        }
        for node in &nodes {
            for _ in 0..random.next_u64() % 24 {
                let cost = 1 + random.next_u64() % 4;
                largest = largest.max(cost);
                if let Ok(entry) = node.enter(1, cost as u32).await {
                    record.0.push((now, cost.cast_signed()));
                    if random.next_u64().is_multiple_of(4) {
                        held.push((now + STEP * (1 + random.next_u64() % 6), entry, cost));
                        held.sort_by_key(|(at, ..)| *at);
                    }
                }
            }
        }
    }
    let (bound, excess) = (BURST + 2 * largest, record.excess(RATE));
    let share = record.sum() as f64 / (3600 * RATE) as f64;
    println!("excess over rate x time {excess}, allowed {bound}; used {:.1} % of the rate", share * 100.0);
    assert!(excess <= bound as f64 + 1e-6, "{excess} of at most {bound}");
    assert!(share > 0.9, "the limit can be used: {share}");
    drop(held);
    for node in nodes {
        node.tasks.close(Duration::from_secs(5)).await;
    }
    group.close(Duration::from_secs(5)).await;
}
