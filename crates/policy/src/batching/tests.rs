//! The batcher's rules, by example; random histories, fairness and the sweep are in the files beside.

use super::*;

mod fairness;
mod histories;
mod sweep;

pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

pub(super) const ITEM: Item =
    Item { rows: 1, bytes: 10, deadline: Duration::from_secs(3_600), timeout: None, level: 0, tenant: 1, group: 0 };
const IDLE: Situation<'_> = Situation { idle_lanes: 1, lanes: 1, busy: &[] };

pub(super) fn settings(max_rows: u32) -> Settings {
    Settings { max_rows, timer: Duration::ZERO, ..Settings::default() }
}

/// Teaches that `rows` take `fixed + rows * each` microseconds.
pub(super) fn taught(batcher: &mut Batcher, fixed: u64, each: u64, most: u32) {
    for round in 0..4 {
        for rows in 1..=most {
            let took = us(fixed + each * u64::from(rows));
            batcher.finished(Done { group: 0, items: 0, rows, took }, us(round));
        }
    }
}

fn batch(batcher: &mut Batcher, now: Duration) -> Vec<Key> {
    match batcher.next(now, IDLE) {
        Step::Run { keys } => keys,
        other => panic!("expected a batch, not {other:?}"),
    }
}

fn push(batcher: &mut Batcher, item: Item) -> Key {
    batcher.push(item, Duration::ZERO).expect("there is room")
}

#[test]
fn what_waits_goes_together() {
    let mut batcher = Batcher::new(settings(4));
    let keys: Vec<Key> = (0..6).map(|_| push(&mut batcher, ITEM)).collect();
    assert_eq!((batcher.len(), batcher.bytes()), (6, 60));
    assert_eq!(batch(&mut batcher, ms(1)), keys[..4]);
    assert_eq!(batch(&mut batcher, ms(2)), keys[4..]);
    assert_eq!(batcher.next(ms(3), IDLE), Step::Idle);
    assert_eq!((batcher.len(), batcher.bytes()), (0, 0));
}

#[test]
fn nothing_begins_without_a_lane_and_the_wait_ends() {
    let mut batcher = Batcher::new(settings(4));
    push(&mut batcher, Item { deadline: ms(50), ..ITEM });
    let busy = Situation { idle_lanes: 0, lanes: 1, busy: &[ms(30)] };
    assert_eq!(batcher.next(ms(1), busy), Step::Wait { until: ms(50) });
    push(&mut batcher, ITEM);
    assert_eq!(batcher.expired(ms(50)).len(), 1);
    assert_eq!(batcher.next(ms(50), busy), Step::Wait { until: ms(50) + LONGEST_WAIT });
}

#[test]
fn full_is_said_at_once() {
    let mut batcher = Batcher::new(Settings { max_items: 2, ..settings(4) });
    let first = push(&mut batcher, ITEM);
    push(&mut batcher, ITEM);
    assert_eq!(batcher.push(ITEM, ms(0)), Err(Refusal::Full));
    assert!(batcher.remove(first) && !batcher.remove(first));
    assert!(batcher.push(ITEM, ms(0)).is_ok());

    let mut batcher = Batcher::new(Settings { max_bytes: 25, ..settings(4) });
    push(&mut batcher, ITEM);
    push(&mut batcher, ITEM);
    assert_eq!(batcher.push(ITEM, ms(0)), Err(Refusal::Full));
    assert_eq!(batcher.push(Item { bytes: 26, ..ITEM }, ms(0)), Err(Refusal::TooLarge));
    assert_eq!(batcher.push(Item { bytes: u64::MAX, ..ITEM }, ms(0)), Err(Refusal::TooLarge));
    assert_eq!(batcher.push(Item { rows: 5, ..ITEM }, ms(0)), Err(Refusal::TooLarge));

    let policy = QueuePolicy { max_items: Some(1), ..QueuePolicy::default() };
    let mut batcher = Batcher::new(Settings { levels: 2, level_policies: [(2, policy)].into(), ..settings(4) });
    push(&mut batcher, Item { level: 2, ..ITEM });
    assert_eq!(batcher.push(Item { level: 2, ..ITEM }, ms(0)), Err(Refusal::Full));
    assert!(batcher.push(Item { level: 1, ..ITEM }, ms(0)).is_ok());
}

#[test]
fn whoever_is_too_late_is_not_let_in_or_not_kept() {
    let mut batcher = Batcher::new(settings(4));
    assert_eq!(batcher.push(Item { deadline: ms(5), ..ITEM }, ms(5)), Err(Refusal::Expired));
    taught(&mut batcher, 10_000, 0, 4);
    assert_eq!(batcher.push(Item { deadline: ms(14), ..ITEM }, ms(5)), Err(Refusal::Expired), "no execution is that short");
    let key = batcher.push(Item { deadline: ms(20), ..ITEM }, ms(5)).expect("can be met");
    assert_eq!(batcher.expired(ms(9)), []);
    assert_eq!(batcher.expired(ms(11)), [key], "it cannot be met any more");
    assert!(batcher.is_empty());
}

#[test]
fn time_outs_refuse_or_delay() {
    let refuse = QueuePolicy { default_timeout: Some(ms(10)), allow_timeout_override: true, ..QueuePolicy::default() };
    assert_eq!(refuse.timeout(Some(ms(3))), Some(ms(3)));
    assert_eq!(refuse.timeout(Some(ms(30))), Some(ms(10)), "a request can only shorten it");
    assert_eq!(QueuePolicy::default().timeout(Some(ms(3))), None, "and only where that is allowed");
    let mut batcher = Batcher::new(Settings { default_policy: refuse.clone(), ..settings(1) });
    let (slow, quick) = (push(&mut batcher, ITEM), push(&mut batcher, Item { timeout: Some(ms(3)), ..ITEM }));
    assert_eq!(batcher.expired(ms(2)), []);
    assert_eq!(batcher.expired(ms(3)), [quick]);
    assert_eq!(batcher.expired(ms(10)), [slow]);

    let delay = QueuePolicy { reject_on_timeout: false, ..refuse };
    let mut batcher = Batcher::new(Settings { default_policy: delay, ..settings(1) });
    let old = push(&mut batcher, ITEM);
    let new = batcher.push(ITEM, ms(9)).expect("room");
    assert_eq!(batcher.expired(ms(12)), []);
    assert_eq!(batch(&mut batcher, ms(12)), [new], "the delayed one lost its place");
    assert_eq!(batch(&mut batcher, ms(12)), [old]);
}

#[test]
fn the_higher_level_goes_first_and_the_lower_is_not_forgotten() {
    let mut batcher = Batcher::new(Settings { levels: 3, default_level: 2, max_items: 1_000, ..settings(1) });
    let low = push(&mut batcher, Item { level: 3, ..ITEM });
    let unnamed = push(&mut batcher, Item { level: 99, ..ITEM });
    let mut before = Vec::new();
    for _ in 0..100 {
        let high = push(&mut batcher, Item { level: 1, ..ITEM });
        let run = batch(&mut batcher, ms(1));
        if run == [low] {
            break;
        }
        before.push((run, high));
    }
    assert_eq!(before.len(), PATIENCE as usize + 1, "the two below came after {PATIENCE} and one more");
    assert!(before.iter().take(PATIENCE as usize).all(|(run, high)| *run == [*high]));
    assert_eq!(before.last().map(|(run, _)| run.clone()), Some(vec![unnamed]), "the higher of the two first");
}

#[test]
fn groups_do_not_mix_and_none_starves() {
    let mut batcher = Batcher::new(Settings { max_items: 10_000, ..settings(8) });
    let rare = push(&mut batcher, Item { group: 2, ..ITEM });
    for _ in 0..100 {
        push(&mut batcher, Item { group: 1, ..ITEM });
    }
    assert_eq!(batch(&mut batcher, ms(1)), [rare], "the oldest of the tenant leads");
    assert_eq!(batch(&mut batcher, ms(1)).len(), 8);
    let late = push(&mut batcher, Item { group: 3, tenant: 2, ..ITEM });
    assert_eq!(batch(&mut batcher, ms(1)), [late], "and so does the tenant whose turn it is");
}

#[test]
fn large_items_fit_or_wait() {
    let mut batcher = Batcher::new(settings(8));
    let sizes = [5, 4, 3, 8, 1];
    let keys = sizes.map(|rows| push(&mut batcher, Item { rows, ..ITEM }));
    assert_eq!(batch(&mut batcher, ms(1)), keys[..1], "a tenant's items keep their order");
    assert_eq!(batch(&mut batcher, ms(1)), keys[1..3]);
    assert_eq!(batch(&mut batcher, ms(1)), keys[3..4]);
    let other = push(&mut batcher, Item { tenant: 2, rows: 8, ..ITEM });
    assert_eq!(batch(&mut batcher, ms(1)).len() + batch(&mut batcher, ms(1)).len(), 2);
    assert!(!batcher.remove(other) && batcher.is_empty());
}

#[test]
fn a_hurried_item_makes_the_batch_small() {
    let mut batcher = Batcher::new(settings(32));
    taught(&mut batcher, 1_000, 1_000, 32);
    let hurried = push(&mut batcher, Item { deadline: ms(6), ..ITEM });
    for _ in 0..31 {
        push(&mut batcher, Item { deadline: ms(200), ..ITEM });
    }
    let first = batch(&mut batcher, ms(0));
    assert!(first.contains(&hurried) && first.len() <= 5, "{} would end too late", first.len());
    assert_eq!(batcher.expired(ms(0)), []);
}

#[test]
fn under_overload_the_batch_stays_large() {
    let mut batcher = Batcher::new(Settings { max_items: 10_000, ..settings(32) });
    taught(&mut batcher, 10_000, 10, 32);
    for n in 0..200 {
        push(&mut batcher, Item { deadline: ms(10) + us(15 * n), ..ITEM });
    }
    let first = batch(&mut batcher, ms(0));
    assert_eq!(first.len(), 32, "serving the most urgent first would serve one and lose the others");
    assert!(!batcher.expired(ms(0)).is_empty(), "those who can no longer be served do not cost anything");
}

/// A closed loop of `clients` on one lane that takes 10 ms for anything; returns the sizes of the later batches.
fn closed_loop(rules: Settings, clients: usize) -> Vec<usize> {
    let mut batcher = Batcher::new(rules);
    let (mut now, mut sizes) = (ms(0), Vec::new());
    let mut back = clients;
    for _ in 0..60 {
        let mut began = None;
        for _ in 0..back {
            now += us(100);
            batcher.push(Item { deadline: now + ms(1_000), ..ITEM }, now).expect("room");
            // The lane is busy from the first batch on; who comes after that waits.
            if began.is_none()
                && let Step::Run { keys } = batcher.next(now, IDLE)
            {
                began = Some(keys.len());
            }
        }
        while began.is_none() {
            match batcher.next(now, IDLE) {
                Step::Run { keys } => began = Some(keys.len()),
                Step::Wait { until } => {
                    assert!(until > now && until <= now + ms(10), "waits from {now:?} until {until:?}");
                    now = until;
                }
                Step::Idle => panic!("something waits"),
            }
        }
        let size = began.expect("a batch began");
        now += ms(10);
        batcher.finished(Done { group: 0, items: size, rows: size as u32, took: ms(10) }, now);
        sizes.push(size);
        back = size;
    }
    sizes.split_off(40)
}

#[test]
fn callers_who_come_back_together_are_waited_for() {
    assert_eq!(closed_loop(settings(32), 8), [8; 20]);
    let never = Settings { max_delay: Some(Duration::ZERO), ..settings(32) };
    assert!(closed_loop(never, 8).iter().any(|size| *size < 4), "max_delay 0 forbids it");
    let coarse = Settings { timer: ms(20), ..settings(32) };
    assert!(closed_loop(coarse, 8).iter().any(|size| *size < 4), "a timer that is too coarse as well");
}

#[test]
fn a_step_in_the_cost_cuts_the_batch() {
    let mut batcher = Batcher::new(Settings { max_delay: Some(Duration::ZERO), ..settings(32) });
    for _ in 0..8 {
        for rows in 1..=32u32 {
            let took = us(500 + 400 * u64::from(rows.div_ceil(8) * 8));
            batcher.finished(Done { group: 0, items: 0, rows, took }, ms(0));
        }
    }
    for n in 0..9 {
        batcher.push(ITEM, ms(10 * n)).expect("room");
    }
    assert_eq!(batch(&mut batcher, ms(81)).len(), 8, "nine would cost as much as sixteen");
}

#[test]
fn order_is_kept_across_groups_where_it_is_asked_for() {
    let mut batcher = Batcher::new(Settings { preserve_ordering: true, ..settings(8) });
    let groups = [1, 2, 1, 1, 2];
    let keys = groups.map(|group| push(&mut batcher, Item { group, ..ITEM }));
    let mut order = Vec::new();
    while !batcher.is_empty() {
        order.extend(batch(&mut batcher, ms(1)));
    }
    assert_eq!(order, keys);
}

#[test]
fn estimates_come_from_executions() {
    let mut batcher = Batcher::new(Settings { max_items: 1_000, ..settings(10) });
    assert_eq!(batcher.estimate(1), None);
    taught(&mut batcher, 1_000, 100, 10);
    assert!(batcher.estimate(10).is_some_and(|estimate| estimate.abs_diff(ms(2)) < us(50)));
    for _ in 0..100 {
        push(&mut batcher, ITEM);
    }
    assert!(batcher.wait_estimate().abs_diff(ms(20)) < ms(1), "{:?}", batcher.wait_estimate());
    assert!(prefetch(us(4), us(20)) && !prefetch(ms(1), us(20)));
}
