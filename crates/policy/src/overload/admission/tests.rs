//! The queue under random histories: fair, bounded, and nobody forgotten.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn request(id: u64, tenant: u32, criticality: Criticality) -> Request {
    Request { tenant, criticality, cost: 1, bytes: 0, deadline: ms(1_000_000), id }
}

fn done(tenant: u32, criticality: Criticality) -> Done {
    Done { tenant, criticality, reserved: 1, actual: 1 }
}

/// A queue whose slots are all in use by tenant 0's critical requests.
fn full(settings: AdmissionSettings, limit: usize) -> Admission {
    let mut queue = Admission::new(settings, limit);
    for _ in 0..limit {
        assert_eq!(queue.offer(ms(0), request(0, 0, Criticality::Critical), &mut Answers::default()), Offer::Enter);
    }
    queue
}

/// Everything that waits, in the order in which it begins one after the other, without time passing.
fn drain(queue: &mut Admission, now: Duration) -> Vec<u64> {
    let mut answers = Answers::default();
    while queue.in_use() > 0 {
        queue.done(now, done(0, Criticality::Critical), &mut answers);
    }
    answers.entered
}

#[test]
fn classes_hold_back_step_by_step() {
    let mut queue = Admission::new(AdmissionSettings::default(), 10);
    let mut enter =
        |class| (0..10).take_while(|_| queue.offer(ms(0), request(0, 0, class), &mut Answers::default()) == Offer::Enter).count();
    assert_eq!(enter(Criticality::Background), 8);
    assert_eq!(enter(Criticality::Sheddable), 1);
    assert_eq!(enter(Criticality::Default), 1);
    assert_eq!(enter(Criticality::Critical), 0);
    let mut one = Admission::new(AdmissionSettings::default(), 1);
    assert_eq!(
        one.offer(ms(0), request(0, 0, Criticality::Background), &mut Answers::default()),
        Offer::Enter,
        "each has one slot at least"
    );
}

#[test]
fn the_most_important_goes_first() {
    let mut queue = full(AdmissionSettings::default(), 4);
    for (id, class) in CRITICALITIES.into_iter().rev().enumerate() {
        assert!(matches!(queue.offer(ms(0), request(id as u64, 1, class), &mut Answers::default()), Offer::Wait(_)));
    }
    assert_eq!(drain(&mut queue, ms(1))[..4], [3, 2, 1, 0]);
}

#[test]
fn tenants_share_by_cost() {
    let settings = AdmissionSettings { max_waiting: 4096, max_per_tenant: 1000, standing: ms(1_000_000), ..AdmissionSettings::default() };
    let mut queue = full(settings, 1);
    // Tenant 1 sends costly requests first, tenants 2 and 3 cheap ones.
    for (tenant, cost, count) in [(1u32, 100u64, 300u64), (2, 1, 900), (3, 10, 300)] {
        for n in 0..count {
            let request = Request { cost, ..request(u64::from(tenant) * 1000 + n, tenant, Criticality::Default) };
            assert!(matches!(queue.offer(ms(0), request, &mut Answers::default()), Offer::Wait(_)));
        }
    }
    let order = drain(&mut queue, ms(1));
    let mut spent = BTreeMap::<u64, u64>::new();
    for id in order.iter().take_while(|id| **id != 2899) {
        *spent.entry(id / 1000).or_default() += [100, 1, 10][(id / 1000) as usize - 1];
        let (least, most) = ((1..=3).map(|tenant| spent.get(&tenant).copied().unwrap_or(0)).min().unwrap(), *spent.values().max().unwrap());
        assert!(most - least <= 110, "{spent:?}");
    }
    assert!(order.iter().position(|id| *id == 2000).unwrap() <= 2, "who comes second does not wait for a backlog");
}

#[test]
fn what_was_cheaper_than_thought_is_given_back() {
    let settings = AdmissionSettings { standing: ms(1_000_000), ..AdmissionSettings::default() };
    let mut queue = full(settings, 1);
    for n in 0..60 {
        for tenant in [1, 2] {
            let request = Request { cost: 10, ..request(u64::from(tenant) * 100 + n, tenant, Criticality::Default) };
            let _ = queue.offer(ms(0), request, &mut Answers::default());
        }
    }
    let (mut answers, mut counts, mut last) = (Answers::default(), [0u32; 3], done(0, Criticality::Critical));
    for _ in 0..60 {
        queue.done(ms(1), last, &mut answers);
        let tenant = (answers.entered.pop().unwrap() / 100) as u32;
        counts[tenant as usize] += 1;
        // Tenant 1's requests cost half of what they said.
        last = Done { tenant, criticality: Criticality::Default, reserved: 10, actual: if tenant == 1 { 5 } else { 10 } };
    }
    assert!((38..=42).contains(&counts[1]), "two of three turns: {counts:?}");
}

#[test]
fn newest_first_while_overloaded_and_nobody_waits_for_ever() {
    let mut queue = full(AdmissionSettings { max_per_tenant: 9, ..AdmissionSettings::default() }, 1);
    for id in 1..=9 {
        assert!(matches!(queue.offer(ms(id * 10), request(id, 1, Criticality::Default), &mut Answers::default()), Offer::Wait(_)));
    }
    let mut answers = Answers::default();
    queue.done(ms(100), done(0, Criticality::Critical), &mut answers);
    assert_eq!(answers.entered, [1], "as usual for the first 100 ms");
    queue.done(ms(110), done(1, Criticality::Default), &mut answers);
    assert_eq!(answers.entered, [1, 9]);
    assert_eq!(queue.next_look(), Some(ms(270)));
    queue.expired(ms(290), &mut answers);
    assert_eq!(answers.dropped, [2, 3, 4].map(|id| Dropped { id, loss: Loss::Stale }));
    assert_eq!(queue.next_look(), Some(ms(300)));
}

#[test]
fn who_is_too_late_costs_nothing() {
    let mut queue = full(AdmissionSettings::default(), 1);
    queue.set_service_time(ms(10));
    let mut answers = Answers::default();
    let late = |id, deadline| Request { deadline: ms(deadline), ..request(id, 1, Criticality::Default) };
    assert!(matches!(queue.offer(ms(0), late(1, 10), &mut answers), Offer::Refuse(RefuseReason::Expired, _)), "10 ms are not enough");
    assert!(matches!(queue.offer(ms(0), late(2, 50), &mut answers), Offer::Wait(_)));
    assert!(matches!(queue.offer(ms(0), late(3, 60), &mut answers), Offer::Wait(_)));
    assert!(matches!(queue.offer(ms(0), late(4, 90), &mut answers), Offer::Wait(_)));
    assert_eq!(queue.next_look(), Some(ms(40)));
    queue.expired(ms(40), &mut answers);
    assert_eq!(answers.dropped, [Dropped { id: 2, loss: Loss::Expired }]);
    queue.done(ms(55), done(0, Criticality::Critical), &mut answers);
    assert_eq!((answers.dropped[1], answers.entered.as_slice()), (Dropped { id: 3, loss: Loss::Expired }, [4].as_slice()));
}

#[test]
fn full_is_said_at_once_and_the_higher_class_has_the_place() {
    let settings = AdmissionSettings { max_waiting: 20, max_per_tenant: 20, ..AdmissionSettings::default() };
    let mut queue = full(settings, 1);
    let mut answers = Answers::default();
    let waits = |queue: &mut Admission, id, tenant, class, answers: &mut Answers| {
        matches!(queue.offer(ms(1), request(id, tenant, class), answers), Offer::Wait(_))
    };
    let own = (0..30).take_while(|id| waits(&mut queue, *id, 1, Criticality::Sheddable, &mut answers)).count();
    assert_eq!(own, 20, "alone it may fill the queue");
    assert!(matches!(queue.offer(ms(1), request(99, 2, Criticality::Sheddable), &mut answers), Offer::Refuse(RefuseReason::Full, _)));
    assert!(waits(&mut queue, 100, 2, Criticality::Default, &mut answers));
    assert_eq!(answers.dropped, [Dropped { id: 0, loss: Loss::Displaced }]);
    assert_eq!(queue.waiting(), 20);
    let mut queue = full(settings, 1);
    assert!(waits(&mut queue, 0, 2, Criticality::Default, &mut answers));
    let own = (0..30).take_while(|id| waits(&mut queue, 1 + *id, 1, Criticality::Default, &mut answers)).count();
    assert_eq!(own, 16, "not alone it leaves room");
    assert!(matches!(queue.offer(ms(1), request(99, 1, Criticality::Default), &mut answers), Offer::Refuse(RefuseReason::TenantFull, _)));
    answers.dropped.clear();
    assert!(waits(&mut queue, 101, 1, Criticality::Critical, &mut answers), "its own lower class makes room");
    assert_eq!(answers.dropped, [Dropped { id: 1, loss: Loss::Displaced }]);
    assert!(waits(&mut queue, 100, 3, Criticality::Default, &mut answers));
}

#[test]
fn what_waits_is_bounded_in_bytes_and_lower_classes_go_first() {
    let mut queue = full(AdmissionSettings { max_bytes: 100, ..AdmissionSettings::default() }, 1);
    let mut answers = Answers::default();
    let heavy = |id, class, bytes| Request { bytes, ..request(id, 1, class) };
    assert!(matches!(queue.offer(ms(1), heavy(1, Criticality::Sheddable, 500), &mut answers), Offer::Wait(_)), "alone it may be any size");
    let refused = Offer::Refuse(RefuseReason::Full, ms(30_000));
    assert_eq!(queue.offer(ms(1), heavy(2, Criticality::Sheddable, 1), &mut answers), refused);
    assert!(matches!(queue.offer(ms(1), heavy(3, Criticality::Default, 60), &mut answers), Offer::Wait(_)));
    assert_eq!(answers.dropped, [Dropped { id: 1, loss: Loss::Displaced }]);
    assert_eq!(queue.offer(ms(1), heavy(4, Criticality::Default, 41), &mut answers), refused);
    assert!(matches!(queue.offer(ms(1), heavy(5, Criticality::Default, 40), &mut answers), Offer::Wait(_)));
    assert_eq!((queue.waiting(), answers.dropped.len()), (2, 1));
}

#[test]
fn in_an_overloaded_class_few_wait_and_who_has_fewer_takes_a_place() {
    let mut queue = full(AdmissionSettings { most_overloaded: 4, ..AdmissionSettings::default() }, 1);
    let mut answers = Answers::default();
    let mut offer = |at, id, tenant| queue.offer(ms(at), request(id, tenant, Criticality::Default), &mut answers);
    (1..=5).for_each(|id| assert!(matches!(offer(id, id, 1), Offer::Wait(_)), "a burst may be longer"));
    assert!(matches!(offer(101, 6, 1), Offer::Refuse(RefuseReason::Full, _)));
    assert!(matches!(offer(102, 7, 2), Offer::Wait(_)));
    assert!(matches!(offer(103, 8, 2), Offer::Wait(_)), "still fewer");
    assert!(matches!(offer(104, 9, 2), Offer::Refuse(RefuseReason::Full, _)), "three and two");
    assert_eq!(answers.dropped, [1, 2].map(|id| Dropped { id, loss: Loss::Displaced }));
}

#[test]
fn begun_requests_may_be_counted_elsewhere() {
    let mut queue = Admission::new(AdmissionSettings::default(), 2);
    let mut answers = Answers::default();
    queue.set_in_use(2);
    assert!(matches!(queue.offer(ms(0), request(1, 1, Criticality::Default), &mut answers), Offer::Wait(_)));
    queue.set_in_use(1);
    assert!(answers.entered.is_empty(), "nobody is let in by counting");
    queue.set_limit(ms(1), 2, &mut answers);
    assert_eq!((answers.entered.as_slice(), queue.in_use()), ([1].as_slice(), 2));
}

#[test]
fn retry_after_comes_from_the_drain_rate() {
    let settings = AdmissionSettings { max_waiting: 400, max_per_tenant: 400, ..AdmissionSettings::default() };
    let mut queue = full(settings, 1);
    let mut answers = Answers::default();
    for n in 0..500u64 {
        let _ = queue.offer(ms(n * 20), request(n, 1, Criticality::Default), &mut answers);
        queue.done(ms(n * 20), done(1, Criticality::Default), &mut answers);
    }
    for n in 0..400 {
        assert!(matches!(queue.offer(ms(10_000), request(n, 1, Criticality::Default), &mut answers), Offer::Wait(_)));
    }
    let Offer::Refuse(_, wait) = queue.offer(ms(10_000), request(0, 1, Criticality::Default), &mut answers) else { panic!("full") };
    assert!((6..=10).contains(&wait.as_secs()), "{wait:?} for 400 at 50 a second");
    let Offer::Refuse(_, wait) = queue.offer(ms(10_000), Request { deadline: ms(0), ..request(0, 1, Criticality::Critical) }, &mut answers)
    else {
        panic!("late")
    };
    assert_eq!(wait, ms(1000), "nobody is ahead of it");
}

#[test]
fn tenants_that_are_gone_leave_nothing() {
    let mut queue = full(AdmissionSettings::default(), 1);
    let mut answers = Answers::default();
    for tenant in 0..100_000u32 {
        let _ = queue.offer(
            ms(u64::from(tenant)),
            Request { cost: 1 + u64::from(tenant % 1000), ..request(0, tenant, Criticality::Default) },
            &mut answers,
        );
        let _ = queue.offer(ms(u64::from(tenant)), request(0, 7, Criticality::Default), &mut answers);
        queue.done(ms(u64::from(tenant)), done(tenant, Criticality::Default), &mut answers);
        answers.entered.clear();
        answers.dropped.clear();
        let bound = 70 + 2 * queue.waiting();
        assert!(queue.classes.iter().all(|class| class.flows.len() <= bound), "tenant {tenant}");
        assert!(queue.slots.len() <= 1024 && queue.expiry.len() <= 2 * 1024 + 66);
    }
}

#[derive(Debug, Clone)]
enum Act {
    Offer { tenant: u32, class: usize, cost: u64, lasts: u64 },
    Done(usize),
    Cancel(usize),
    Limit(usize),
    Look,
}

fn acts() -> impl Strategy<Value = Vec<(u64, Act)>> {
    let act = prop_oneof![
        6 => (0u32..6, 0usize..4, 1u64..50, 0u64..400).prop_map(|(tenant, class, cost, lasts)| Act::Offer { tenant, class, cost, lasts }),
        4 => (0usize..100).prop_map(Act::Done),
        1 => (0usize..100).prop_map(Act::Cancel),
        1 => (0usize..12).prop_map(Act::Limit),
        1 => Just(Act::Look),
    ];
    proptest::collection::vec((prop_oneof![Just(0u64), 0u64..30], act), 1..400)
}

proptest! {
    /// Every promise of the module's text, after every act of a random history.
    #[test]
    fn keeps_its_promises(acts in acts(), max_waiting in 1usize..30, max_per_tenant in 1usize..20, max_bytes in 20u64..600, most_overloaded in 1usize..30) {
        let settings = AdmissionSettings { max_waiting, max_per_tenant, max_bytes, most_overloaded, standing: ms(40), patience: ms(90), ..AdmissionSettings::default() };
        let mut queue = Admission::new(settings, 5);
        let mut answers = Answers::default();
        let (mut waiting, mut running) = (BTreeMap::<u64, (Ticket, Request, u64)>::new(), Vec::<Request>::new());
        let (mut now, mut limit, mut next) = (0u64, 5usize, 0u64);
        for (wait, act) in acts {
            now += wait;
            let before = running.len();
            let mut may_grow = true;
            match act {
                Act::Offer { tenant, class, cost, lasts } => {
                    next += 1;
                    let criticality = CRITICALITIES[class];
                    let request = Request { tenant, criticality, cost, bytes: cost, deadline: ms(now + lasts), id: next };
                    match queue.offer(ms(now), request, &mut answers) {
                        Offer::Enter => {
                            prop_assert!(waiting.values().all(|(_, other, _)| other.criticality < criticality), "nobody is overtaken by a later one");
                            running.push(request);
                        }
                        Offer::Wait(ticket) => {
                            waiting.insert(next, (ticket, request, now));
                        }
                        Offer::Refuse(reason, retry) => {
                            prop_assert_eq!(reason == RefuseReason::Expired, lasts == 0);
                            prop_assert!((1..=30).contains(&retry.as_secs()));
                            may_grow = false;
                        }
                    }
                }
                Act::Done(at) if !running.is_empty() => {
                    let over = running.swap_remove(at % running.len());
                    let done = Done { tenant: over.tenant, criticality: over.criticality, reserved: over.cost, actual: over.cost / 2 };
                    queue.done(ms(now), done, &mut answers);
                }
                Act::Cancel(at) if !waiting.is_empty() => {
                    let id = *waiting.keys().nth(at % waiting.len()).unwrap();
                    let (ticket, ..) = waiting.remove(&id).unwrap();
                    prop_assert!(queue.cancel(ticket) && !queue.cancel(ticket));
                }
                Act::Limit(to) => {
                    limit = to.max(1);
                    queue.set_limit(ms(now), to, &mut answers);
                }
                Act::Look => {
                    queue.expired(ms(now), &mut answers);
                    prop_assert!(queue.next_look().is_none_or(|next| next > ms(now)), "all that was due is done");
                }
                _ => {}
            }
            for id in answers.entered.drain(..) {
                let (_, request, arrived) = waiting.remove(&id).expect("it waited, once");
                prop_assert!(request.deadline > ms(now), "not after its deadline");
                prop_assert!(arrived <= now);
                running.push(request);
            }
            for dropped in answers.dropped.drain(..) {
                let (_, request, arrived) = waiting.remove(&dropped.id).expect("it waited, once");
                match dropped.loss {
                    Loss::Expired => prop_assert!(request.deadline <= ms(now)),
                    Loss::Stale => prop_assert!(now - arrived >= 90),
                    Loss::Displaced => prop_assert!(waiting.len() <= max_waiting && may_grow),
                }
            }
            prop_assert_eq!((queue.waiting(), queue.in_use()), (waiting.len(), running.len()));
            prop_assert!(waiting.len() <= max_waiting);
            prop_assert!(waiting.len() == 1 || waiting.values().map(|(_, request, _)| request.bytes).sum::<u64>() <= max_bytes);
            prop_assert!(waiting.values().all(|(ticket, ..)| queue.due(*ticket).is_some_and(|due| Some(due) >= queue.next_look())));
            prop_assert!(running.len() <= limit.max(before), "{} of {}", running.len(), limit);
            for tenant in 0..6 {
                prop_assert!(waiting.values().filter(|(_, request, _)| request.tenant == tenant).count() <= max_per_tenant);
            }
            for (_, request, _) in waiting.values() {
                prop_assert!(running.len() >= queue.part(request.criticality.index()), "somebody waits that may begin");
            }
        }
        queue.expired(ms(now + 1_000_000), &mut answers);
        let gone: BTreeSet<u64> = answers.dropped.iter().map(|dropped| dropped.id).collect();
        prop_assert_eq!(gone, waiting.keys().copied().collect::<BTreeSet<_>>());
        prop_assert_eq!((queue.waiting(), queue.next_look()), (0, None));
    }
}
