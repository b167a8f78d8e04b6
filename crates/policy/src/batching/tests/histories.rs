//! Random histories: nothing is lost or served twice, and no limit is ever exceeded.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Push { rows: u32, level: u32, tenant: u64, group: u64, deadline: u64, timeout: Option<u64> },
    Remove(usize),
    Next { idle: u32 },
    Pass(u64),
    Finish { took: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let push = (1u32..6, 0u32..5, 0u64..4, 0u64..3, 0u64..60_000, proptest::option::of(0u64..20_000))
        .prop_map(|(rows, level, tenant, group, deadline, timeout)| Event::Push { rows, level, tenant, group, deadline, timeout });
    prop_oneof![
        6 => push,
        1 => any::<usize>().prop_map(Event::Remove),
        3 => (0u32..3).prop_map(|idle| Event::Next { idle }),
        2 => (1u64..5_000).prop_map(Event::Pass),
        2 => (1u64..20_000).prop_map(|took| Event::Finish { took }),
    ]
}

fn rules() -> impl Strategy<Value = Settings> {
    let policy = (any::<bool>(), proptest::option::of(1u64..30_000), any::<bool>(), proptest::option::of(1usize..20)).prop_map(
        |(reject_on_timeout, default_timeout, allow_timeout_override, max_items)| QueuePolicy {
            reject_on_timeout,
            default_timeout: default_timeout.map(us),
            allow_timeout_override,
            max_items,
        },
    );
    let delay = proptest::option::of((0u64..10_000).prop_map(us));
    (1u32..9, policy, delay, any::<bool>(), 0u32..4, 1usize..60).prop_map(
        |(max_rows, default_policy, max_delay, preserve_ordering, levels, max_items)| Settings {
            max_rows,
            preferred_rows: vec![4, 2, 2, 99, 0],
            max_delay,
            preserve_ordering,
            levels,
            default_level: 2,
            default_policy,
            level_policies: BTreeMap::new(),
            max_items,
            max_bytes: 100,
            timer: Duration::ZERO,
        },
    )
}

struct History {
    batcher: Batcher,
    rules: Settings,
    now: Duration,
    here: BTreeMap<Key, Item>,
    ever: usize,
    running: Vec<Done>,
}

impl History {
    fn leaves(&mut self, key: Key) -> Item {
        self.here.remove(&key).expect("a key leaves once, and only if it came")
    }

    fn act(&mut self, event: Event) {
        match event {
            Event::Push { rows, level, tenant, group, deadline, timeout } => {
                let item = Item { rows, bytes: 3, deadline: us(deadline), timeout: timeout.map(us), level, tenant, group };
                match self.batcher.push(item, self.now) {
                    Ok(key) => {
                        self.ever += 1;
                        assert!(self.here.insert(key, item).is_none(), "a key is never given out twice");
                        assert!(rows <= self.rules.max_rows && item.deadline > self.now);
                    }
                    Err(Refusal::TooLarge) => assert!(rows > self.rules.max_rows),
                    Err(Refusal::Full | Refusal::Expired) => {}
                }
            }
            Event::Remove(at) => {
                if let Some(key) = self.here.keys().nth(at % self.here.len().max(1)).copied() {
                    assert!(self.batcher.remove(key));
                    self.leaves(key);
                    assert!(!self.batcher.remove(key));
                }
            }
            Event::Next { idle } => {
                self.expire();
                self.next(idle);
                self.expire();
            }
            Event::Pass(by) => self.now += us(by),
            Event::Finish { took } => {
                if let Some(done) = self.running.pop() {
                    self.batcher.finished(Done { took: us(took), ..done }, self.now);
                }
            }
        }
        let waiting = self.batcher.len();
        assert!(waiting <= self.rules.max_items.max(1) && self.batcher.bytes() <= 100);
        assert_eq!(self.batcher.bytes(), 3 * waiting as u64);
        assert_eq!(self.batcher.is_empty(), waiting == 0);
    }

    fn expire(&mut self) {
        for key in self.batcher.expired(self.now) {
            self.leaves(key);
        }
        assert_eq!(self.batcher.len(), self.here.len(), "who is neither here nor gone is lost");
    }

    fn next(&mut self, idle: u32) -> bool {
        let mut keys = vec![Key(u64::MAX)];
        let busy = [ms(3)];
        let busy = if idle < 2 { &busy[..] } else { &[] };
        let before = self.batcher.len();
        match self.batcher.next_into(self.now, Situation { idle_lanes: idle, lanes: 2, busy }, &mut keys) {
            Turn::Run { rows, group } => {
                let items: Vec<Item> = keys.iter().map(|key| self.leaves(*key)).collect();
                assert!(idle > 0 && !items.is_empty());
                assert_eq!(items.iter().map(|item| item.rows).sum::<u32>(), rows);
                assert!(rows <= self.rules.max_rows);
                assert!(items.iter().all(|item| item.group == group && item.deadline > self.now));
                self.running.push(Done { group, items: items.len(), rows, took: us(1) });
                true
            }
            Turn::Wait { until } => {
                assert!(before > 0 && until > self.now && until <= self.now + LONGEST_WAIT);
                false
            }
            Turn::Idle => {
                assert_eq!(self.batcher.len(), 0, "idle only when nothing waits");
                false
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_key_leaves_exactly_once(rules in rules(), events in proptest::collection::vec(event(), 1..200)) {
        let (here, running) = (BTreeMap::new(), Vec::new());
        let batcher = Batcher::new(rules.clone());
        let mut history = History { batcher, rules, now: ms(1), here, ever: 0, running };
        for event in events {
            history.act(event);
        }
        // Whatever is left comes out by itself.
        for _ in 0..2_000 {
            history.expire();
            if history.here.is_empty() {
                break;
            }
            if !history.next(2) {
                history.now += us(500);
            }
        }
        history.expire();
        prop_assert!(history.here.is_empty(), "{} of {} never left", history.here.len(), history.ever);
        prop_assert!(history.batcher.is_empty());
    }

    #[test]
    fn the_same_history_gives_the_same_decisions(events in proptest::collection::vec(event(), 1..100)) {
        let run = || {
            let mut batcher = Batcher::new(Settings { levels: 3, ..settings(4) });
            let (mut now, mut steps) = (ms(1), Vec::new());
            for event in &events {
                match event {
                    Event::Push { rows, level, tenant, group, deadline, .. } => {
                        let (rows, level, tenant, group) = (*rows, *level, *tenant, *group);
                        let item = Item { rows, level, tenant, group, deadline: us(*deadline), ..ITEM };
                        steps.push(format!("{:?}", batcher.push(item, now)));
                    }
                    Event::Next { idle } => {
                        steps.push(format!("{:?}", batcher.next(now, Situation { idle_lanes: *idle, lanes: 2, busy: &[] })));
                        steps.push(format!("{:?}", batcher.expired(now)));
                    }
                    Event::Pass(by) => now += us(*by),
                    Event::Finish { took } => batcher.finished(Done { group: 0, items: 1, rows: 1, took: us(*took) }, now),
                    Event::Remove(_) => {}
                }
            }
            steps
        };
        prop_assert_eq!(run(), run());
    }

    #[test]
    fn nobody_is_kept_back_past_a_deadline(
        slack in 1_200u64..20_000,
        gaps in proptest::collection::vec(10u64..500, 1..40),
    ) {
        // A closed loop has taught the batcher to wait; then a request comes that has little time.
        let mut batcher = Batcher::new(settings(32));
        let mut now = ms(1);
        for _ in 0..20 {
            for _ in 0..4 {
                now += us(20);
                batcher.push(ITEM, now).expect("room");
            }
            let mut keys = Vec::new();
            while !batcher.is_empty() {
                if let Turn::Wait { until } = batcher.next_into(now, IDLE, &mut keys) { now = until; }
            }
            now += ms(1);
            batcher.finished(Done { group: 0, items: 4, rows: 4, took: ms(1) }, now);
        }
        let deadline = now + us(slack);
        let hurried = batcher.push(Item { deadline, ..ITEM }, now).expect("can be met");
        let mut began = None;
        for gap in gaps {
            prop_assert!(batcher.expired(now).is_empty(), "kept back until it was too late");
            match batcher.next(now, IDLE) {
                Step::Run { keys } => {
                    prop_assert!(keys.contains(&hurried));
                    began = Some(now);
                    break;
                }
                Step::Wait { until } => {
                    prop_assert!(until + ms(1) <= deadline, "until {:?} with a deadline at {:?}", until, deadline);
                    now = until.min(now + us(gap));
                    if now < until {
                        batcher.push(ITEM, now).expect("room");
                    }
                }
                Step::Idle => prop_assert!(false, "something waits"),
            }
        }
        prop_assert!(began.is_none_or(|began| began + ms(1) <= deadline));
    }
}
