//! The ladder and early refusal, in simulated time.

use super::*;
use plinth_policy::overload::CRITICALITIES;
use plinth_telemetry::{BuildInfo, Catalogue};

fn catalogue() -> Catalogue {
    Catalogue::new(BuildInfo { version: "0", commit: "unknown" })
}

/// An interval of [`lag`].
const INTERVAL: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn a_busy_node_climbs_and_comes_down() {
    let tasks = TaskGroup::new("test");
    let busy = Arc::new(AtomicU8::new(0));
    let measured = busy.clone();
    let measure = move || Load { cpu: f64::from(measured.load(Relaxed)) / 100.0, ..Load::default() };
    let gauge = catalogue().overload_level.clone();
    let world = World::real();
    // The clock of the world does not stand still with tokio's, so the settings are as fast as the clock goes.
    let settings =
        LadderSettings { up_after: Duration::ZERO, down_after: Duration::ZERO, fall_after: Duration::ZERO, ..LadderSettings::default() };
    let overload = Overload::start(settings, measure, gauge, &world, &tasks);
    tokio::time::sleep(INTERVAL * 3).await;
    assert_eq!(overload.level(), Level::Normal);
    busy.store(95, Relaxed);
    tokio::time::sleep(INTERVAL * 10).await;
    assert_eq!(overload.level(), Level::L2);
    assert!(overload.admits(Criticality::Default) && !overload.admits(Criticality::Sheddable));
    busy.store(10, Relaxed);
    tokio::time::sleep(INTERVAL * 30).await;
    assert_eq!(overload.level(), Level::Normal);
    tasks.close(Duration::from_secs(1)).await;
}

/// How many of `count` requests are let in.
fn let_in(overload: &Overload, class: Criticality, tenant: u32, count: u32) -> u32 {
    (0..count).map(|_| u32::from(!overload.sheds(class, tenant))).sum()
}

#[test]
fn the_edge_is_shared_and_the_rest_is_all_or_nothing() {
    let (overload, mut shedder) = (Overload::default(), Shedder::new(ShedderSettings::default()));
    let ms = Duration::from_millis;
    assert_eq!(let_in(&overload, Criticality::Background, 1, 9), 9);
    overload.follow(&mut shedder, ms(40));
    assert_eq!(let_in(&overload, Criticality::Background, 1, 90), 90, "they are counted, and nobody is refused");
    assert_eq!(let_in(&overload, Criticality::Default, 1, 1000), 1000);
    assert_eq!(let_in(&overload, Criticality::Default, 2, 100), 100);
    assert_eq!(let_in(&overload, Criticality::Critical, 2, 10), 10);
    // The delay has grown by an interval: half of 1,200 can be done, less a part for the delay; ten of that are the critical ones'.
    overload.follow(&mut shedder, ms(90));
    assert_eq!(let_in(&overload, Criticality::Background, 1, 90), 0);
    let greedy = let_in(&overload, Criticality::Default, 1, 1000);
    assert!((250..400).contains(&greedy), "{greedy}");
    assert_eq!(let_in(&overload, Criticality::Default, 2, 100), 100, "less than its share");
    assert_eq!(let_in(&overload, Criticality::Critical, 2, 10), 10);
    for _ in 0..100 {
        overload.follow(&mut shedder, ms(1));
        let_in(&overload, Criticality::Default, 1, 100);
    }
    assert!(!overload.is_shedding());
    assert_eq!(let_in(&overload, Criticality::Background, 1, 9), 9);
}

#[test]
fn demand_is_known_only_while_it_matters() {
    let overload = Overload::default();
    let ask = |count: u32| (0..count).for_each(|n| _ = overload.admits(CRITICALITIES[n as usize % 4]));
    ask(100);
    assert_eq!(overload.demand(0.9), [0.0; 4], "nothing is counted at normal");
    overload.set(Level::L2);
    ask(100);
    let demand = overload.demand(0.8);
    assert!(demand.iter().all(|part| (part - 0.4).abs() < 1e-9), "half is let in and takes 0.8: {demand:?}");
    ask(8);
    assert_eq!(overload.demand(0.8), [0.0; 4], "too few");
}
