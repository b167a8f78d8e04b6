//! The queue's waiting and waking, in simulated time, and its counts under threads.

use std::sync::atomic::AtomicUsize;

use plinth_runtime::SystemClock;
use plinth_types::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::*;

/// The clock of tokio, which tests pause.
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::from(std::time::UNIX_EPOCH)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn gate() -> Arc<Gate> {
    Gate::new(Arc::new(Paused(Instant::now())))
}

fn ask(class: Criticality, tenant: u32, limit: u32) -> Ask {
    Ask { urgency: Urgency { class, tenant, weight: 1 }, bytes: 0, left: None, limit, latency: ms(40) }
}

async fn full(gate: &Arc<Gate>, limit: u32) -> Vec<Pass> {
    let mut passes = Vec::new();
    for _ in 0..limit {
        passes.push(gate.enter(ask(Criticality::Critical, 0, limit)).await.ok().unwrap());
    }
    passes
}

#[tokio::test(start_paused = true)]
async fn low_classes_are_held_back_and_a_place_comes_back() {
    let gate = gate();
    let mut passes = Vec::new();
    for _ in 0..8 {
        passes.push(gate.enter(ask(Criticality::Background, 1, 10)).await.ok().unwrap());
    }
    let began = Instant::now();
    assert_eq!(gate.enter(ask(Criticality::Background, 1, 10)).await.err().unwrap().why, Why::Full);
    assert!((ms(100)..=ms(110)).contains(&began.elapsed()), "{:?}: as long as a burst may last", began.elapsed());
    passes.push(gate.enter(ask(Criticality::Default, 1, 10)).await.ok().unwrap());
    passes.pop();
    passes.pop();
    let at_once = Instant::now();
    passes.push(gate.enter(ask(Criticality::Background, 1, 10)).await.ok().unwrap());
    assert_eq!(at_once.elapsed(), Duration::ZERO);
    drop(passes);
    assert_eq!((gate.in_use.load(SeqCst), gate.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_most_important_begins_first_and_deadlines_hold() {
    let gate = gate();
    let mut passes = full(&gate, 2).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = JoinSet::new();
    for (name, class, left) in [
        ("background", Criticality::Background, None),
        ("late", Criticality::Critical, Some(ms(5))),
        ("default", Criticality::Default, None),
        ("critical", Criticality::Critical, None),
    ] {
        let (gate, order) = (gate.clone(), order.clone());
        tasks.spawn(async move {
            let result = gate.enter(Ask { left, ..ask(class, 1, 2) }).await;
            order.lock().unwrap().push((name, result.as_ref().map(|_| ()).map_err(|turned| turned.why)));
            sleep(ms(10)).await;
        });
        tokio::task::yield_now().await;
    }
    assert_eq!(gate.waiting(), 4);
    sleep(ms(8)).await;
    passes.pop();
    while tasks.join_next().await.is_some() {}
    let order = order.lock().unwrap().clone();
    assert_eq!(order[..3], [("late", Err(Why::Expired)), ("critical", Ok(())), ("default", Ok(()))], "{order:?}");
    drop(passes);
    assert_eq!((gate.in_use.load(SeqCst), gate.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_leaves_nothing() {
    let gate = gate();
    let passes = full(&gate, 3).await;
    for _ in 0..10 {
        let waits = gate.enter(ask(Criticality::Default, 1, 3));
        assert!(tokio::time::timeout(ms(1), waits).await.is_err());
    }
    assert_eq!(gate.waiting(), 0);
    // Let in, but gone before it hears of it.
    let mut waits = Box::pin(gate.enter(ask(Criticality::Default, 1, 3)));
    assert!(futures_util::poll!(&mut waits).is_pending());
    drop(passes);
    assert_eq!(gate.in_use.load(SeqCst), 1);
    drop(waits);
    assert_eq!((gate.in_use.load(SeqCst), gate.waiting()), (0, 0));
    drop(full(&gate, 3).await);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_rises_lets_in_more() {
    let gate = gate();
    let passes = full(&gate, 1).await;
    let mut waits = Box::pin(gate.enter(ask(Criticality::Default, 1, 1)));
    assert!(futures_util::poll!(&mut waits).is_pending());
    let more = gate.enter(ask(Criticality::Default, 2, 4)).await.ok().unwrap();
    assert!(waits.await.is_ok());
    drop((passes, more));
}

/// 16 places of 40 ms; ten times as much is asked for. What is served is served about as fast as always, the others know within 5 ms, and
/// tenants have equal parts although one asks for half of everything.
#[tokio::test(start_paused = true)]
async fn a_surge_is_held_in_simulated_time() {
    const PLACES: u32 = 16;
    let gate = gate();
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for n in 0..16_000u64 {
        // 4,000 a second are asked for, 400 can be served.
        tokio::time::sleep_until(start + Duration::from_micros(n * 250)).await;
        let gate = gate.clone();
        tasks.spawn(async move {
            let tenant = (n % 8).saturating_sub(3) as u32;
            let class = if n % 40 == 0 { Criticality::Critical } else { Criticality::Default };
            let (due, settled) = (Instant::now(), n > 4000);
            let pass = gate.enter(ask(class, tenant, PLACES)).await;
            let waited = due.elapsed();
            if pass.is_ok() {
                sleep(ms(40)).await;
            }
            (settled, class, tenant, pass.is_ok(), waited)
        });
    }
    let (mut critical, mut by_tenant, mut slowest, mut refused, mut served) = ([0, 0], [0u32; 5], Duration::ZERO, Vec::new(), 0);
    while let Some(done) = tasks.join_next().await {
        let (settled, class, tenant, ok, waited) = done.unwrap();
        if !settled {
            continue;
        }
        if class == Criticality::Critical {
            critical[usize::from(ok)] += 1;
        }
        if ok {
            served += 1;
            slowest = slowest.max(waited);
            by_tenant[tenant as usize] += u32::from(class == Criticality::Default);
        } else {
            refused.push(waited);
        }
    }
    assert!(served >= 1200 - 60, "{served} of 1200 in three seconds");
    assert!(critical[0] == 0 && critical[1] >= 290, "{critical:?} of 300");
    assert!(slowest <= ms(40) + ms(2), "a critical one waits for a place, nobody for more: {slowest:?}");
    refused.sort_unstable();
    assert!(refused[refused.len() * 99 / 100] <= ms(6), "{:?}", refused[refused.len() * 99 / 100]);
    let (least, most) = (by_tenant.iter().min().unwrap(), by_tenant.iter().max().unwrap());
    // All places become free at once: who has fewer waiting at that moment than its share gets them all, the rest is the greedy one's.
    assert!(f64::from(*most) <= 2.2 * f64::from(*least), "four times as much is asked for: {by_tenant:?}");
    assert_eq!((gate.in_use.load(SeqCst), gate.waiting()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counts_hold_under_threads() {
    const LIMIT: u32 = 4;
    let gate = Gate::new(Arc::new(SystemClock));
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for tenant in 0..64u32 {
        let (gate, inside, most) = (gate.clone(), inside.clone(), most.clone());
        tasks.spawn(async move {
            let mut answers = 0;
            for n in 0..200u32 {
                let class = CRITICALITIES[((tenant + n) % 4) as usize];
                let asked = ask(class, tenant % 5, LIMIT);
                if n % 7 == 0 {
                    let _ = tokio::time::timeout(Duration::from_micros(50), gate.enter(asked)).await;
                } else if let Ok(pass) = gate.enter(asked).await {
                    most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, SeqCst);
                    drop(pass);
                }
                answers += 1;
            }
            answers
        });
    }
    let answers: u32 = tasks.join_all().await.into_iter().sum();
    assert_eq!(answers, 64 * 200, "everybody was told");
    assert_eq!((gate.in_use.load(SeqCst), gate.waiting()), (0, 0));
    let most = most.load(SeqCst);
    assert!(most <= LIMIT as usize + 4, "{most} at a time");
}
