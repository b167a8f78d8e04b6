//! Random sequences of operations, held against a plain model of what the registry should do.
//!
//! After each step: the same outcome as the model's, the same state, and every invariant of the checker.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What one model looks like from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Line {
    last: u64,
    /// Content and whether it is active, by number.
    versions: BTreeMap<u64, (u8, bool)>,
    aliases: BTreeMap<String, u64>,
    /// Loaded, and the versions kept loaded.
    deployment: Option<(bool, Vec<u64>)>,
}

type State = Option<Line>;

#[derive(Debug, Clone)]
enum Step {
    Push(u8, Vec<&'static str>),
    Move(&'static str, u64),
    RollBack,
    DeleteAlias(&'static str),
    Retire(u64),
    Restore(u64),
    DeleteVersion(u64),
    DeleteModel,
    Deploy(Option<Vec<u64>>),
    Desire(bool),
    Collect,
    UndoLast,
    UndoAny(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let alias = || prop::sample::select(vec!["champion", "canary", "previous"]);
    let number = || 1u64..6;
    let step = prop_oneof![
        6 => (0u8..4, prop::sample::subsequence(vec!["champion", "canary"], 0..=2)).prop_map(|(c, a)| Step::Push(c, a)),
        4 => (alias(), number()).prop_map(|(a, n)| Step::Move(a, n)),
        2 => Just(Step::RollBack),
        1 => alias().prop_map(Step::DeleteAlias),
        2 => number().prop_map(Step::Retire),
        1 => number().prop_map(Step::Restore),
        2 => number().prop_map(Step::DeleteVersion),
        1 => Just(Step::DeleteModel),
        2 => prop::option::of(prop::sample::subsequence(vec![1, 2, 3], 0..=2)).prop_map(Step::Deploy),
        1 => any::<bool>().prop_map(Step::Desire),
        1 => Just(Step::Collect),
        3 => Just(Step::UndoLast),
        2 => (1u64..30).prop_map(Step::UndoAny),
    ];
    proptest::collection::vec(step, 1..30)
}

impl Line {
    fn active(&self, number: u64) -> Result<(), Reason> {
        match self.versions.get(&number) {
            None => Err(Reason::VersionNotFound),
            Some((_, false)) => Err(Reason::VersionRetired),
            Some(_) => Ok(()),
        }
    }

    fn free(&self, number: u64) -> Result<(), Reason> {
        if !self.versions.contains_key(&number) {
            return Err(Reason::VersionNotFound);
        }
        let pinned = self.deployment.as_ref().is_some_and(|(_, versions)| versions.contains(&number));
        if pinned || self.aliases.values().any(|v| *v == number) { Err(Reason::VersionInUse) } else { Ok(()) }
    }

    fn point(&mut self, alias: &str, number: u64) {
        let old = self.aliases.insert(alias.to_owned(), number);
        if alias == "champion" {
            if let Some(old) = old.filter(|old| *old != number) {
                self.aliases.insert("previous".to_owned(), old);
            }
            self.deployment.get_or_insert((true, vec![]));
        }
    }
}

/// What a step does to the state, when it can be foretold; `used` is the newest number that was ever handed out.
fn foretell(state: &mut State, used: u64, step: &Step) -> Result<(), Reason> {
    if let Step::Push(content, aliases) = step {
        let line = state.get_or_insert_with(|| Line { last: used, ..Line::default() });
        let existing = line.versions.iter().rev().find(|(_, (c, active))| c == content && *active).map(|(n, _)| *n);
        // The moves of a push that changes no alias do not deploy either.
        let number = existing.unwrap_or(line.last + 1);
        if existing.is_some() && aliases.iter().all(|a| line.aliases.get(*a) == Some(&number)) {
            return Ok(());
        }
        line.last = line.last.max(number);
        line.versions.entry(number).or_insert((*content, true));
        aliases.iter().for_each(|alias| line.point(alias, number));
        return Ok(());
    }
    if matches!(step, Step::Collect) {
        return Ok(());
    }
    if matches!(step, Step::Move("previous", _)) {
        return Err(Reason::InvalidName);
    }
    let line = state.as_mut().ok_or(Reason::ModelNotFound)?;
    match step {
        Step::Move(alias, number) => {
            line.active(*number)?;
            if line.aliases.get(*alias) != Some(number) {
                line.point(alias, *number);
            }
        }
        Step::RollBack => {
            let (Some(champion), Some(previous)) = (line.aliases.get("champion"), line.aliases.get("previous")) else {
                return Err(Reason::NothingToRollBack);
            };
            if champion == previous {
                return Err(Reason::NothingToRollBack);
            }
            let previous = *previous;
            line.active(previous)?;
            line.point("champion", previous);
        }
        Step::DeleteAlias(alias) => {
            if !line.aliases.contains_key(*alias) {
                return Err(Reason::AliasNotFound);
            }
            if *alias == "champion" && line.deployment.as_ref().is_some_and(|d| d.0) {
                return Err(Reason::VersionInUse);
            }
            line.aliases.remove(*alias);
            if *alias == "champion" {
                line.aliases.remove("previous");
            }
        }
        Step::Retire(number) => {
            line.free(*number)?;
            line.versions.entry(*number).and_modify(|v| v.1 = false);
        }
        Step::Restore(number) => {
            line.versions.get_mut(number).ok_or(Reason::VersionNotFound)?.1 = true;
        }
        Step::DeleteVersion(number) => {
            line.free(*number)?;
            line.versions.remove(number);
        }
        Step::DeleteModel => {
            let deployed = line.deployment.as_ref().is_some_and(|(loaded, versions)| *loaded || !versions.is_empty());
            if deployed || !line.aliases.is_empty() {
                return Err(Reason::VersionInUse);
            }
            *state = None;
        }
        Step::Deploy(None) => line.deployment = None,
        Step::Deploy(Some(versions)) => {
            for number in versions {
                line.active(*number)?;
            }
            line.deployment = Some((true, versions.clone()));
        }
        Step::Desire(loaded) => {
            let versions = line.deployment.take().map(|(_, versions)| versions).unwrap_or_default();
            line.deployment = Some((*loaded, versions));
        }
        Step::Push(..) | Step::Collect | Step::UndoLast | Step::UndoAny(_) => {}
    }
    Ok(())
}

async fn perform(s: &Setup, step: &Step) -> Result<()> {
    let (registry, actor, model) = (&s.registry, &s.actor, &s.model);
    match step {
        Step::Push(content, aliases) => s.push(&format!("content {content}"), aliases).await.map(drop),
        Step::Move(alias, number) => s.promote(alias, *number).await.map(drop),
        Step::RollBack => registry.roll_back(actor, model, &RollBack::default()).await.map(drop),
        Step::DeleteAlias(alias) => registry.delete_alias(actor, model, &alias.parse().unwrap()).await.map(drop),
        Step::Retire(number) => registry.retire_version(actor, model, n(*number)).await.map(drop),
        Step::Restore(number) => registry.restore_version(actor, model, n(*number)).await.map(drop),
        Step::DeleteVersion(number) => registry.delete_version(actor, model, n(*number)).await,
        Step::DeleteModel => registry.delete_model(actor, model).await,
        Step::Deploy(versions) => {
            let record =
                versions.as_ref().map(|v| DeploymentRecord { versions: v.iter().map(|v| n(*v)).collect(), ..DeploymentRecord::default() });
            registry.set_deployment(actor, model, record).await
        }
        Step::Desire(loaded) => {
            let desired = if *loaded { Desired::Loaded } else { Desired::Unloaded };
            registry.set_desired(actor, model, desired, None).await.map(drop)
        }
        Step::Collect => s.collect().await.map(drop),
        Step::UndoLast => s.undo(s.head().await).await.map(drop),
        Step::UndoAny(revision) => s.undo(Revision(*revision)).await.map(drop),
    }
}

/// The state as the registry shows it.
async fn observe(s: &Setup) -> State {
    let model = s.registry.model(s.tenant(), &s.model).await.ok()?;
    let all = PageQuery { after: None, limit: 100 };
    let versions = s.registry.versions(s.tenant(), &s.model, &all).await.unwrap().items;
    let content = |v: &Version| (0..4).find(|c| Digest::of(format!("content {c}").as_bytes()) == v.record.files[0].digest).unwrap();
    let deployment = s.registry.deployment(s.tenant(), &s.model).await.unwrap();
    Some(Line {
        last: model.record.last_version.map_or(0, VersionNumber::get),
        versions: versions.iter().map(|v| (v.number.get(), (content(v), v.record.state == VersionState::Active))).collect(),
        aliases: model.record.aliases.iter().map(|(alias, target)| (alias.to_string(), target.version.get())).collect(),
        deployment: deployment.map(|d| (d.desired == Desired::Loaded, d.versions.iter().map(|v| v.get()).collect())),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_registry_does_what_the_model_says(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let s = Setup::new();
            let mut state: State = None;
            // What stood before each commit.
            let mut before: BTreeMap<u64, State> = BTreeMap::new();
            let mut used = 0;
            for step in &steps {
                let (head, old) = (s.head().await, state.clone());
                let outcome = perform(&s, step).await.map_err(|e| e.reason());
                match step {
                    Step::UndoLast | Step::UndoAny(_) => {
                        let target = if let Step::UndoAny(n) = step { *n } else { head.0 };
                        state = observe(&s).await;
                        if outcome.is_ok() && target == head.0 {
                            let last = state.as_ref().map_or(0, |line| line.last);
                            let mut expected = before[&target].clone();
                            if let Some(line) = &mut expected { line.last = line.last.max(last) }
                            assert_eq!(state, expected, "undoing {target}");
                        }
                        if outcome.is_err() {
                            assert_eq!(state, old, "an undo that fails changes nothing");
                        }
                    }
                    _ => {
                        assert_eq!(outcome, foretell(&mut state, used, step), "{step:?}");
                        if outcome.is_err() { state.clone_from(&old) }
                        assert_eq!(observe(&s).await, state, "{step:?}");
                    }
                }
                if let Some(line) = &state {
                    assert!(line.last >= used, "numbers do not fall: {step:?}");
                    used = line.last;
                }
                for revision in head.0 + 1..=s.head().await.0 {
                    before.insert(revision, old.clone());
                }
                s.sound().await;
            }
        });
    }
}
