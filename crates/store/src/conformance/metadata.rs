//! What every adapter of [`Metadata`] must keep.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::join_all;
use plinth_types::{TenantName, Timestamp};
use serde_json::{Value, json};

use crate::metadata::{
    AuditChange, AuditNote, AuditQuery, Change, Commit, Expect, Kind, ListQuery, Metadata, MetadataError, Record, RecordKey, Revision,
};

type Store = Arc<dyn Metadata>;

/// Runs the whole suite. `make` gives a fresh, empty ledger each time.
///
/// # Panics
/// When the adapter does not keep a promise.
pub async fn metadata<Make, Made>(make: Make)
where
    Make: Fn() -> Made,
    Made: Future<Output = Store>,
{
    an_empty_ledger_is_empty(make().await).await;
    what_is_written_is_read(make().await).await;
    values_come_back_as_they_were(make().await).await;
    expectations_are_checked(make().await).await;
    guards_are_checked_and_change_nothing(make().await).await;
    the_head_can_be_a_condition(make().await).await;
    a_key_stands_once_in_a_commit(make().await).await;
    a_commit_happens_whole_or_not_at_all(make().await).await;
    what_cannot_be_stored_is_refused(make().await).await;
    deletes_delete(make().await).await;
    lists_are_sorted_filtered_and_paged(make().await).await;
    a_prefix_is_taken_literally(make().await).await;
    lists_over_all_tenants_sort_by_tenant_first(make().await).await;
    the_audit_keeps_before_and_after(make().await).await;
    the_audit_is_filtered_and_paged(make().await).await;
    the_audit_is_a_chain(make().await).await;
    concurrent_increments_lose_nothing(make().await).await;
    only_one_of_many_creates(make().await).await;
    read_all_shows_one_moment(make().await).await;
    pages_hold_every_record_once(make().await).await;
    a_cancelled_commit_holds_nobody_up(make().await).await;
    it_says_what_it_is(make().await).await;
}

fn tenant(name: &str) -> TenantName {
    name.parse().unwrap()
}

fn model(name: &str) -> RecordKey {
    RecordKey::new(Kind::Model, tenant("acme"), name)
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

fn note(subject: &str) -> AuditNote {
    AuditNote {
        at: at(1_700_000_000_123),
        tenant: tenant("acme"),
        actor: "key-1".into(),
        action: "model.change".into(),
        subject: subject.into(),
        comment: String::new(),
    }
}

fn set(key: &RecordKey, expect: Expect, value: Value) -> Change {
    Change { key: key.clone(), expect, value: Some(value) }
}

fn remove(key: &RecordKey, expect: Expect) -> Change {
    Change { key: key.clone(), expect, value: None }
}

fn commit(changes: Vec<Change>) -> Commit {
    Commit { changes, guards: Vec::new(), if_head: None, note: note("thing") }
}

async fn put(store: &Store, key: &RecordKey, value: Value) -> Revision {
    store.commit(commit(vec![set(key, Expect::Any, value)])).await.unwrap()
}

async fn value(store: &Store, key: &RecordKey) -> Option<Value> {
    store.get(key).await.unwrap().map(|record| record.value)
}

fn everything() -> AuditQuery {
    AuditQuery { tenant: None, subject: None, before: None, limit: 1000 }
}

/// Everything that can be seen of a ledger, to show that something did not change it.
async fn picture(store: &Store) -> (Revision, Vec<Record>, usize) {
    let (revision, records) = store.read_all().await.unwrap();
    assert_eq!(store.head().await.unwrap(), revision);
    (revision, records, store.audit(&everything()).await.unwrap().len())
}

/// Commits something that must fail, and shows that it changed nothing.
async fn refused(store: &Store, commit: Commit) -> MetadataError {
    let before = picture(store).await;
    let error = store.commit(commit).await.expect_err("this commit must be refused");
    assert_eq!(picture(store).await, before, "a refused commit changed something ({error})");
    error
}

fn assert_conflict(error: &MetadataError, key: &RecordKey) {
    assert!(matches!(error, MetadataError::Conflict(found) if found == key), "want a conflict on {key:?}, got {error:?}");
}

async fn an_empty_ledger_is_empty(store: Store) {
    assert_eq!(picture(&store).await, (Revision(0), Vec::new(), 0));
    assert_eq!(store.get(&model("a")).await.unwrap(), None);
    assert_eq!(store.audit_entry(Revision(0)).await.unwrap(), None);
    assert_eq!(store.audit_entry(Revision(1)).await.unwrap(), None);
    assert_eq!(store.audit_entry(Revision(u64::MAX)).await.unwrap(), None);
}

async fn what_is_written_is_read(store: Store) {
    let (a, b) = (model("a"), RecordKey::new(Kind::Version, tenant("acme"), "a/1"));
    let first = store.commit(commit(vec![set(&a, Expect::Absent, json!({"x": 1})), set(&b, Expect::Any, json!([1]))])).await.unwrap();
    assert_eq!(first, Revision(1), "the first commit makes revision 1");
    let record = Record { key: a.clone(), revision: first, updated_at: at(1_700_000_000_123), value: json!({"x": 1}) };
    assert_eq!(store.get(&a).await.unwrap(), Some(record));
    assert_eq!(put(&store, &a, json!({"x": 2})).await, Revision(2));
    let (head, all) = store.read_all().await.unwrap();
    assert_eq!(head, Revision(2));
    assert_eq!(all.iter().map(|r| (&r.key, r.revision)).collect::<Vec<_>>(), vec![(&a, Revision(2)), (&b, Revision(1))]);
    // The same name elsewhere is another record.
    assert_eq!(value(&store, &RecordKey::new(Kind::Deployment, tenant("acme"), "a")).await, None);
    assert_eq!(value(&store, &RecordKey::new(Kind::Model, tenant("other"), "a")).await, None);
}

async fn values_come_back_as_they_were(store: Store) {
    let names = ["ü", "模型/1", "🦀", "a b", "a\nb", "'; DROP TABLE records; --", "\"", "$1", "%", "_", "\\", "e\u{301}", "A", "a"];
    for (i, name) in names.iter().enumerate() {
        put(&store, &model(name), json!({ "name": name, "i": i })).await;
    }
    for (i, name) in names.iter().enumerate() {
        assert_eq!(value(&store, &model(name)).await, Some(json!({ "name": name, "i": i })), "{name:?}");
    }
    let nested = (0..90).fold(json!(1), |inner, _| json!([inner]));
    for tricky in [
        Value::Null,
        json!(""),
        json!("a\u{0}b"),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(0.1),
        json!(1e300),
        json!({"z": 1, "a": {"": null}}),
        json!("x".repeat(300_000)),
        nested,
    ] {
        put(&store, &model("value"), tricky.clone()).await;
        assert_eq!(value(&store, &model("value")).await, Some(tricky));
    }
    // The audit still opens, too.
    assert_eq!(store.audit(&everything()).await.unwrap().len(), names.len() + 10);
}

async fn expectations_are_checked(store: Store) {
    let key = model("a");
    assert_conflict(&refused(&store, commit(vec![set(&key, Expect::At(Revision(1)), json!(1))])).await, &key);
    let first = store.commit(commit(vec![set(&key, Expect::Absent, json!(1))])).await.unwrap();
    assert_conflict(&refused(&store, commit(vec![set(&key, Expect::Absent, json!(2))])).await, &key);
    let second = store.commit(commit(vec![set(&key, Expect::At(first), json!(2))])).await.unwrap();
    assert_conflict(&refused(&store, commit(vec![set(&key, Expect::At(first), json!(3))])).await, &key);
    assert_conflict(&refused(&store, commit(vec![remove(&key, Expect::At(first))])).await, &key);
    assert_conflict(&refused(&store, commit(vec![remove(&key, Expect::Absent)])).await, &key);
    store.commit(commit(vec![remove(&key, Expect::At(second))])).await.unwrap();
    assert_conflict(&refused(&store, commit(vec![set(&key, Expect::At(second), json!(4))])).await, &key);
    store.commit(commit(vec![set(&key, Expect::Absent, json!(5))])).await.unwrap();
    store.commit(commit(vec![set(&key, Expect::Any, json!(6))])).await.unwrap();
    assert_eq!(value(&store, &key).await, Some(json!(6)));
}

async fn guards_are_checked_and_change_nothing(store: Store) {
    let (guarded, other) = (model("guarded"), model("other"));
    let guarded_at = put(&store, &guarded, json!(1)).await;
    let with = |guard: (&RecordKey, Expect)| Commit {
        guards: vec![(guard.0.clone(), guard.1)],
        ..commit(vec![set(&other, Expect::Any, json!("changed"))])
    };
    assert_conflict(&refused(&store, with((&guarded, Expect::Absent))).await, &guarded);
    assert_conflict(&refused(&store, with((&guarded, Expect::At(Revision(77))))).await, &guarded);
    assert_conflict(&refused(&store, with((&model("nobody"), Expect::At(guarded_at)))).await, &model("nobody"));
    for holds in [(&guarded, Expect::At(guarded_at)), (&guarded, Expect::Any), (&model("nobody"), Expect::Absent)] {
        store.commit(with(holds)).await.unwrap();
    }
    assert_eq!(store.get(&guarded).await.unwrap().unwrap().revision, guarded_at, "a guard is not a change");
    // A guard sees what was there before the commit's own changes.
    let own = Commit { guards: vec![(guarded.clone(), Expect::At(guarded_at))], ..commit(vec![set(&guarded, Expect::Any, json!(2))]) };
    store.commit(own).await.unwrap();
    // A commit of guards alone is a commit, too.
    let head = store.head().await.unwrap();
    let check = Commit { guards: vec![(guarded.clone(), Expect::Any)], ..commit(Vec::new()) };
    assert_eq!(store.commit(check).await.unwrap(), Revision(head.0 + 1));
}

async fn the_head_can_be_a_condition(store: Store) {
    let on = |head: u64, value: i32| Commit { if_head: Some(Revision(head)), ..commit(vec![set(&model("a"), Expect::Any, json!(value))]) };
    assert_eq!(store.commit(on(0, 1)).await.unwrap(), Revision(1));
    let stale = refused(&store, on(0, 2)).await;
    assert!(matches!(stale, MetadataError::HeadMoved(Revision(1))), "{stale:?}");
    // A head that this ledger never had is another ledger's.
    let future = refused(&store, on(9, 2)).await;
    assert!(matches!(future, MetadataError::HeadMoved(Revision(1))), "{future:?}");
    assert_eq!(store.commit(on(1, 3)).await.unwrap(), Revision(2));
}

async fn a_key_stands_once_in_a_commit(store: Store) {
    let key = model("a");
    for twice in [
        vec![set(&key, Expect::Any, json!(1)), set(&key, Expect::Any, json!(1))],
        vec![set(&key, Expect::Any, json!(1)), remove(&key, Expect::Any)],
        vec![set(&key, Expect::Any, json!(1)), set(&model("b"), Expect::Any, json!(1)), set(&key, Expect::Any, json!(2))],
    ] {
        assert_conflict(&refused(&store, commit(twice)).await, &key);
    }
}

async fn a_commit_happens_whole_or_not_at_all(store: Store) {
    let keys: Vec<_> = (0..5).map(|i| model(&format!("m{i}"))).collect();
    put(&store, &keys[0], json!("old")).await;
    // The last change fails after all others could have been written.
    let mut changes: Vec<_> = keys[..4].iter().map(|key| set(key, Expect::Any, json!("new"))).collect();
    changes.push(set(&keys[4], Expect::At(Revision(99)), json!("new")));
    assert_conflict(&refused(&store, commit(changes.clone())).await, &keys[4]);
    assert_eq!(value(&store, &keys[0]).await, Some(json!("old")));
    changes.pop();
    let revision = store.commit(commit(changes)).await.unwrap();
    for key in &keys[..4] {
        assert_eq!(store.get(key).await.unwrap().unwrap().revision, revision, "all changes carry the commit's revision");
    }
}

async fn what_cannot_be_stored_is_refused(store: Store) {
    let deep = (0..150).fold(json!(1), |inner, _| json!([inner]));
    let mut hidden = commit(vec![set(&model("a"), Expect::Any, json!(1))]);
    hidden.note.comment = "a\0b".into();
    for bad in [
        commit(vec![set(&model(""), Expect::Any, json!(1))]),
        commit(vec![set(&model("a\0"), Expect::Any, json!(1))]),
        commit(vec![set(&model("a"), Expect::Any, deep)]),
        hidden,
    ] {
        let error = refused(&store, bad).await;
        assert!(matches!(error, MetadataError::Unavailable { .. }), "{error:?}");
    }
    assert_eq!(store.get(&model("a\0")).await.unwrap(), None);
    assert!(store.list(&list("a\0", None, 10)).await.unwrap().is_empty());
    assert!(store.audit(&AuditQuery { subject: Some("\0".into()), ..everything() }).await.unwrap().is_empty());
    put(&store, &model("a"), json!(1)).await;
}

async fn deletes_delete(store: Store) {
    let (a, b) = (model("a"), model("b"));
    put(&store, &a, json!(1)).await;
    put(&store, &b, json!(2)).await;
    let revision = store.commit(commit(vec![remove(&a, Expect::Any)])).await.unwrap();
    assert_eq!((store.get(&a).await.unwrap(), value(&store, &b).await), (None, Some(json!(2))));
    assert_eq!(store.read_all().await.unwrap().1.len(), 1);
    let entry = store.audit_entry(revision).await.unwrap().unwrap();
    assert_eq!(entry.changes, vec![AuditChange { key: a.clone(), before: Some(json!(1)), after: None }]);
    // Deleting what is absent changes nothing, but is a commit.
    let again = store.commit(commit(vec![remove(&a, Expect::Any)])).await.unwrap();
    assert_eq!(again, Revision(revision.0 + 1));
    assert_eq!(store.audit_entry(again).await.unwrap().unwrap().changes, Vec::new());
}

fn list(prefix: &str, after: Option<&str>, limit: u32) -> ListQuery {
    ListQuery { kind: Kind::Model, tenant: Some(tenant("acme")), prefix: prefix.into(), after: after.map(Into::into), limit }
}

async fn names(store: &Store, query: &ListQuery) -> Vec<String> {
    store.list(query).await.unwrap().into_iter().map(|record| record.key.name).collect()
}

async fn lists_are_sorted_filtered_and_paged(store: Store) {
    // In byte order: capitals before small letters, `-` before `/`, `é` last.
    let sorted = ["B", "a", "a-1", "a/1", "a/10", "a/2", "ab", "b", "é"];
    let changes = sorted.iter().rev().map(|name| set(&model(name), Expect::Any, json!(name))).collect();
    store.commit(commit(changes)).await.unwrap();
    put(&store, &RecordKey::new(Kind::Model, tenant("zebra"), "a/3"), json!(0)).await;
    put(&store, &RecordKey::new(Kind::Version, tenant("acme"), "a/4"), json!(0)).await;

    assert_eq!(names(&store, &list("", None, 100)).await, sorted);
    assert_eq!(names(&store, &list("a/", None, 100)).await, ["a/1", "a/10", "a/2"]);
    assert_eq!(names(&store, &list("é", None, 100)).await, ["é"]);
    assert!(names(&store, &list("c", None, 100)).await.is_empty());
    assert!(names(&store, &list("", None, 0)).await.is_empty());
    assert_eq!(names(&store, &list("a/", Some("a/10"), 100)).await, ["a/2"]);
    assert_eq!(names(&store, &list("a/", Some("A"), 100)).await, ["a/1", "a/10", "a/2"], "`after` may lie before the prefix");
    assert!(names(&store, &list("a/", Some("b"), 100)).await.is_empty());

    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = names(&store, &list("", after.as_deref(), 2)).await;
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        pages.extend(page);
    }
    assert_eq!(pages, sorted);
}

async fn a_prefix_is_taken_literally(store: Store) {
    let all = ["%", "%a", "_", "_a", "a%b", "a_b", "axb", "A%", "\\", "\\%"];
    let changes = all.iter().map(|name| set(&model(name), Expect::Any, json!(0))).collect();
    store.commit(commit(changes)).await.unwrap();
    for (prefix, found) in [
        ("%", vec!["%", "%a"]),
        ("_", vec!["_", "_a"]),
        ("a%", vec!["a%b"]),
        ("a_", vec!["a_b"]),
        ("a", vec!["a%b", "a_b", "axb"]),
        ("\\", vec!["\\", "\\%"]),
        ("*", vec![]),
    ] {
        assert_eq!(names(&store, &list(prefix, None, 100)).await, found, "{prefix:?}");
    }
}

async fn lists_over_all_tenants_sort_by_tenant_first(store: Store) {
    for (owner, name) in [("b", "1"), ("a", "2"), ("B", "3"), ("a", "1")] {
        put(&store, &RecordKey::new(Kind::Key, tenant(owner), name), json!(0)).await;
    }
    let query = ListQuery { kind: Kind::Key, tenant: None, prefix: String::new(), after: None, limit: 10 };
    let found: Vec<_> = store.list(&query).await.unwrap().into_iter().map(|r| (r.key.tenant.to_string(), r.key.name)).collect();
    let want = [("B", "3"), ("a", "1"), ("a", "2"), ("b", "1")].map(|(tenant, name)| (tenant.to_owned(), name.to_owned()));
    assert_eq!(found, want);
    // `read_all` sorts by kind, in the order of `Kind`, before that.
    put(&store, &RecordKey::new(Kind::Tenant, tenant("z"), "z"), json!(0)).await;
    put(&store, &RecordKey::new(Kind::Collection, tenant("a"), "plan"), json!(0)).await;
    let keys: Vec<_> = store.read_all().await.unwrap().1.into_iter().map(|record| record.key).collect();
    let mut by_key = keys.clone();
    by_key.sort();
    assert_eq!(keys, by_key);
}

async fn the_audit_keeps_before_and_after(store: Store) {
    let (a, b) = (model("a"), model("b"));
    let told = AuditNote {
        at: at(253_402_300_799_999),
        tenant: tenant("other"),
        actor: "ключ".into(),
        action: "model.promote".into(),
        subject: "a/1 ü".into(),
        comment: "because;\n'quoted'".into(),
    };
    put(&store, &a, json!({"v": 1})).await;
    let change = Commit { note: told.clone(), ..commit(vec![set(&b, Expect::Any, Value::Null), set(&a, Expect::Any, json!({"v": 2}))]) };
    let revision = store.commit(change).await.unwrap();
    put(&store, &b, json!(3)).await;

    let entry = store.audit_entry(revision).await.unwrap().unwrap();
    assert_eq!((entry.revision, &entry.note), (revision, &told));
    let want = [
        AuditChange { key: b.clone(), before: None, after: Some(Value::Null) },
        AuditChange { key: a, before: Some(json!({"v": 1})), after: Some(json!({"v": 2})) },
    ];
    assert_eq!(entry.changes, want, "changes stand in the order of the commit");
    let next = store.audit_entry(Revision(revision.0 + 1)).await.unwrap().unwrap();
    assert_eq!(next.changes, vec![AuditChange { key: b, before: Some(Value::Null), after: Some(json!(3)) }]);
}

async fn the_audit_is_a_chain(store: Store) {
    let (a, b) = (model("a"), model("b"));
    for value in [json!(1), json!({"x": 1.5e300, "y": -0.0, "ü": "\u{1f600}"}), Value::Null] {
        put(&store, &a, value.clone()).await;
        store.commit(commit(vec![set(&b, Expect::Any, value), remove(&a, Expect::Any)])).await.unwrap();
    }
    let mut previous = None;
    let all = store.audit_chain(Revision(0), 100).await.unwrap();
    assert_eq!(all.iter().map(|entry| entry.revision.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    for entry in &all {
        assert_eq!(entry.stored, Some(entry.after(previous)), "{}", entry.revision);
        previous = entry.stored;
    }
    assert_eq!(store.audit_chain(Revision(3), 2).await.unwrap(), all[2..4]);
}

async fn the_audit_is_filtered_and_paged(store: Store) {
    let subjects = ["digits", "digits/1", "digits/2", "digits-old", "digits0", "digit", "digits/", "DIGITS", "di%", "di_its"];
    for (i, subject) in subjects.iter().enumerate() {
        let owner = if i % 2 == 0 { "acme" } else { "other" };
        let told = AuditNote { tenant: tenant(owner), ..note(subject) };
        store.commit(Commit { note: told, ..commit(vec![set(&model("a"), Expect::Any, json!(i))]) }).await.unwrap();
    }
    let found = async |query: AuditQuery| -> Vec<String> {
        store.audit(&query).await.unwrap().into_iter().map(|entry| entry.note.subject).collect()
    };
    let newest_first: Vec<_> = subjects.iter().rev().copied().collect();
    assert_eq!(found(everything()).await, newest_first);
    let on = |subject: &str| AuditQuery { subject: Some(subject.into()), ..everything() };
    assert_eq!(found(on("digits")).await, ["digits/", "digits/2", "digits/1", "digits"]);
    assert_eq!(found(on("di%")).await, ["di%"]);
    assert_eq!(found(on("di_its")).await, ["di_its"]);
    assert!(found(on("dig")).await.is_empty());
    assert_eq!(found(AuditQuery { tenant: Some(tenant("acme")), ..on("digits") }).await, ["digits/", "digits/2", "digits"]);
    assert_eq!(found(AuditQuery { tenant: Some(tenant("other")), ..everything() }).await.len(), 5);
    assert!(found(AuditQuery { tenant: Some(tenant("nobody")), ..everything() }).await.is_empty());
    assert!(found(AuditQuery { limit: 0, ..everything() }).await.is_empty());
    assert!(found(AuditQuery { before: Some(Revision(1)), ..everything() }).await.is_empty());

    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let page = store.audit(&AuditQuery { before, limit: 3, ..everything() }).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        before = Some(last.revision);
        pages.extend(page.into_iter().map(|entry| entry.note.subject));
    }
    assert_eq!(pages, newest_first);
}

async fn concurrent_increments_lose_nothing(store: Store) {
    const TASKS: u64 = 8;
    const EACH: u64 = 20;
    let key = model("counter");
    let increment = async || loop {
        let (expect, count) = match store.get(&key).await.unwrap() {
            None => (Expect::Absent, 0),
            Some(record) => (Expect::At(record.revision), record.value.as_u64().unwrap()),
        };
        match store.commit(commit(vec![set(&key, expect, json!(count + 1))])).await {
            Ok(revision) => return revision,
            Err(MetadataError::Conflict(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    };
    let increment = &increment;
    let task = async move || {
        let mut revisions = Vec::new();
        for _ in 0..EACH {
            revisions.push(increment().await);
        }
        revisions
    };
    let revisions: Vec<Vec<Revision>> = join_all((0..TASKS).map(|_| task())).await;
    assert_eq!(value(&store, &key).await, Some(json!(TASKS * EACH)), "an increment was lost");
    for own in &revisions {
        assert!(own.is_sorted(), "one task's commits get rising revisions");
    }
    let all: BTreeSet<_> = revisions.into_iter().flatten().map(|revision| revision.0).collect();
    assert_eq!(all, (1..=TASKS * EACH).collect::<BTreeSet<_>>(), "revisions have gaps");
    let audit: Vec<_> = store.audit(&everything()).await.unwrap().into_iter().map(|entry| entry.revision.0).rev().collect();
    assert_eq!(audit, (1..=TASKS * EACH).collect::<Vec<_>>(), "each commit has one audit entry");
}

async fn only_one_of_many_creates(store: Store) {
    let attempts = join_all((0..10).map(|i| store.commit(commit(vec![set(&model("a"), Expect::Absent, json!(i))])))).await;
    assert_eq!(attempts.iter().filter(|attempt| attempt.is_ok()).count(), 1);
    for error in attempts.into_iter().filter_map(Result::err) {
        assert_conflict(&error, &model("a"));
    }
    assert_eq!(store.head().await.unwrap(), Revision(1));
}

async fn read_all_shows_one_moment(store: Store) {
    // Every commit gives the same value to all three, so a picture with two values mixes two moments.
    let keys = [model("a"), RecordKey::new(Kind::Tenant, tenant("b"), "b"), RecordKey::new(Kind::Deployment, tenant("c"), "c")];
    let commits = async |from: u64| {
        for i in from..from + 40 {
            store.commit(commit(keys.iter().map(|key| set(key, Expect::Any, json!(i))).collect())).await.unwrap();
        }
    };
    let reads = async || {
        let mut seen = Revision(0);
        for _ in 0..60 {
            let (revision, records) = if seen.0.is_multiple_of(2) {
                store.read_all().await.unwrap()
            } else {
                let mut records = Vec::new();
                (store.read_pages(&mut |page| records.extend(page)).await.unwrap(), records)
            };
            assert!(revision >= seen, "read_all went back in time");
            seen = revision;
            let values: BTreeSet<_> = records.iter().map(|record| record.value.to_string()).collect();
            assert!(values.len() <= 1, "read_all mixes moments: {values:?}");
            assert_eq!(records.len(), if revision == Revision(0) { 0 } else { 3 });
            assert!(records.iter().all(|record| record.revision == revision), "read_all shows revision {revision} and {records:?}");
        }
    };
    tokio::join!(commits(0), reads(), commits(1000), reads());
}

async fn pages_hold_every_record_once(store: Store) {
    let keys: Vec<_> = (0..25_000).map(|n| RecordKey::new(Kind::Key, tenant(["a", "b"][n % 2]), format!("k{n}"))).collect();
    for part in keys.chunks(5_000) {
        store.commit(commit(part.iter().map(|key| set(key, Expect::Absent, json!(1))).collect())).await.unwrap();
    }
    put(&store, &model("a"), json!(1)).await;
    let (mut seen, mut largest) = (Vec::new(), 0);
    let mut take = |page: Vec<Record>| {
        largest = largest.max(page.len());
        seen.extend(page);
    };
    assert_eq!(store.read_pages(&mut take).await.unwrap(), Revision(6));
    seen.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(seen, store.read_all().await.unwrap().1);
    assert!(largest < 25_001 || seen.len() == largest, "either pages or one of all");
}

async fn a_cancelled_commit_holds_nobody_up(store: Store) {
    for i in 0..30_u32 {
        let mut doomed = Box::pin(store.commit(commit(vec![set(&model("doomed"), Expect::Any, json!(i))])));
        // Let it come a little further each time before it is dropped.
        for _ in 0..i {
            if futures_util::poll!(&mut doomed).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(doomed);
    }
    let revision = put(&store, &model("after"), json!(1)).await;
    let (head, records, entries) = picture(&store).await;
    assert_eq!(head, revision);
    assert_eq!(entries as u64, head.0, "each commit that happened has its audit entry, each that did not has none");
    assert!(records.iter().any(|record| record.key == model("after")));
}

async fn it_says_what_it_is(store: Store) {
    let text = store.describe().await.unwrap();
    let (product, version) = text.split_once(' ').expect("a product and a version");
    assert!(!product.is_empty() && version.starts_with(|c: char| c.is_ascii_digit()), "{text:?}");
    store.close().await;
    assert!(store.head().await.is_err(), "a closed ledger answers");
}
