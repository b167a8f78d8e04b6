//! The ladder over simulated time: up when it must, down soon, and without swinging.

use proptest::prelude::*;

use super::*;
use crate::batching::simulation::Seeded;

fn cpu(cpu: f64) -> Load {
    Load { cpu, ..Load::default() }
}

/// Measures ten times a second; the levels at which it arrived, with the second.
fn run(ladder: &mut Ladder, from: u64, to: u64, load: impl Fn(u64, Level) -> Load) -> Vec<(u64, Level)> {
    (from * 10..to * 10)
        .filter_map(|tick| {
            let load = load(tick, ladder.level());
            ladder.observe(Duration::from_millis(tick * 100), load).map(|change| (tick * 100, change.to))
        })
        .collect()
}

#[test]
fn each_level_switches_off_what_it_says() {
    use Criticality::{Background, Critical, Default, Sheddable};
    let table = [
        (Level::Normal, vec![Critical, Default, Sheddable, Background], [true, false, false, false]),
        (Level::L1, vec![Critical, Default, Sheddable], [false, false, false, false]),
        (Level::L2, vec![Critical, Default], [false, true, false, false]),
        (Level::L3, vec![Critical, Default], [false, true, true, true]),
        (Level::L4, vec![Critical], [false, true, true, true]),
        (Level::L5, vec![], [false, true, true, true]),
    ];
    for (number, (level, admitted, switches)) in table.into_iter().enumerate() {
        assert_eq!(CRITICALITIES.into_iter().filter(|class| level.admits(*class)).collect::<Vec<_>>(), admitted, "{level}");
        assert_eq!([level.hedges(), level.widens_batches(), level.degrades(), level.offers_jobs()], switches, "{level}");
        assert_eq!(level.number() as usize, number);
    }
}

#[test]
fn up_one_level_a_second_and_down_at_once() {
    let mut ladder = Ladder::new(LadderSettings::default());
    let up = run(&mut ladder, 0, 10, |_, _| cpu(2.0));
    assert_eq!(up, [(1000, Level::L1), (2000, Level::L2), (3000, Level::L3), (4000, Level::L4), (5000, Level::L5)]);
    let down = run(&mut ladder, 10, 13, |_, _| cpu(0.3));
    assert_eq!(down, [(11_000, Level::Normal)], "a second after the surge");
}

#[test]
fn a_known_demand_that_fits_is_believed() {
    let mut ladder = Ladder::new(LadderSettings::default());
    run(&mut ladder, 0, 5, |_, _| Load { cpu: 1.0, demand: [2.0, 2.0, 5.0, 1.0], ..Load::default() });
    assert_eq!(ladder.level(), Level::L3);
    let down = run(&mut ladder, 5, 8, |_, _| Load { cpu: 0.7, demand: [0.1, 0.1, 0.4, 0.1], ..Load::default() });
    assert_eq!(down, [(6000, Level::Normal)], "although 70 % are not far below");
}

#[test]
fn slowly_when_the_load_is_only_just_under() {
    let mut ladder = Ladder::new(LadderSettings::default());
    run(&mut ladder, 0, 3, |_, _| cpu(0.95));
    assert_eq!(ladder.level(), Level::L2);
    assert_eq!(run(&mut ladder, 3, 40, |_, _| cpu(0.7)), [(13_000, Level::L1), (23_000, Level::Normal)]);
    assert_eq!(run(&mut ladder, 40, 100, |_, _| cpu(0.79)), [], "under the first threshold nothing happens");
}

#[test]
fn noise_at_a_threshold_does_not_make_it_swing() {
    for threshold in LadderSettings::default().thresholds {
        let mut ladder = Ladder::new(LadderSettings::default());
        run(&mut ladder, 0, 20, |_, _| cpu(threshold + 0.04));
        let mut random = Seeded::new(11);
        let noise: Vec<f64> = (0..6000).map(|_| threshold - 0.06 + 0.12 * random.share()).collect();
        let changes = run(&mut ladder, 20, 600, |tick, _| cpu(noise[tick as usize - 200]));
        assert!(changes.len() <= 1, "{changes:?} at {threshold}");
    }
}

/// What the node measures when what it refuses costs nothing: the demand that it admits.
fn closed(demand: [f64; 4], told: bool) -> impl Fn(u64, Level) -> Load {
    move |_, level| {
        let admitted = Load { demand, ..Load::default() }.demand_at(level);
        Load { cpu: admitted, demand: if told { demand } else { [0.0; 4] }, ..Load::default() }
    }
}

#[test]
fn refusing_work_is_not_mistaken_for_the_end_of_the_surge() {
    // Ten times too much background work: with L1 the node is quiet, and it stays at L1.
    let mut ladder = Ladder::new(LadderSettings::default());
    let changes = run(&mut ladder, 0, 300, closed([10.0, 0.0, 0.3, 0.0], true));
    let tries = changes.iter().filter(|(_, level)| *level == Level::Normal).count();
    assert!(tries <= 5, "{changes:?}");
    let calm = changes.iter().filter(|(at, _)| *at > 150_000).count();
    assert!(calm <= 4, "once in 80 s it looks: {changes:?}");
    run(&mut ladder, 300, 302, closed([0.0, 0.0, 0.3, 0.0], true));
    assert_eq!(ladder.level(), Level::Normal, "and the true end is seen at once");
}

#[test]
fn unknown_demand_is_tried_ever_more_seldom() {
    let mut ladder = Ladder::new(LadderSettings::default());
    let changes = run(&mut ladder, 0, 600, closed([10.0, 0.0, 0.3, 0.0], false));
    assert!(changes.iter().filter(|(at, _)| *at > 60_000).count() <= 2 * 60, "not every second or two");
    let gap = changes.windows(2).filter(|pair| pair[0].0 > 60_000 && pair[1].1 == Level::Normal).map(|pair| pair[1].0 - pair[0].0).min();
    assert_eq!(gap, Some(8100), "eight times the wait, from the first quiet measurement on");
}

#[test]
fn nonsense_counts_as_nothing() {
    let mut ladder = Ladder::new(LadderSettings::default());
    assert_eq!(run(&mut ladder, 0, 10, |_, _| Load { queue: f64::NAN, cpu: -1.0, memory: f64::NAN, demand: [f64::NAN; 4] }), []);
    run(&mut ladder, 10, 20, |_, _| Load { queue: f64::INFINITY, ..Load::default() });
    assert_eq!(ladder.level(), Level::L5);
    assert_eq!(run(&mut ladder, 20, 23, |_, _| Load { demand: [f64::NAN; 4], ..Load::default() }).last(), Some(&(21_000, Level::Normal)));
}

proptest! {
    /// Random loads, piece by piece: the steps are those that the rules allow.
    #[test]
    fn moves_by_its_rules_only(pieces in proptest::collection::vec((0.0f64..2.0, 1u64..150), 1..30)) {
        let settings = LadderSettings::default();
        let (mut ladder, mut tick, mut history) = (Ladder::new(settings), 0u64, Vec::<f64>::new());
        let (mut moved, mut changes) = (0u64, 0);
        for (load, ticks) in pieces {
            for _ in 0..ticks {
                history.push(load);
                let level = ladder.level();
                if let Some(Change { from, to }) = ladder.observe(Duration::from_millis(tick * 100), cpu(load)) {
                    prop_assert_eq!(from, level);
                    let since = |ticks: u64| history[history.len().saturating_sub(ticks as usize + 1)..].to_vec();
                    if to > from {
                        prop_assert_eq!(Some(to), from.above(), "nothing is skipped on the way up");
                        let threshold = settings.thresholds[from as usize];
                        prop_assert!(since(10).iter().all(|load| *load >= threshold));
                    } else if Some(to) != from.below() {
                        prop_assert!(since(10).iter().all(|load| *load < settings.far));
                    } else {
                        let threshold = settings.thresholds[to as usize] - settings.margin;
                        prop_assert!(since(10).iter().all(|load| *load < threshold));
                    }
                    prop_assert!(changes == 0 || tick - moved >= 10, "never two steps within a second");
                    (moved, changes) = (tick, changes + 1);
                }
                tick += 1;
            }
        }
        for _ in 0..200 {
            ladder.observe(Duration::from_millis(tick * 100), cpu(0.1));
            tick += 1;
        }
        prop_assert_eq!(ladder.level(), Level::Normal, "it always comes back");
    }
}
