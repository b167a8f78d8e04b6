//! The hour in simulated time: the limits of two nodes as the gateway has them, on a real Redis, with clocks that are moved by hand.
//!
//! Redis is killed and comes back with what it knew; later it is killed and comes back empty. Every request is also shown to one limiter
//! that knows of all (the oracle): what it admits is what the limits are meant to.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use plinth_gateway::{Caller, Cost, Entry, LimitOptions, Limits, SharedLimits};
use plinth_identity::UserKey;
use plinth_policy::limits::{Cell, DailyCap, LeaseAnswer, LeaseRequest, LeaseSettings, Rate};
use plinth_runtime::{Clock, ManualClock, Random, SeededRandom, TaskGroup, World};
use plinth_store::limits::{Central, LeaseStore, NoAnswer, RedisLeases, RedisLeasesOptions};
use plinth_store::resources::TenantRecord;
use plinth_store::resources::gateway::CostSpec;
use plinth_telemetry::LimitMetrics;
use plinth_types::{Label, TenantName, Timestamp};
use serde::Serialize;

use super::count::{Excess, Windows};
use super::redis::Redis;
use super::traffic::{Arrival, HOUR, Kind, SUBJECTS, Subject, Traffic};

/// How often the traffic is drawn, and the longest that an answer of Redis takes.
const STEP: u64 = 5_000;
const MINUTE: u64 = 60_000_000;
/// Noon, so that no midnight comes in between.
const NOON: u64 = 20_000 * 86_400_000 + 43_200_000;
pub const NODES: u32 = 2;

/// What happens to Redis, and when.
const EVENTS: [(u64, Event); 4] =
    [(20 * MINUTE, Event::Killed), (30 * MINUTE, Event::Back), (40 * MINUTE, Event::Killed), (45 * MINUTE, Event::Empty)];
/// From here on Redis has forgotten once.
const FORGOTTEN: u64 = 45 * MINUTE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Killed,
    Back,
    Empty,
}

/// What became of one limit.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub tenant: &'static str,
    pub limit: String,
    pub burst: u64,
    pub lease: u64,
    pub asked: u64,
    /// Units admitted, less what was given back.
    pub admitted: i64,
    /// What one limiter for all would have admitted.
    pub ideal: i64,
    /// The same for the time in which Redis was there.
    pub there: (i64, i64),
    /// Beyond rate × span, over all spans, until Redis has forgotten, and over the whole hour.
    pub excess: (f64, f64),
    /// What is allowed of it.
    pub bound: (u64, u64),
    /// The worst spans, in microseconds since the hour began.
    pub spans: [(u64, u64); 2],
    /// Admitted in the fullest window, and what may be.
    pub fullest: (i64, u64),
}

impl Outcome {
    /// Whether both excesses are within their bounds.
    pub fn holds(&self) -> bool {
        self.excess.0 <= self.bound.0 as f64 + 1e-6 && self.excess.1 <= self.bound.1 as f64 + 1e-6
    }
}

/// The store of a node, and the questions that are on their way: simulated time waits for their answers, which in an hour of a few seconds
/// would come minutes late.
struct Watched {
    store: Arc<RedisLeases>,
    under_way: AtomicUsize,
}

#[async_trait]
impl LeaseStore for Watched {
    async fn lease(&self, key: &str, rule: &Central, ask: &LeaseRequest) -> Result<LeaseAnswer, NoAnswer> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let answer = self.store.lease(key, rule, ask).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    fn is_up(&self) -> bool {
        self.store.is_up()
    }

    async fn until(&self, up: bool) {
        self.store.until(up).await;
    }

    fn describe(&self) -> String {
        self.store.describe()
    }
}

/// A node with a clock of its own.
struct Node {
    limits: Limits,
    clock: Arc<ManualClock>,
    tasks: TaskGroup,
}

impl Node {
    fn new(start: u64, store: Arc<dyn LeaseStore>, names: &[TenantName]) -> Result<Self> {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(NOON + start)?));
        let world = World { clock: clock.clone(), random: Arc::new(SeededRandom::new(start)), ..World::real() };
        let tasks = TaskGroup::new("node");
        let shared = SharedLimits { store, nodes: NODES, timeout: Duration::from_secs(2), tasks: tasks.clone() };
        let limits = Limits::new(&world, LimitMetrics::default(), LimitOptions::default(), Some(shared));
        let plans = SUBJECTS.iter().map(|subject| Ok((subject.tenant.parse()?, subject.plan(1)?)));
        let plans: BTreeMap<Label, _> = plans.collect::<Result<_>>()?;
        let record = |subject: &Subject| {
            let plan = Some(subject.tenant.parse()?);
            Ok(TenantRecord { description: String::new(), created_at: world.clock.now(), plan, suspended: false })
        };
        let records: Vec<TenantRecord> = SUBJECTS.iter().map(record).collect::<Result<_>>()?;
        limits.apply(&plans, names.iter().zip(0..).zip(&records).map(|((name, index), record)| (name, index, record)), None);
        Ok(Self { limits, clock, tasks })
    }

    async fn enter(&self, arrival: &Arrival, name: &TenantName) -> Option<Entry> {
        let address = IpAddr::from([203, 0, 113, 5]);
        let caller = Caller { tenant: name, tenant_index: arrival.subject as u32, user: UserKey(arrival.user), address };
        let spec = CostSpec { fixed: u32::try_from(arrival.cost).ok()?, ..CostSpec::default() };
        self.limits.enter(caller, "infer", Cost { spec, body: 0 }, self.clock.monotonic()).await.ok()
    }
}

/// One limiter for all.
enum Oracle {
    Rate(Rate, HashMap<u64, Cell>),
    Daily(DailyCap),
}

impl Oracle {
    fn new(subject: &Subject) -> Result<Self> {
        let rate = subject.limit(1)?;
        Ok(if subject.kind == Kind::Daily { Self::Daily(DailyCap::new(rate.units())) } else { Self::Rate(rate, HashMap::new()) })
    }

    fn take(&mut self, arrival: &Arrival) -> bool {
        match self {
            Self::Rate(rate, cells) => {
                cells.entry(arrival.user).or_default().take(rate, arrival.cost, Duration::from_micros(arrival.at)).allowed()
            }
            Self::Daily(cap) => cap.take(arrival.cost, NOON + arrival.at / 1000).allowed(),
        }
    }

    fn settle(&mut self, arrival: &Arrival, actual: u64, at: u64) {
        match self {
            Self::Rate(rate, cells) => {
                cells.entry(arrival.user).or_default().settle(rate, arrival.cost, actual, Duration::from_micros(at));
            }
            Self::Daily(cap) => cap.settle(arrival.cost, actual, NOON + arrival.at / 1000, NOON + at / 1000),
        }
    }
}

/// What is counted of one limit.
struct Book {
    oracle: Oracle,
    asked: u64,
    admitted: i64,
    ideal: i64,
    there: (i64, i64),
    /// By user: until Redis has forgotten, and over the whole hour.
    excess: HashMap<u64, (Excess, Excess, Windows)>,
    rate: f64,
    window: u64,
}

impl Book {
    fn new(subject: &Subject) -> Result<Self> {
        let rate = subject.limit(1)?;
        let daily = subject.kind == Kind::Daily;
        // A cap is refilled by nothing but midnight.
        let per_second = if daily { 0.0 } else { 1e9 / rate.interval() as f64 };
        let window = if daily { HOUR } else { u64::try_from(rate.period().as_micros())? };
        let oracle = Oracle::new(subject)?;
        Ok(Self { oracle, asked: 0, admitted: 0, ideal: 0, there: (0, 0), excess: HashMap::new(), rate: per_second, window })
    }

    fn admit(&mut self, user: u64, at: u64, units: i64, there: bool) {
        self.admitted += units;
        self.there.0 += if there { units } else { 0 };
        let new = || (Excess::new(self.rate), Excess::new(self.rate), Windows::new(self.window));
        let (before, whole, windows) = self.excess.entry(user).or_insert_with(new);
        if at < FORGOTTEN {
            before.add(at, units);
        }
        whole.add(at, units);
        windows.add(at, units);
    }

    fn expect(&mut self, units: i64, there: bool) {
        self.ideal += units;
        self.there.1 += if there { units } else { 0 };
    }

    fn close(self, subject: &Subject) -> Result<Outcome> {
        let rate = subject.limit(1)?;
        let settings = LeaseSettings::for_rate(&rate, NODES);
        let lease = if subject.kind == Kind::Daily { (rate.burst() / 1000).max(1) } else { settings.size };
        let (bound, forgotten) = bounds(subject.kind, rate.burst(), lease.max(subject.largest()));
        let worst = |of: fn(&(Excess, Excess, Windows)) -> f64| self.excess.values().map(of).fold(0.0, f64::max);
        let of = |which: fn(&(Excess, Excess, Windows)) -> &Excess| {
            let all = self.excess.values().map(which);
            all.max_by(|a, b| a.worst().total_cmp(&b.worst())).map_or((0, 0), Excess::span)
        };
        let spans = [of(|books| &books.0), of(|books| &books.1)];
        let earned = (self.rate * self.window as f64 / 1e6).ceil() as u64;
        Ok(Outcome {
            tenant: subject.tenant,
            limit: subject.text(1),
            burst: rate.burst(),
            lease,
            asked: self.asked,
            admitted: self.admitted,
            ideal: self.ideal,
            there: self.there,
            excess: (worst(|books| books.0.worst()), worst(|books| books.1.worst())),
            bound: (bound, forgotten),
            spans,
            fullest: (self.excess.values().map(|books| books.2.fullest()).max().unwrap_or(0), earned + forgotten),
        })
    }
}

/// What may be admitted beyond rate × span: while Redis remembers, and when it has forgotten once.
///
/// A tenant's limit: its burst and one lease of each node; a store that forgets hands out one burst again, and believes the lease that each
/// node brings back. A user's limit holds nothing; when Redis is lost each node has its share of a burst, and when it is back it has earned
/// one: two bursts more at most for each time, of which there are two in the hour.
pub fn bounds(kind: Kind, burst: u64, lease: u64) -> (u64, u64) {
    let leases = u64::from(NODES) * lease;
    match kind {
        Kind::Users(_) => (3 * burst, 5 * burst),
        _ => (burst + leases, 2 * (burst + leases)),
    }
}

/// A request that is under way: when it ends, what it will have cost.
struct Held {
    end: u64,
    arrival: Arrival,
    actual: u64,
    entry: Option<Entry>,
    expected: bool,
}

struct Replay {
    redis: Redis,
    stores: Vec<Arc<Watched>>,
    central: Arc<ManualClock>,
    nodes: Vec<Node>,
    names: Vec<TenantName>,
    books: Vec<Book>,
    held: Vec<Held>,
    now: u64,
    there: bool,
}

/// Replays the hour.
pub async fn hour(seed: u64) -> Result<Vec<Outcome>> {
    let stores = TaskGroup::new("stores");
    let mut replay = Replay::start(&stores).await?;
    let (mut traffic, random) = (Traffic::new(seed, STEP, |_| true), SeededRandom::new(seed + 1));
    while let Some((end, arrivals)) = traffic.next() {
        for arrival in arrivals {
            replay.until(arrival.at).await?;
            replay.arrive(arrival, &random).await;
        }
        replay.until(end).await?;
        replay.answers().await;
    }
    replay.settle(u64::MAX);
    for node in &replay.nodes {
        node.tasks.close(Duration::from_secs(5)).await;
    }
    stores.close(Duration::from_secs(5)).await;
    replay.books.into_iter().zip(&SUBJECTS).map(|(book, subject)| book.close(subject)).collect()
}

impl Replay {
    async fn start(group: &TaskGroup) -> Result<Self> {
        let redis = Redis::start().await?;
        let central = Arc::new(ManualClock::new(Timestamp::from_millis(NOON)?));
        let open = |_| {
            let clock = Some(central.clone() as Arc<dyn Clock>);
            let options = RedisLeasesOptions { clock, ..RedisLeasesOptions::new(redis.url(), Duration::from_secs(2)) };
            let store = RedisLeases::open(options, &World::real(), group).context("the address of Redis")?;
            Ok(Arc::new(Watched { store, under_way: AtomicUsize::new(0) }))
        };
        let stores: Vec<_> = (0..NODES).map(open).collect::<Result<_>>()?;
        let names: Vec<TenantName> = SUBJECTS.iter().map(|subject| Ok(subject.tenant.parse()?)).collect::<Result<_>>()?;
        // Clocks of nodes have nothing in common with each other or with the store's.
        let nodes = stores.iter().zip([3, 777_000]).map(|(store, start)| Node::new(start, store.clone(), &names));
        let nodes = nodes.collect::<Result<_>>()?;
        let books = SUBJECTS.iter().map(Book::new).collect::<Result<_>>()?;
        let replay = Self { redis, stores, central, nodes, names, books, held: Vec::new(), now: 0, there: true };
        replay.both(true).await?;
        Ok(replay)
    }

    /// Waits until both nodes see Redis as it is: simulated time stands still meanwhile.
    async fn both(&self, up: bool) -> Result<()> {
        for store in &self.stores {
            tokio::time::timeout(Duration::from_secs(20), store.until(up)).await.context("Redis is not seen as it is")?;
        }
        Ok(())
    }

    /// Lets what was asked be answered.
    async fn answers(&self) {
        // The first turn is for the questions that nobody has sent yet.
        for turn in 0.. {
            tokio::task::yield_now().await;
            if turn > 1 && self.stores.iter().all(|store| store.under_way.load(Ordering::SeqCst) == 0) {
                return;
            }
        }
    }

    /// Moves all clocks, and Redis along with them.
    async fn until(&mut self, to: u64) -> Result<()> {
        for (at, event) in EVENTS.iter().filter(|(at, _)| self.now < *at && *at <= to) {
            match event {
                Event::Killed => self.redis.kill()?,
                Event::Back => self.redis.back(true).await?,
                Event::Empty => self.redis.back(false).await?,
            }
            self.there = *event != Event::Killed;
            self.both(self.there).await?;
            tell(*at, *event);
        }
        let by = Duration::from_micros(to - self.now);
        self.central.advance(by);
        self.nodes.iter().for_each(|node| node.clock.advance(by));
        self.now = to;
        self.settle(to);
        Ok(())
    }

    /// Ends what has ended by now.
    fn settle(&mut self, until: u64) {
        while self.held.first().is_some_and(|held| held.end <= until) {
            let Held { arrival, actual, entry, expected, .. } = self.held.remove(0);
            let (book, back) = (&mut self.books[arrival.subject], actual.cast_signed() - arrival.cost.cast_signed());
            if let Some(entry) = entry {
                entry.settle(actual);
                book.admit(arrival.user, self.now, back, self.there);
            }
            if expected {
                book.oracle.settle(&arrival, actual, self.now);
                book.expect(back, self.there);
            }
        }
    }

    async fn arrive(&mut self, arrival: Arrival, random: &SeededRandom) {
        let entry = self.nodes[arrival.node].enter(&arrival, &self.names[arrival.subject]).await;
        let book = &mut self.books[arrival.subject];
        let (units, expected) = (arrival.cost.cast_signed(), book.oracle.take(&arrival));
        book.asked += arrival.cost;
        if entry.is_some() {
            book.admit(arrival.user, arrival.at, units, self.there);
        }
        if expected {
            book.expect(units, self.there);
        }
        // Of cost, a quarter of the requests turn out cheaper than they said, half a second to three seconds later.
        if SUBJECTS[arrival.subject].kind == Kind::Cost && random.next_u64().is_multiple_of(4) {
            let (end, actual) = (arrival.at + 500_000 * (1 + random.next_u64() % 6), random.next_u64() % (arrival.cost + 1));
            let at = self.held.partition_point(|held| held.end <= end);
            self.held.insert(at, Held { end, arrival, actual, entry, expected });
        }
    }
}

/// Says where the replay stands, for who watches.
fn tell(at: u64, event: Event) {
    eprintln!("minute {} of the simulated hour: Redis {event:?}", at / MINUTE);
}
