//! Waiting at the gate: bounds, deadlines, refusals that reach the right ones.

use std::collections::BTreeMap;

use super::*;
use crate::memory::VersionMemory;
use crate::table::{ModelRow, VersionRow};

const SOON: Duration = Duration::from_secs(5);

struct Scene {
    published: Arc<Published>,
    gate: Arc<Gate>,
    shown: UpDownCounter,
    tenant: TenantName,
    model: ModelName,
}

impl Scene {
    fn new(most_for_one: usize) -> Self {
        let shown = UpDownCounter::default();
        let published = Arc::new(Published::new(Parking::new(most_for_one, shown.clone())));
        let scene = Self { published, gate: Arc::default(), shown, tenant: "t".parse().unwrap(), model: "m".parse().unwrap() };
        scene.show(State::Unloaded, None, 0, true);
        scene
    }

    fn show(&self, state: State, refusal: Option<(Reason, &str)>, refused: u64, gate: bool) {
        let row = VersionRow {
            state,
            instance: None,
            refusal: refusal.map(|(reason, text)| (reason, text.to_owned())),
            restarts: 0,
            generation: 0,
            loading: false,
            memory: VersionMemory { gate: gate.then(|| self.gate.clone()), refused, ..VersionMemory::default() },
        };
        let versions = BTreeMap::from([(VersionNumber::FIRST, row)]);
        let mut table = Table::default();
        let model = Arc::new(ModelRow { default: Some(VersionNumber::FIRST), versions });
        table.models.entry(self.tenant.clone()).or_default().insert(self.model.clone(), model);
        self.published.publish(table);
    }

    async fn ask(&self) -> Reason {
        let wanted = Wanted { tenant: &self.tenant, model: &self.model, version: None, not: None };
        let found = self.published.find(wanted, Duration::ZERO, SOON).await;
        found.err().map(|error| error.reason()).unwrap()
    }

    async fn until_parked(&self, count: usize) {
        while self.gate.parked() != count {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_the_wait_and_gives_the_place_back() {
    let scene = Scene::new(8);
    let start = tokio::time::Instant::now();
    assert_eq!(scene.ask().await, Reason::DeadlineExceeded);
    assert_eq!(start.elapsed(), SOON);
    assert_eq!((scene.gate.parked(), scene.gate.asked(), scene.published.parking().len(), scene.shown.value()), (0, 1, 0, 0));
    assert_eq!(scene.gate.deadline(), SOON);
    // Whoever looks for demand was rung.
    scene.published.parking().rung().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_wait_than_allowed() {
    let scene = Scene::new(2);
    let (a, b) = (scene.ask(), scene.ask());
    let third = async {
        scene.until_parked(2).await;
        assert_eq!(scene.ask().await, Reason::QueueFull);
        assert_eq!(scene.shown.value(), 2);
        scene.show(State::Failed, Some((Reason::ModelLoadFailed, "bad")), 0, true);
    };
    let (a, b, ()) = tokio::join!(a, b, third);
    assert_eq!((a, b), (Reason::ModelNotReady, Reason::ModelNotReady), "a failed load ends every wait");
    assert_eq!(scene.published.parking().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_reaches_those_who_asked_before_it() {
    let scene = Scene::new(8);
    let early = scene.ask();
    let later = async {
        scene.until_parked(1).await;
        let asked = scene.gate.asked();
        let late = scene.ask();
        let refuse = async {
            scene.until_parked(2).await;
            scene.show(State::Unloaded, Some((Reason::OverCapacity, "no room")), asked, true);
            scene.until_parked(1).await;
            assert_eq!(scene.gate.parked(), 1, "the one who came later goes on waiting");
            scene.show(State::Unloaded, Some((Reason::OverCapacity, "no room")), scene.gate.asked(), true);
        };
        tokio::join!(late, refuse).0
    };
    let (early, late) = tokio::join!(early, later);
    assert_eq!((early, late), (Reason::OverCapacity, Reason::OverCapacity));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_loaded_on_demand_is_not_waited_for() {
    let scene = Scene::new(8);
    scene.show(State::Loading, None, 0, false);
    assert_eq!(scene.ask().await, Reason::ModelNotReady);
    scene.show(State::Quarantined, None, 0, true);
    assert_eq!(scene.ask().await, Reason::ModelQuarantined);
    assert_eq!(scene.gate.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_goes_on_waiting_while_the_runner_is_started_again() {
    let scene = Scene::new(8);
    let story = async {
        scene.until_parked(1).await;
        for state in [State::Loading, State::Restarting, State::Unloading] {
            scene.show(state, None, 0, true);
            tokio::task::yield_now().await;
            assert_eq!(scene.gate.parked(), 1, "{state:?}");
        }
        scene.published.publish(Table::default());
    };
    let (reason, ()) = tokio::join!(scene.ask(), story);
    assert_eq!(reason, Reason::ModelNotFound, "an operator took the model away");
}
