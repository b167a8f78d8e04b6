//! Any sequence of commits does to the ledger what it does to a map in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::sqlite::open_file;
use super::*;

/// What a test says about a record before it knows which revisions there are.
#[derive(Debug, Clone, Copy)]
enum Say {
    Absent,
    /// The revision that the record has now, if it has one.
    Current,
    /// Some revision, probably a wrong one.
    Revision(u64),
    Any,
}

#[derive(Debug, Clone)]
struct Draft {
    /// Of six names: what is expected, and the new value.
    changes: Vec<(u8, Say, Option<i64>)>,
    guards: Vec<(u8, Say)>,
    if_head: Option<Say>,
}

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![
        1 => Just(Say::Absent),
        3 => Just(Say::Current),
        1 => (0_u64..8).prop_map(Say::Revision),
        4 => Just(Say::Any),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let changes = prop::collection::vec((0_u8..6, say(), prop::option::weighted(0.7, any::<i64>())), 0..4);
    let guards = prop::collection::vec((0_u8..6, say()), 0..2);
    let if_head = prop::option::weighted(0.3, say());
    (changes, guards, if_head).prop_map(|(changes, guards, if_head)| Draft { changes, guards, if_head })
}

/// The ledger as it should be.
#[derive(Default)]
struct Model {
    head: u64,
    records: BTreeMap<RecordKey, (Revision, Value)>,
}

impl Model {
    fn expect(&self, key: &RecordKey, say: Say) -> Expect {
        match say {
            Say::Absent => Expect::Absent,
            Say::Any => Expect::Any,
            Say::Revision(revision) => Expect::At(Revision(revision)),
            Say::Current => self.records.get(key).map_or(Expect::Absent, |(revision, _)| Expect::At(*revision)),
        }
    }

    fn commit(&self, draft: &Draft) -> Commit {
        let name = |number: u8| key(&format!("m{number}"));
        let change = |(number, say, value): &(u8, Say, Option<i64>)| {
            let key = name(*number);
            Change { expect: self.expect(&key, *say), key, value: value.map(Value::from) }
        };
        let if_head = draft.if_head.map(|say| match say {
            Say::Revision(revision) => Revision(revision),
            _ => Revision(self.head),
        });
        let guards = draft.guards.iter().map(|(number, say)| (name(*number), self.expect(&name(*number), *say)));
        Commit { changes: draft.changes.iter().map(change).collect(), guards: guards.collect(), if_head, ..set("model", 0) }
    }

    /// Whether the commit happens; then also makes it happen.
    fn apply(&mut self, commit: &Commit) -> bool {
        let holds = |key: &RecordKey, expect: Expect| match (expect, self.records.get(key)) {
            (Expect::Any, _) | (Expect::Absent, None) => true,
            (Expect::At(want), Some((revision, _))) => want == *revision,
            _ => false,
        };
        let keys: std::collections::BTreeSet<_> = commit.changes.iter().map(|change| &change.key).collect();
        let fine = keys.len() == commit.changes.len()
            && commit.if_head.is_none_or(|head| head.0 == self.head)
            && commit.guards.iter().all(|(key, expect)| holds(key, *expect))
            && commit.changes.iter().all(|change| holds(&change.key, change.expect));
        if !fine {
            return false;
        }
        self.head += 1;
        for change in &commit.changes {
            match &change.value {
                Some(value) => self.records.insert(change.key.clone(), (Revision(self.head), value.clone())),
                None => self.records.remove(&change.key),
            };
        }
        true
    }
}

async fn follow(drafts: Vec<Draft>) {
    let root = tempfile::tempdir().unwrap();
    let ledger = open_file(&root.path().join("ledger")).await;
    let mut model = Model::default();
    for draft in drafts {
        let commit = model.commit(&draft);
        let happens = model.apply(&commit);
        match ledger.commit(commit.clone()).await {
            Ok(revision) => assert_eq!((happens, revision.0), (true, model.head), "{commit:?}"),
            Err(MetadataError::Conflict(_) | MetadataError::HeadMoved(_)) => assert!(!happens, "{commit:?}"),
            Err(error) => panic!("{error:?}"),
        }
        let (head, records) = ledger.read_all().await.unwrap();
        let records: BTreeMap<_, _> = records.into_iter().map(|record| (record.key, (record.revision, record.value))).collect();
        assert_eq!((head.0, &records), (model.head, &model.records));
    }
    check_ledger(&*ledger).await;
    ledger.close().await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_ledger_follows_the_model(drafts in prop::collection::vec(draft(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(follow(drafts));
    }
}
