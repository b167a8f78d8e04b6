//! The rules of memory by table, by random states and by simulated histories.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use proptest::prelude::*;

const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn budget(bytes: u64) -> Budgets {
    Budgets([(Device::Host, bytes)].into())
}

fn resident(key: u32, bytes: u64, recent_use: f64) -> Resident<u32> {
    Resident {
        key,
        bytes: Footprint::host(bytes),
        since: s(0),
        reload: s(1),
        recent_use,
        last_used: s(50),
        in_flight: false,
        pinned: false,
        busy: false,
        idle_after: None,
    }
}

fn demand(key: u32, bytes: u64, deadline: u64) -> Demand<u32> {
    Demand { key, bytes: Footprint::host(bytes), urgency: Urgency::Demanded, deadline: s(deadline), spare: None }
}

fn state(residents: Vec<Resident<u32>>, demands: Vec<Demand<u32>>) -> State<u32> {
    State { residents, demands, loading: Vec::new(), leaving: Footprint::default() }
}

fn evicted(plan: &Plan<u32>) -> Vec<u32> {
    plan.evict.iter().map(|(key, _)| *key).collect()
}

#[test]
fn the_least_valuable_goes_and_no_more_than_needed() {
    let now = s(100);
    // By the byte, 2 is used least; 3 is used least of all, but it is small.
    let residents = vec![resident(1, 40, 40.0), resident(2, 40, 4.0), resident(3, 4, 2.0)];
    let plan = super::plan(&budget(100), &state(residents.clone(), vec![demand(9, 50, 110)]), now);
    assert_eq!((evicted(&plan), plan.load.len()), (vec![2], 0), "room first, then the load");
    // When 2 has gone there is room.
    let mut after = state(vec![residents[0].clone(), residents[2].clone()], vec![demand(9, 50, 110)]);
    after.leaving = Footprint::host(40);
    assert!(super::plan(&budget(100), &after, now).load.is_empty(), "not while it is still leaving");
    assert!(super::plan(&budget(100), &after, now).evict.is_empty(), "and nobody else goes for it");
    after.leaving = Footprint::default();
    assert_eq!(super::plan(&budget(100), &after, now).load, [9]);
}

#[test]
fn dear_to_load_is_worth_more_than_often_used() {
    let slow = Resident { reload: s(9), ..resident(1, 40, 5.0) };
    let plan = super::plan(&budget(100), &state(vec![slow, resident(2, 40, 20.0)], vec![demand(9, 50, 110)]), s(100));
    assert_eq!(evicted(&plan), [2]);
}

#[test]
fn requests_in_hand_and_pins_protect() {
    let busy = Resident { in_flight: true, ..resident(1, 50, 0.0) };
    let pinned = Resident { pinned: true, ..resident(2, 30, 0.0) };
    let used = resident(3, 20, 1e6);
    let all = vec![busy.clone(), pinned.clone(), used];
    let plan = super::plan(&budget(100), &state(all.clone(), vec![demand(9, 20, 110)]), s(100));
    assert_eq!(evicted(&plan), [3], "one without requests in hand, however much it was used");
    let plan = super::plan(&budget(100), &state(all.clone(), vec![demand(9, 50, 110)]), s(100));
    assert_eq!(evicted(&plan), [1], "the small one alone does not help, and is spared");
    let plan = super::plan(&budget(100), &state(all.clone(), vec![demand(9, 71, 110)]), s(100));
    assert_eq!(plan.refuse, [(9, Refusal::Held { device: Device::Host, need: 71, held: 30, budget: 100 })]);
    let plan = super::plan(&budget(100), &state(all, vec![demand(9, 101, 110)]), s(100));
    assert_eq!(plan.refuse, [(9, Refusal::TooLarge { device: Device::Host, need: 101, budget: 100 })]);
    assert!(plan.evict.is_empty());
}

#[test]
fn who_was_loaded_stays_for_a_while() {
    let young = Resident { since: s(99), ..resident(1, 80, 0.0) };
    let plan = super::plan(&budget(100), &state(vec![young], vec![demand(9, 50, 110)]), s(100));
    assert!(plan.evict.is_empty() && plan.load.is_empty() && plan.refuse.is_empty());
    assert_eq!(plan.again_at, Some(s(102)), "three times its second of loading");
}

#[test]
fn a_broken_budget_is_mended_at_once_and_the_newcomer_goes_last() {
    let newcomer = Resident { since: s(100), ..resident(2, 70, 0.0) };
    let plan = super::plan(&budget(100), &state(vec![resident(1, 50, 1e9), newcomer.clone()], vec![]), s(100));
    assert_eq!(plan.evict, [(1, Why::OverBudget)]);
    // Another that came a moment before is not protected by its youth.
    let young = Resident { since: s(99), ..resident(3, 40, 1.0) };
    let plan = super::plan(&budget(120), &state(vec![resident(1, 40, 1e9), young, newcomer.clone()], vec![]), s(100));
    assert_eq!(plan.evict, [(3, Why::OverBudget)]);
    let pinned = Resident { pinned: true, ..resident(1, 50, 0.0) };
    let plan = super::plan(&budget(100), &state(vec![pinned, newcomer], vec![]), s(100));
    assert_eq!(plan.evict, [(2, Why::OverBudget)]);
}

#[test]
fn the_idle_go_and_what_is_in_use_does_not() {
    let idle = Resident { idle_after: Some(s(30)), ..resident(1, 10, 5.0) };
    let in_use = Resident { in_flight: true, ..Resident { key: 2, ..idle.clone() } };
    let later = Resident { last_used: s(80), ..Resident { key: 3, ..idle.clone() } };
    let plan = super::plan(&Budgets::default(), &state(vec![idle, in_use, later], vec![]), s(100));
    assert_eq!((plan.evict, plan.again_at), (vec![(1, Why::Idle)], Some(s(110))));
}

#[test]
fn a_replacement_spares_what_it_replaces() {
    let swap = Demand { spare: Some(1), ..demand(1, 60, 110) };
    let both = vec![resident(1, 50, 0.0), resident(2, 30, 1e9)];
    let plan = super::plan(&budget(120), &state(both.clone(), vec![swap.clone()]), s(100));
    assert_eq!(evicted(&plan), [2]);
    let plan = super::plan(&budget(105), &state(both, vec![swap]), s(100));
    assert_eq!(plan.refuse, [(1, Refusal::Held { device: Device::Host, need: 60, held: 50, budget: 105 })]);
}

#[test]
fn what_nobody_waits_for_drives_nobody_out() {
    let wish = Demand { urgency: Urgency::Wished, ..demand(9, 30, 0) };
    let plan = super::plan(&budget(100), &state(vec![resident(1, 80, 0.0)], vec![wish.clone()]), s(100));
    assert_eq!((plan.defer, evicted_none(&plan.evict)), (vec![9], true));
    let plan = super::plan(&budget(110), &state(vec![resident(1, 80, 0.0)], vec![wish.clone()]), s(100));
    assert_eq!(plan.load, [9]);
    // And who waits comes first, whatever the order.
    let plan = super::plan(&budget(50), &state(vec![], vec![wish, demand(2, 30, 500)]), s(100));
    assert_eq!((plan.load, plan.defer), (vec![2], vec![9]));
}

fn evicted_none(evict: &[(u32, Why)]) -> bool {
    evict.is_empty()
}

#[test]
fn deadlines_decide_and_the_first_in_line_is_not_overtaken() {
    let young = Resident { since: s(100), ..resident(1, 80, 0.0) };
    // 8 waits for the young one; 9 would fit now, but would take the room that 8 waits for.
    let line = vec![demand(9, 20, 120), demand(8, 90, 110)];
    let plan = super::plan(&budget(100), &state(vec![young], line), s(100));
    assert!(plan.load.is_empty() && plan.evict.is_empty());
    assert_eq!(plan.again_at, Some(s(103)));
}

#[test]
fn each_device_has_its_own_budget() {
    let budgets = Budgets([(Device::Host, 100), (Device::Gpu(0), 50)].into());
    let on_gpu = |key, host, gpu| Resident { bytes: Footprint::host(host).with(Device::Gpu(0), gpu), ..resident(key, 0, 1.0) };
    let residents = vec![on_gpu(1, 30, 0), on_gpu(2, 1, 40), on_gpu(3, 1, 10)];
    let asked = Demand { bytes: Footprint::host(10).with(Device::Gpu(0), 30), ..demand(9, 0, 110) };
    let plan = super::plan(&budgets, &state(residents, vec![asked]), s(100));
    assert_eq!(evicted(&plan), [2], "what takes nothing of the GPU stays, what is too small does too");
}

fn any_resident() -> impl Strategy<Value = Resident<u32>> {
    let flags = (any::<bool>(), any::<bool>(), proptest::bool::weighted(0.2), proptest::bool::weighted(0.1));
    (1u32..8, 0u64..60, 0u64..20, 0.0..100.0f64, 0u64..100, 0u64..100, flags).prop_map(
        |(key, host, gpu, recent_use, since, used, flags)| {
            let (in_flight, idle, pinned, busy) = flags;
            Resident {
                bytes: Footprint::host(host).with(Device::Gpu(0), gpu),
                since: s(since),
                last_used: s(used),
                in_flight,
                pinned,
                busy,
                idle_after: idle.then(|| s(30)),
                ..resident(key, 0, recent_use)
            }
        },
    )
}

fn any_demand() -> impl Strategy<Value = Demand<u32>> {
    (5u32..14, 0u64..80, 0u64..30, any::<bool>(), 90u64..130).prop_map(|(key, host, gpu, wished, deadline)| Demand {
        bytes: Footprint::host(host).with(Device::Gpu(0), gpu),
        urgency: if wished { Urgency::Wished } else { Urgency::Demanded },
        spare: Some(key),
        ..demand(key, 0, deadline)
    })
}

proptest! {
    #[test]
    fn no_plan_breaks_a_budget_or_a_pin(
        residents in proptest::collection::vec(any_resident(), 0..7),
        demands in proptest::collection::vec(any_demand(), 0..7),
        (loading, leaving, host, gpu) in (0u64..40, 0u64..40, 20u64..200, 10u64..60),
    ) {
        let residents: BTreeMap<u32, _> = residents.into_iter().map(|r| (r.key, r)).collect();
        let demands: BTreeMap<u32, _> = demands.into_iter().map(|d| (d.key, d)).collect();
        let budgets = Budgets([(Device::Host, host), (Device::Gpu(0), gpu)].into());
        let state = State {
            residents: residents.values().cloned().collect(),
            demands: demands.values().cloned().collect(),
            loading: vec![Loading { bytes: Footprint::host(loading), pinned: false }],
            leaving: Footprint::host(leaving),
        };
        let plan = super::plan(&budgets, &state, s(100));
        // Everything that is or may be there when the loads begin.
        if !plan.load.is_empty() {
            for (device, budget) in [(Device::Host, host), (Device::Gpu(0), gpu)] {
                let now = state.residents.iter().map(|r| r.bytes.on(device)).sum::<u64>();
                let coming = plan.load.iter().map(|k| demands[k].bytes.on(device)).sum::<u64>();
                let other = if device == Device::Host { loading + leaving } else { 0 };
                prop_assert!(coming == 0 || now + other + coming <= budget, "{plan:?}");
            }
        }
        for (key, why) in &plan.evict {
            let victim = &residents[key];
            prop_assert!(!victim.busy && (!victim.pinned || *why == Why::Idle));
            prop_assert!(*why != Why::Idle || !victim.in_flight);
            prop_assert!(*why != Why::Room || victim.since + residence(victim.reload) <= s(100), "too young");
        }
        let unique: BTreeSet<_> = plan.evict.iter().map(|(k, _)| k).collect();
        prop_assert_eq!(unique.len(), plan.evict.len());
        // Each demand has at most one answer.
        let answers = plan.load.iter().chain(plan.refuse.iter().map(|(k, _)| k)).chain(&plan.defer);
        let unique: BTreeSet<_> = answers.clone().collect();
        prop_assert_eq!(unique.len(), answers.count());
    }

    /// A machine on which loads and farewells take time, sizes are known only after a load, and requests keep coming.
    #[test]
    fn who_can_be_had_is_had_and_nobody_changes_places_too_often(
        sizes in proptest::collection::vec(10u64..70, 2..6),
        load_ms in 20u64..2_000,
        pinned in 0usize..3,
        arrivals in proptest::collection::vec((0usize..6, 0u64..400), 10..80),
    ) {
        let mut machine = Machine::new(&sizes, load_ms, pinned, 100);
        for (index, pause) in arrivals {
            let key = index % sizes.len();
            machine.run_for(Duration::from_millis(pause));
            machine.ask(key);
        }
        // Each may have to wait for each of the others to have had its time.
        let turn = Duration::from_millis(load_ms * 2 + 200) + residence(Duration::from_millis(load_ms));
        machine.run_for(turn * u32::try_from(sizes.len() + 2).unwrap());
        for (key, version) in machine.versions.iter().enumerate() {
            prop_assert!(!version.waited_for, "{key} of {} is still waited for", version.real);
            for pair in version.loads.windows(2) {
                prop_assert!(pair[1] - pair[0] >= residence(Duration::from_millis(load_ms)), "{key} came back too soon: {pair:?}");
            }
        }
        prop_assert!(machine.most <= 100, "{}", machine.most);
    }
}

struct Simulated {
    real: u64,
    known: u64,
    pinned: bool,
    waited_for: bool,
    asked_at: Duration,
    loaded: Option<Duration>,
    loading_until: Option<Duration>,
    leaving_until: Option<Duration>,
    usage: Usage,
    requests: u64,
    loads: Vec<Duration>,
}

struct Machine {
    now: Duration,
    load: Duration,
    budget: u64,
    versions: Vec<Simulated>,
    most: u64,
}

impl Machine {
    fn new(sizes: &[u64], load_ms: u64, pinned: usize, budget: u64) -> Self {
        let version = |(index, size): (usize, &u64)| Simulated {
            real: *size,
            // The estimate is exact here: what a wrong one does is another test's.
            known: *size,
            // Few are pinned, and those are small enough to leave room.
            pinned: index < pinned && *size < 15,
            waited_for: false,
            asked_at: s(0),
            loaded: None,
            loading_until: None,
            leaving_until: None,
            usage: Usage::new(s(0)),
            requests: 0,
            loads: Vec::new(),
        };
        let versions = sizes.iter().enumerate().map(version).collect();
        Self { now: s(100), load: Duration::from_millis(load_ms), budget, versions, most: 0 }
    }

    fn ask(&mut self, key: usize) {
        let version = &mut self.versions[key];
        version.requests += 1;
        if version.loaded.is_none() && !version.waited_for {
            (version.waited_for, version.asked_at) = (true, self.now);
        }
        self.step();
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(10);
            self.step();
        }
    }

    fn step(&mut self) {
        let now = self.now;
        for version in &mut self.versions {
            if version.leaving_until.is_some_and(|t| t <= now) {
                version.leaving_until = None;
            }
            if version.loading_until.is_some_and(|t| t <= now) {
                (version.loading_until, version.loaded, version.waited_for) = (None, Some(now), false);
                version.usage.restart(now);
                version.requests = 0;
                version.loads.push(now);
            }
            version.usage.observe(version.requests, now);
        }
        let mut state: State<u32> = state(vec![], vec![]);
        for (key, version) in self.versions.iter().enumerate() {
            let (key, bytes) = (u32::try_from(key).unwrap(), Footprint::host(version.known));
            if let Some(since) = version.loaded {
                state.residents.push(Resident {
                    bytes: bytes.clone(),
                    since,
                    reload: self.load,
                    recent_use: version.usage.recent(now),
                    last_used: version.usage.last(),
                    pinned: version.pinned,
                    ..resident(key, 0, 0.0)
                });
            }
            if version.loading_until.is_some() {
                state.loading.push(Loading { bytes: bytes.clone(), pinned: version.pinned });
            }
            if version.leaving_until.is_some() {
                state.leaving.add(&bytes);
            }
            if version.waited_for && version.loading_until.is_none() && version.loaded.is_none() {
                state.demands.push(Demand { bytes, deadline: version.asked_at, ..demand(key, 0, 0) });
            }
        }
        let plan = super::plan(&budget(self.budget), &state, now);
        for (key, _) in plan.evict {
            let version = &mut self.versions[key as usize];
            (version.loaded, version.leaving_until) = (None, Some(now + Duration::from_millis(50)));
        }
        for key in plan.load {
            self.versions[key as usize].loading_until = Some(now + self.load);
        }
        let there = |v: &&Simulated| v.loaded.is_some() || v.loading_until.is_some() || v.leaving_until.is_some();
        self.most = self.most.max(self.versions.iter().filter(there).map(|v| v.real).sum());
    }
}
