//! One computation for many callers, whatever becomes of the one that computes.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use plinth_runtime::{OnEnd, TaskGroup};
use plinth_store::cache::MemoryCache;
use plinth_types::{ByteSize, DataType, Digest, Shape, Timestamp};
use tokio::time::Instant;

use super::*;

const LONG: Duration = Duration::from_secs(600);
/// How long a computation takes.
const WORK: Duration = Duration::from_millis(20);

/// The clock that tokio pauses.
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).unwrap().plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

struct Bench {
    cache: ResponseCache,
    store: Arc<MemoryCache>,
    metrics: CacheMetrics,
    tasks: TaskGroup,
    begun: AtomicUsize,
    done: AtomicUsize,
}

impl Bench {
    fn new() -> Arc<Self> {
        let (metrics, tasks) = (CacheMetrics::default(), TaskGroup::new("test"));
        let world = World { clock: Arc::new(PausedClock(Instant::now())), ..World::real() };
        let store = MemoryCache::open(ByteSize::mib(1), metrics.clone(), &world, &tasks);
        let cache = ResponseCache::new(store.clone(), metrics.clone(), &world);
        Arc::new(Self { cache, store, metrics, tasks, begun: AtomicUsize::new(0), done: AtomicUsize::new(0) })
    }

    /// Asks for `name`; the computation takes [`WORK`] and ends as `result` says of its number, counted from 1.
    async fn ask(&self, name: &str, deadline: Duration, result: impl FnOnce(usize) -> Result<Vec<Tensor>> + Send) -> Result<Cached> {
        let ask = Ask { key: key(name), ttl: LONG, deadline, wished: &[] };
        let compute = |_left| async {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(WORK).await;
            self.done.fetch_add(1, Ordering::SeqCst);
            result(number)
        };
        self.cache.through(ask, compute).await
    }

    async fn fine(&self, name: &str) -> Result<Cached> {
        self.ask(name, LONG, |_| Ok(answer())).await
    }

    fn counts(&self) -> (usize, usize) {
        (self.begun.load(Ordering::SeqCst), self.done.load(Ordering::SeqCst))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

fn key(name: &str) -> CacheKey {
    let scope = CacheScope::new(&"t".parse().unwrap(), &"m".parse().unwrap(), &[Digest::of(name.as_bytes())]);
    scope.key(&[], &[], &Parameters::new())
}

fn tensor(name: &str, data: Vec<u8>) -> Tensor {
    Tensor::new(name, DataType::Uint8, Shape::new(vec![data.len() as u64]).unwrap(), data.into()).unwrap()
}

fn answer() -> Vec<Tensor> {
    vec![tensor("label", vec![7]), tensor("scores", vec![1, 2, 3])]
}

fn broken() -> Error {
    Error::new(Reason::ModelExecutionFailed, "it failed").diagnostic("secret of the log")
}

#[tokio::test(start_paused = true)]
async fn what_was_computed_is_given_again_from_memory_of_its_own() {
    let bench = Bench::new();
    let first = bench.fine("a").await.unwrap();
    assert!(!first.hit && first.lookup < WORK, "{first:?}");
    let second = bench.fine("a").await.unwrap();
    assert!(second.hit);
    assert_eq!((second.outputs.clone(), bench.counts()), (answer(), (1, 1)));
    assert_ne!(first.outputs[1].data().as_ptr(), second.outputs[1].data().as_ptr(), "what is kept is a copy");
    assert!(!bench.fine("b").await.unwrap().hit);
    tokio::time::sleep(LONG).await;
    assert!(!bench.fine("a").await.unwrap().hit, "its time has passed");
    assert_eq!((bench.metrics.memory_hits.value(), bench.metrics.followers.value()), (1, 0));
    assert_eq!(bench.cache.0.flights.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_herd_computes_once() {
    let bench = Bench::new();
    let all = join_all((0..100).map(|_| bench.fine("a"))).await;
    assert_eq!(bench.counts(), (1, 1));
    assert_eq!(all.iter().filter(|cached| cached.as_ref().unwrap().hit).count(), 99);
    assert!(all.iter().all(|cached| cached.as_ref().unwrap().outputs == answer()));
    assert!(all.iter().all(|cached| cached.as_ref().unwrap().lookup < WORK), "waiting for another is not looking");
    assert_eq!(bench.metrics.followers.value(), 99);
    // Different questions do not wait for each other.
    let start = Instant::now();
    let names: Vec<_> = (0..50).map(|n| format!("other {n}")).collect();
    join_all(names.iter().map(|name| bench.fine(name))).await;
    assert!(start.elapsed() < 2 * WORK && bench.counts() == (51, 51));
}

#[tokio::test(start_paused = true)]
async fn errors_are_not_kept_and_make_no_herd() {
    let bench = Bench::new();
    let all = join_all((0..50).map(|_| bench.ask("a", LONG, |_| Err(broken())))).await;
    assert_eq!(bench.counts(), (2, 2), "the first, and one more that tries again for all");
    for error in all.into_iter().map(Result::unwrap_err) {
        assert_eq!((error.reason(), error.public_text()), (Reason::ModelExecutionFailed, "it failed"));
    }
    assert_eq!(bench.store.usage().entries, 0);
    let all = join_all((0..50).map(|_| bench.ask("b", LONG, |n| if n == 3 { Err(broken()) } else { Ok(answer()) }))).await;
    assert_eq!(bench.counts(), (4, 4));
    assert_eq!(all.iter().filter(|result| result.is_err()).count(), 1, "only who computed hears of a single failure");
    assert!(!bench.ask("a", LONG, |_| Ok(answer())).await.unwrap().hit);
}

/// An error that nobody shall bring about again.
#[derive(Debug)]
struct Deadly;

impl From<Error> for Deadly {
    fn from(_: Error) -> Self {
        Self
    }
}

impl ComputeError for Deadly {
    fn for_others(&self) -> ForOthers<Self> {
        ForOthers::Surely(Self)
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_shall_try_again_is_tried_once() {
    let bench = Bench::new();
    let tries = AtomicUsize::new(0);
    let all = join_all((0..50).map(|_| {
        let compute = |_left| async {
            tries.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(WORK).await;
            Err(Deadly)
        };
        bench.cache.through(Ask { key: key("a"), ttl: LONG, deadline: LONG, wished: &[] }, compute)
    }))
    .await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(tries.into_inner(), 1);
}

#[tokio::test(start_paused = true)]
async fn anothers_deadline_is_not_mine() {
    let bench = Bench::new();
    let late = || Error::new(Reason::DeadlineExceeded, "the deadline passed");
    let all = join_all((0..10).map(|_| bench.ask("a", LONG, |n| if n <= 3 { Err(late()) } else { Ok(answer()) }))).await;
    assert_eq!(bench.counts(), (4, 4));
    assert_eq!(all.iter().filter(|result| result.is_err()).count(), 3);

    let start = Instant::now();
    let (whole, hurried) = tokio::join!(bench.fine("b"), bench.ask("b", WORK / 2, |_| Ok(answer())));
    assert_eq!(hurried.unwrap_err().reason(), Reason::DeadlineExceeded);
    assert!(whole.is_ok() && start.elapsed() < 2 * WORK);
}

#[tokio::test(start_paused = true)]
async fn a_follower_takes_over_from_a_caller_that_goes_away() {
    let bench = Bench::new();
    let (first, waiting) = (bench.clone(), bench.clone());
    let tasks = TaskGroup::new("leader");
    tasks.spawn("leader", OnEnd::Ignore, async move { drop(first.fine("a").await) });
    tokio::time::sleep(WORK / 4).await;
    let followers = async { join_all((0..10).map(|_| waiting.fine("a"))).await };
    let gone = async {
        tokio::time::sleep(WORK / 4).await;
        tasks.close(Duration::ZERO).await
    };
    let (all, aborted) = tokio::join!(followers, gone);
    assert_eq!(aborted, ["leader"]);
    assert_eq!(bench.counts(), (2, 1), "the first was dropped, one more did it for all");
    assert_eq!(all.iter().filter(|cached| cached.as_ref().unwrap().hit).count(), 9);

    // Nobody waits: nothing is left behind.
    assert!(tokio::time::timeout(WORK / 2, bench.fine("b")).await.is_err());
    assert_eq!(bench.cache.0.flights.len(), 0);
    assert!(!bench.fine("b").await.unwrap().hit);
}

#[tokio::test(start_paused = true)]
async fn a_computation_that_panics_fails_its_own_caller_alone() {
    let bench = Bench::new();
    let first = bench.clone();
    bench.tasks.spawn("panics", OnEnd::Ignore, async move {
        drop(first.ask("a", LONG, |_| panic!("on purpose")).await);
    });
    tokio::time::sleep(WORK / 2).await;
    assert_eq!(bench.fine("a").await.unwrap().outputs, answer());
    assert_eq!(bench.counts(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_shared_and_not_kept() {
    let bench = Bench::new();
    let large = || vec![tensor("x", vec![0; bench.store.max_value()])];
    let all = join_all((0..5).map(|_| bench.ask("a", LONG, |_| Ok(large())))).await;
    assert!(all.iter().all(|cached| cached.as_ref().unwrap().outputs == large()));
    assert_eq!((bench.counts(), bench.store.usage().entries), ((1, 1), 0));
    assert!(!bench.ask("a", LONG, |_| Ok(large())).await.unwrap().hit);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_computed_anew() {
    let bench = Bench::new();
    for value in [&b""[..], b"\x02", b"garbage", b"\x01\xff\xff"] {
        bench.store.put(&key("a"), bytes::Bytes::from_static(value), LONG).await;
        assert!(!bench.fine("a").await.unwrap().hit);
        assert!(bench.fine("a").await.unwrap().hit);
    }
}

#[tokio::test(start_paused = true)]
async fn outputs_come_in_the_order_in_which_they_are_wished() {
    let bench = Bench::new();
    bench.fine("a").await.unwrap();
    for wished in [["label", "scores"], ["scores", "label"]] {
        let wished = wished.map(str::to_owned);
        let ask = Ask { key: key("a"), ttl: LONG, deadline: LONG, wished: &wished };
        let cached = bench.cache.through(ask, |_| async { Err(broken()) }).await.unwrap();
        assert!(cached.outputs.iter().map(Tensor::name).eq(wished.iter().map(String::as_str)));
    }
}

#[tokio::test]
async fn large_inputs_have_the_same_key() {
    let bench = Bench::new();
    let scope = CacheScope::new(&"t".parse().unwrap(), &"m".parse().unwrap(), &[]);
    for length in [10, INLINE_HASH + 1] {
        let inputs = [tensor("x", vec![1; length])];
        let key = bench.cache.key(&scope, &inputs, &[], &Parameters::new()).await;
        assert_eq!(key, scope.key(&inputs, &[], &Parameters::new()));
    }
}

#[test]
fn the_deployment_decides_then_the_model() {
    let node = Duration::from_secs(300);
    let settings = |enabled, ttl_seconds| Some(CacheSettings { enabled, ttl_seconds });
    for (given, configured, expected) in [
        (None, false, None),
        (None, true, Some(node)),
        (settings(false, Some(5)), true, None),
        (settings(true, None), false, Some(node)),
        (settings(true, Some(5)), false, Some(Duration::from_secs(5))),
        (settings(true, Some(0)), true, None),
    ] {
        assert_eq!(lifetime(given, configured, node), expected, "{given:?} {configured}");
    }
    assert_eq!(lifetime(settings(true, None), true, Duration::ZERO), None);
}
