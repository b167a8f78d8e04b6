//! The registry as its callers see it, over the memory store; races, the oracle and the real stores have files of their own.

mod gateway;
mod oracle;
mod races;
mod stores;

use futures_util::{StreamExt as _, stream};
use plinth_runtime::{CrashPoints, ManualClock, SeededRandom};
use plinth_store::MetadataError;
use plinth_store::metadata::{Commit, Kind, RecordKey};
use plinth_store::resources::{CollectionRecord, DeploymentRecord, Desired, FileEntry, KeyRecord, Role, VersionState};
use plinth_types::{Digest, KeyId};
use serde_json::json;

use super::*;
use crate::signing::{Binding, RollbackPermission, SigningKey, sign};
use crate::testing::{MemoryMetadata, MemoryObjects, check};

pub(super) struct Setup {
    pub clock: Arc<ManualClock>,
    pub metadata: Arc<MemoryMetadata>,
    pub objects: Arc<MemoryObjects>,
    pub registry: Registry,
    pub actor: Actor,
    pub model: ModelName,
}

impl Setup {
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_000_000).unwrap()));
        let metadata = Arc::new(MemoryMetadata::default());
        let objects = Arc::new(MemoryObjects::new(clock.clone()));
        let world = World { clock: clock.clone(), random: Arc::new(SeededRandom::new(1)), crash: CrashPoints::none() };
        let registry = Registry::new(metadata.clone(), objects.clone(), world);
        let actor = Actor::new(TenantName::default_tenant(), "key-1");
        Self { clock, metadata, objects, registry, actor, model: "digits".parse().unwrap() }
    }

    pub fn tenant(&self) -> &TenantName {
        &self.actor.tenant
    }

    /// Uploads bytes and lists them as a file.
    pub fn file(&self, path: &str, bytes: &str) -> FileEntry {
        let digest = self.objects.insert(bytes.to_owned());
        FileEntry { path: path.parse().unwrap(), size: bytes.len() as u64, digest }
    }

    pub fn new_version(&self, bytes: &str, aliases: &[&str]) -> NewVersion {
        let aliases = aliases.iter().map(|a| a.parse().unwrap()).collect();
        NewVersion { files: vec![self.file("model.onnx", bytes)], aliases, ..NewVersion::default() }
    }

    pub async fn push(&self, bytes: &str, aliases: &[&str]) -> Result<Pushed> {
        self.registry.create_version(&self.actor, &self.model, self.new_version(bytes, aliases)).await
    }

    pub async fn promote(&self, alias: &str, number: u64) -> Result<Model> {
        let to = MoveAlias { version: n(number), expect: None, permission: None };
        self.registry.move_alias(&self.actor, &self.model, &alias.parse().unwrap(), &to).await
    }

    pub async fn aliases(&self) -> Vec<(String, u64)> {
        let model = self.registry.model(self.tenant(), &self.model).await.unwrap();
        model.record.aliases.iter().map(|(alias, target)| (alias.to_string(), target.version.get())).collect()
    }

    pub async fn collect(&self) -> Result<Garbage> {
        self.registry.collect_garbage(&Actor::system(), CollectGarbage { dry_run: false, older_than: Duration::ZERO }).await
    }

    pub async fn head(&self) -> Revision {
        plinth_store::Metadata::head(&*self.metadata).await.unwrap()
    }

    pub async fn undo(&self, revision: Revision) -> Result<plinth_store::metadata::AuditEntry> {
        self.registry.undo(&self.actor, revision).await
    }

    pub async fn sound(&self) {
        assert_eq!(check(&*self.metadata, &*self.objects).await, Ok(()));
    }
}

pub(super) fn n(number: u64) -> VersionNumber {
    number.try_into().unwrap()
}

fn reason<T>(result: Result<T>) -> Reason {
    result.err().expect("an error").reason()
}

fn pairs(aliases: &[(&str, u64)]) -> Vec<(String, u64)> {
    aliases.iter().map(|(alias, number)| ((*alias).to_owned(), *number)).collect()
}

#[tokio::test]
async fn a_push_makes_the_model_the_version_and_the_deployment() {
    let s = Setup::new();
    let mut changes = s.registry.changes();
    let pushed = s.push("one", &["champion"]).await.unwrap();
    assert_eq!((pushed.outcome, pushed.version.number, pushed.version.size()), (PushOutcome::Created, n(1), 3));
    assert_eq!(pushed.version.aliases, [AliasName::champion()]);
    assert_eq!(s.registry.deployment(s.tenant(), &s.model).await.unwrap(), Some(DeploymentRecord::default()));
    assert_eq!(*changes.borrow_and_update(), Revision(1));
    assert_eq!(s.registry.version(s.tenant(), &s.model, n(1)).await.unwrap(), pushed.version);
    let (file, mut reader) = s.registry.open_file(s.tenant(), &s.model, n(1), &"model.onnx".parse().unwrap()).await.unwrap();
    assert_eq!((file.size, reader.stream.next().await.unwrap().unwrap().as_ref()), (3, b"one".as_slice()));
    assert_eq!(reason(s.registry.open_file(s.tenant(), &s.model, n(1), &"other".parse().unwrap()).await), Reason::RecordNotFound);
    assert_eq!(reason(s.registry.model(&"acme".parse().unwrap(), &s.model).await), Reason::ModelNotFound, "another tenant sees nothing");
    s.sound().await;
}

#[tokio::test]
async fn the_same_content_is_the_same_version() {
    let s = Setup::new();
    s.push("one", &[]).await.unwrap();
    s.push("two", &[]).await.unwrap();
    let head = s.head().await;
    let again = s.push("one", &[]).await.unwrap();
    assert_eq!((again.outcome, again.version.number), (PushOutcome::Existing, n(1)));
    assert_eq!(s.head().await, head, "nothing was committed");
    let moved = s.push("one", &["champion"]).await.unwrap();
    assert_eq!((moved.outcome, moved.version.aliases), (PushOutcome::Existing, vec![AliasName::champion()]));
    let fresh = NewVersion { expect_number: Some(n(3)), ..s.new_version("two", &[]) };
    let fresh = s.registry.create_version(&s.actor, &s.model, fresh).await.unwrap();
    assert_eq!((fresh.outcome, fresh.version.number), (PushOutcome::Created, n(3)));
    s.registry.retire_version(&s.actor, &s.model, n(3)).await.unwrap();
    let old = NewVersion { expect_number: Some(n(2)), ..s.new_version("two", &[]) };
    assert_eq!(s.registry.create_version(&s.actor, &s.model, old).await.unwrap().version.number, n(2), "a repeated push");
    s.registry.retire_version(&s.actor, &s.model, n(2)).await.unwrap();
    assert_eq!(s.push("two", &[]).await.unwrap().version.number, n(4), "retired versions do not count");
    s.sound().await;
}

#[tokio::test]
async fn a_push_that_does_not_hold_together_leaves_nothing() {
    let s = Setup::new();
    let good = s.new_version("one", &[]);
    let absent = FileEntry { digest: Digest::of(b"never uploaded"), ..good.files[0].clone() };
    let resized = FileEntry { size: 4, ..good.files[0].clone() };
    let twice = vec![good.files[0].clone(), good.files[0].clone()];
    let cases = [
        (NewVersion { files: vec![absent], ..good.clone() }, Reason::BlobNotFound),
        (NewVersion { files: vec![resized], ..good.clone() }, Reason::InvalidResource),
        (NewVersion { files: twice, ..good.clone() }, Reason::InvalidResource),
        (NewVersion { files: vec![], ..good.clone() }, Reason::InvalidResource),
        (NewVersion { expect_number: Some(n(2)), ..good.clone() }, Reason::EditConflict),
        (NewVersion { aliases: vec![AliasName::previous()], ..good.clone() }, Reason::InvalidName),
        (NewVersion { description: "x".repeat(20_000), ..good.clone() }, Reason::MalformedRequest),
        (NewVersion { signature: Some("{}".into()), ..good.clone() }, Reason::SignatureInvalid),
    ];
    for (new, expected) in cases {
        assert_eq!(reason(s.registry.create_version(&s.actor, &s.model, new).await), expected);
    }
    assert_eq!(s.head().await, Revision(0));
    assert_eq!(reason(s.registry.model(s.tenant(), &s.model).await), Reason::ModelNotFound);
}

#[tokio::test]
async fn signatures_are_held_against_the_version_when_they_arrive() {
    let s = Setup::new();
    let key = SigningKey::generate(&SeededRandom::new(3));
    let new = s.new_version("one", &[]);
    let bound = |number| Binding { tenant: None, model: s.model.clone(), version: n(number) };
    let signed = |number| Some(sign("digits", &new.files, Some(&bound(number)), &key).unwrap());
    let push = |signature, new: &NewVersion| {
        let new = NewVersion { signature, ..new.clone() };
        s.registry.create_version(&s.actor, &s.model, new)
    };
    assert_eq!(reason(push(signed(2), &new).await), Reason::SignatureInvalid, "it would be 1");
    assert_eq!(reason(push(signed(1), &s.new_version("other", &[])).await), Reason::ContentAltered);
    assert_eq!(push(signed(1), &new).await.unwrap().version.number, n(1));
    assert_eq!(push(signed(1), &new).await.unwrap().outcome, PushOutcome::Existing);
    assert_eq!(push(None, &new).await.unwrap().outcome, PushOutcome::Existing);
    let unbound = sign("digits", &new.files, None, &key).unwrap();
    assert_eq!(reason(push(Some(unbound.clone()), &new).await), Reason::AlreadyExists, "attach it instead");
    assert_eq!(push(signed(2), &new).await.unwrap().version.number, n(2), "signed for another number on purpose");

    let attach = |number, bundle: &str| {
        let bundle = bundle.to_owned();
        let (s, new) = (&s, n(number));
        async move { s.registry.attach_signature(&s.actor, &s.model, new, &bundle).await }
    };
    assert_eq!(reason(attach(1, &signed(2).unwrap()).await), Reason::SignatureInvalid);
    assert_eq!(attach(1, &unbound).await.unwrap().record.signature, Some(unbound));
    s.sound().await;
}

#[tokio::test]
async fn champion_remembers_where_it_came_from() {
    let s = Setup::new();
    for bytes in ["one", "two", "three"] {
        s.push(bytes, &[]).await.unwrap();
    }
    assert_eq!(reason(s.registry.roll_back(&s.actor, &s.model, &RollBack::default()).await), Reason::NothingToRollBack);
    s.promote("champion", 1).await.unwrap();
    assert_eq!(reason(s.registry.roll_back(&s.actor, &s.model, &RollBack::default()).await), Reason::NothingToRollBack);
    s.promote("champion", 3).await.unwrap();
    assert_eq!(s.aliases().await, pairs(&[("champion", 3), ("previous", 1)]));
    let head = s.head().await;
    s.promote("champion", 3).await.unwrap();
    assert_eq!(s.head().await, head, "moving it to where it is changes nothing");
    s.registry.roll_back(&s.actor, &s.model, &RollBack::default()).await.unwrap();
    assert_eq!(s.aliases().await, pairs(&[("champion", 1), ("previous", 3)]));
    s.promote("canary", 2).await.unwrap();
    assert_eq!(s.aliases().await, pairs(&[("canary", 2), ("champion", 1), ("previous", 3)]));

    assert_eq!(reason(s.promote("previous", 2).await), Reason::InvalidName);
    assert_eq!(reason(s.promote("champion", 9).await), Reason::VersionNotFound);
    let stale = MoveAlias { version: n(2), expect: Some(n(3)), permission: None };
    assert_eq!(reason(s.registry.move_alias(&s.actor, &s.model, &AliasName::champion(), &stale).await), Reason::EditConflict);
    s.registry.delete_alias(&s.actor, &s.model, &"canary".parse().unwrap()).await.unwrap();
    s.registry.retire_version(&s.actor, &s.model, n(2)).await.unwrap();
    assert_eq!(reason(s.promote("champion", 2).await), Reason::VersionRetired);
    let actions: Vec<_> = s.registry.audit(s.tenant(), &AuditPage { limit: 5, ..AuditPage::default() }).await.unwrap().items;
    let actions: Vec<_> = actions.iter().map(|e| e.note.action.as_str()).collect();
    assert_eq!(actions, ["version.retire", "alias.delete", "model.promote", "model.rollback", "model.promote"]);
    s.sound().await;
}

#[tokio::test]
async fn a_permission_must_be_for_this_move() {
    let s = Setup::new();
    s.push("one", &["champion"]).await.unwrap();
    s.push("two", &["champion"]).await.unwrap();
    let content = s.registry.version(s.tenant(), &s.model, n(1)).await.unwrap().record.content;
    let permission = RollbackPermission {
        tenant: s.tenant().clone(),
        model: s.model.clone(),
        alias: AliasName::champion(),
        version: n(1),
        content,
        sequence: 1,
        issued_at: Timestamp::from_millis(1).unwrap(),
    };
    let key = SigningKey::generate(&SeededRandom::new(3));
    let other = RollbackPermission { version: n(2), ..permission.clone() }.sign(&key).unwrap();
    let back = |permission| {
        let s = &s;
        async move { s.registry.roll_back(&s.actor, &s.model, &RollBack { permission: Some(permission) }).await }
    };
    assert_eq!(reason(back(other).await), Reason::SignatureInvalid);
    assert_eq!(reason(back("{}".into()).await), Reason::SignatureInvalid);
    let text = permission.sign(&key).unwrap();
    let model = back(text.clone()).await.unwrap();
    assert_eq!(model.record.aliases[&AliasName::champion()].permission, Some(text));
    assert_eq!(model.record.aliases[&AliasName::previous()].permission, None);
}

#[tokio::test]
async fn what_is_in_use_stays() {
    let s = Setup::new();
    for bytes in ["one", "two", "three", "four"] {
        s.push(bytes, &[]).await.unwrap();
    }
    s.promote("champion", 1).await.unwrap();
    s.promote("champion", 2).await.unwrap();
    let pinned = DeploymentRecord { versions: vec![n(3)], ..DeploymentRecord::default() };
    s.registry.set_deployment(&s.actor, &s.model, Some(pinned.clone())).await.unwrap();
    for number in [1, 2, 3] {
        assert_eq!(reason(s.registry.delete_version(&s.actor, &s.model, n(number)).await), Reason::VersionInUse);
        assert_eq!(reason(s.registry.retire_version(&s.actor, &s.model, n(number)).await), Reason::VersionInUse);
    }
    assert_eq!(reason(s.registry.delete_model(&s.actor, &s.model).await), Reason::VersionInUse);
    assert_eq!(reason(s.registry.delete_alias(&s.actor, &s.model, &AliasName::champion()).await), Reason::VersionInUse);
    s.registry.retire_version(&s.actor, &s.model, n(4)).await.unwrap();
    let retired = DeploymentRecord { versions: vec![n(4)], ..pinned };
    assert_eq!(reason(s.registry.set_deployment(&s.actor, &s.model, Some(retired)).await), Reason::VersionRetired);
    s.registry.delete_version(&s.actor, &s.model, n(4)).await.unwrap();
    assert_eq!(s.push("five", &[]).await.unwrap().version.number, n(5), "a number is not used again");

    s.registry.set_desired(&s.actor, &s.model, Desired::Unloaded, None).await.unwrap();
    s.registry.delete_alias(&s.actor, &s.model, &AliasName::champion()).await.unwrap();
    assert_eq!(s.aliases().await, pairs(&[]), "previous goes with champion");
    assert_eq!(reason(s.registry.delete_model(&s.actor, &s.model).await), Reason::VersionInUse, "a version is still kept loaded");
    s.registry.set_deployment(&s.actor, &s.model, None).await.unwrap();
    s.registry.delete_model(&s.actor, &s.model).await.unwrap();
    assert_eq!(reason(s.registry.model(s.tenant(), &s.model).await), Reason::ModelNotFound);
    s.sound().await;
}

#[tokio::test]
async fn a_model_made_anew_goes_on_counting() {
    let s = Setup::new();
    s.push("one", &[]).await.unwrap();
    let first = s.head().await;
    s.push("two", &[]).await.unwrap();
    s.registry.delete_model(&s.actor, &s.model).await.unwrap();
    let deleted = s.head().await;
    assert_eq!(s.push("other", &[]).await.unwrap().version.number, n(3));
    s.registry.delete_model(&s.actor, &s.model).await.unwrap();
    s.sound().await;

    // An old record comes back, and what was counted meanwhile stays counted.
    s.undo(deleted).await.unwrap();
    assert_eq!(s.registry.version(s.tenant(), &s.model, n(2)).await.unwrap().number, n(2));
    assert_eq!(s.push("three", &[]).await.unwrap().version.number, n(4));
    s.registry.delete_model(&s.actor, &s.model).await.unwrap();
    s.registry.apply(&s.actor, &[resource("model", "digits", json!({}))], false).await.unwrap();
    assert_eq!(s.push("four", &[]).await.unwrap().version.number, n(5));
    assert_eq!(reason(s.undo(first).await), Reason::EditConflict);
    s.sound().await;

    // Undoing the push that made a model takes the model away, not the number.
    let s = Setup::new();
    s.push("one", &[]).await.unwrap();
    s.undo(s.head().await).await.unwrap();
    assert_eq!(reason(s.registry.model(s.tenant(), &s.model).await), Reason::ModelNotFound);
    assert_eq!(s.push("two", &[]).await.unwrap().version.number, n(2));
    s.sound().await;
}

#[tokio::test]
async fn loading_again_counts_the_generation() {
    let s = Setup::new();
    s.push("one", &["champion"]).await.unwrap();
    let load = |config: Option<&str>| {
        let (s, config) = (&s, config.map(str::to_owned));
        async move { s.registry.set_desired(&s.actor, &s.model, Desired::Loaded, config).await }
    };
    assert_eq!(load(None).await.unwrap().generation, 1);
    let record = load(Some("{\"max_batch_size\":4}")).await.unwrap();
    assert_eq!((record.generation, record.config_override.as_deref()), (2, Some("{\"max_batch_size\":4}")));
    assert_eq!(load(None).await.unwrap().config_override, None);
    assert_eq!(reason(load(Some("[1]")).await), Reason::InvalidResource);
    let unloaded = s.registry.set_desired(&s.actor, &s.model, Desired::Unloaded, None).await.unwrap();
    assert_eq!((unloaded.desired, unloaded.generation), (Desired::Unloaded, 3));
    s.registry.set_deployment(&s.actor, &s.model, Some(DeploymentRecord::default())).await.unwrap();
    assert_eq!(s.registry.deployment(s.tenant(), &s.model).await.unwrap().unwrap().generation, 3, "it never falls");
    s.sound().await;
}

#[tokio::test]
async fn words_can_be_edited_and_pages_turned() {
    let s = Setup::new();
    for number in 1..=5 {
        s.push(&number.to_string(), &[]).await.unwrap();
    }
    s.registry.delete_version(&s.actor, &s.model, n(4)).await.unwrap();
    let page = |after: Option<&str>, limit| PageQuery { after: after.map(str::to_owned), limit };
    let numbers = |p: &Page<Version>| p.items.iter().map(|v| v.number.get()).collect::<Vec<_>>();
    let first = s.registry.versions(s.tenant(), &s.model, &page(None, 2)).await.unwrap();
    assert_eq!((numbers(&first), first.next.as_deref()), (vec![5, 3], Some("3")));
    let second = s.registry.versions(s.tenant(), &s.model, &page(Some("3"), 2)).await.unwrap();
    assert_eq!((numbers(&second), second.next), (vec![2, 1], None));
    assert_eq!(reason(s.registry.versions(s.tenant(), &s.model, &page(Some("x"), 2)).await), Reason::InvalidName);

    let edit = Edit { description: Some("good".into()), tags: [("a".parse().unwrap(), Some("1".into()))].into() };
    s.registry.edit_version(&s.actor, &s.model, n(5), &edit).await.unwrap();
    let model = s.registry.edit_model(&s.actor, &s.model, &edit).await.unwrap();
    assert_eq!((model.record.description.as_str(), model.record.tags.len()), ("good", 1));
    let removal = Edit { tags: [("a".parse().unwrap(), None)].into(), ..Edit::default() };
    assert!(s.registry.edit_model(&s.actor, &s.model, &removal).await.unwrap().record.tags.is_empty());
    for name in ["a", "b", "c"] {
        let files = s.new_version("x", &[]);
        s.registry.create_version(&s.actor, &name.parse().unwrap(), files).await.unwrap();
    }
    let models = s.registry.models(s.tenant(), &page(Some("a"), 2)).await.unwrap();
    let names: Vec<_> = models.items.iter().map(|m| m.name.as_str()).collect();
    assert_eq!((names, models.next.as_deref()), (vec!["b", "c"], Some("c")));
    s.sound().await;
}

fn resource(kind: &str, name: &str, spec: serde_json::Value) -> ResourceSpec {
    ResourceSpec { kind: kind.into(), name: name.into(), expect: None, spec }
}

#[tokio::test]
async fn applying_is_all_or_nothing_and_repeatable() {
    let s = Setup::new();
    let file = [
        resource("model", "digits", json!({ "description": "reads digits", "tags": { "team": "vision" } })),
        resource("deployment", "digits", json!({ "memory": "64MiB", "threads": 2 })),
        resource("model", "letters", json!(null)),
    ];
    let dry = s.registry.apply(&s.actor, &file, true).await.unwrap();
    assert_eq!((dry.revision, s.head().await), (None, Revision(0)));
    let done = s.registry.apply(&s.actor, &file, false).await.unwrap();
    assert_eq!(done.revision, Some(Revision(1)));
    assert!(done.resources.iter().all(|r| r.outcome == ApplyOutcome::Created));
    let again = s.registry.apply(&s.actor, &file, false).await.unwrap();
    assert_eq!(again.revision, None);
    assert!(again.resources.iter().all(|r| r.outcome == ApplyOutcome::Unchanged));
    s.push("one", &["champion"]).await.unwrap();
    let changed = [file[0].clone(), resource("deployment", "digits", json!({ "versions": [1] }))];
    let outcomes: Vec<_> = s.registry.apply(&s.actor, &changed, false).await.unwrap().resources.iter().map(|r| r.outcome).collect();
    assert_eq!(outcomes, [ApplyOutcome::Unchanged, ApplyOutcome::Changed]);
    s.undo(s.head().await).await.unwrap();
    assert_eq!(s.registry.deployment(s.tenant(), &s.model).await.unwrap().unwrap().threads, Some(2));
    s.sound().await;
}

#[tokio::test]
async fn a_resource_that_is_wrong_names_its_field() {
    let s = Setup::new();
    s.push("one", &[]).await.unwrap();
    let cases = [
        (resource("modle", "x", json!({})), Reason::InvalidResource, "resources[1].kind", "did you mean 'model'?"),
        (resource("model", "a/b", json!({})), Reason::InvalidName, "resources[1].name", ""),
        (resource("model", "digits", json!({})), Reason::InvalidResource, "resources[1].name", "twice"),
        (resource("model", "x", json!([])), Reason::InvalidResource, "resources[1].spec", "object"),
        (
            resource("model", "x", json!({ "descripton": "" })),
            Reason::InvalidResource,
            "resources[1].spec.descripton",
            "did you mean 'description'?",
        ),
        (
            resource("model", "x", json!({ "description": "a\u{0}b" })),
            Reason::MalformedRequest,
            "resources[1].spec.description",
            "control character",
        ),
        (
            resource("deployment", "digits", json!({ "generation": 4 })),
            Reason::InvalidResource,
            "resources[1].spec.generation",
            "cannot be set",
        ),
        (resource("deployment", "digits", json!({ "threads": "many" })), Reason::InvalidResource, "resources[1].spec.threads", ""),
        (resource("deployment", "digits", json!({ "threads": 0 })), Reason::InvalidResource, "resources[1].spec.threads", ""),
        (resource("deployment", "digits", json!({ "versions": [7] })), Reason::VersionNotFound, "resources[1].spec.versions[0]", ""),
        (resource("deployment", "nobody", json!({})), Reason::ModelNotFound, "resources[1].name", ""),
    ];
    for (wrong, expected, field, words) in cases {
        let head = s.head().await;
        let good = resource("model", "digits", json!({ "description": "changed" }));
        let error = s.registry.apply(&s.actor, &[good, wrong.clone()], false).await.unwrap_err();
        assert_eq!((error.reason(), error.field_name()), (expected, Some(field)), "{wrong:?}");
        assert!(error.public_text().contains(words), "{error}");
        assert_eq!(s.head().await, head);
    }
}

#[tokio::test]
async fn every_change_can_be_undone_and_the_undo_too() {
    let s = Setup::new();
    s.push("one", &["champion"]).await.unwrap();
    s.push("two", &["champion"]).await.unwrap();
    let promoted = s.head().await;
    s.undo(promoted).await.unwrap();
    assert_eq!(s.aliases().await, pairs(&[("champion", 1)]));
    assert_eq!(reason(s.registry.version(s.tenant(), &s.model, n(2)).await), Reason::VersionNotFound);
    assert_eq!(s.registry.model(s.tenant(), &s.model).await.unwrap().record.last_version, Some(n(2)), "numbers do not fall");
    assert_eq!(reason(s.undo(promoted).await), Reason::EditConflict, "not twice");
    let entry = s.undo(s.head().await).await.unwrap();
    assert_eq!((entry.note.action.as_str(), entry.note.comment.as_str()), ("undo", "undoes change 3"));
    assert_eq!(s.aliases().await, pairs(&[("champion", 2), ("previous", 1)]));
    s.sound().await;

    // What was changed since is named.
    let edit = Edit { description: Some("x".into()), ..Edit::default() };
    s.registry.edit_model(&s.actor, &s.model, &edit).await.unwrap();
    let error = s.undo(promoted).await.unwrap_err();
    assert!(error.public_text().contains("the model 'digits' has changed since"), "{error}");
    assert_eq!(reason(s.undo(Revision(99)).await), Reason::RecordNotFound);
    let stranger = Actor::new("acme".parse().unwrap(), "k");
    assert_eq!(reason(s.registry.undo(&stranger, promoted).await), Reason::RecordNotFound);
    s.sound().await;
}

#[tokio::test]
async fn an_undo_keeps_the_rules_of_a_direct_change() {
    let s = Setup::new();
    s.push("one", &[]).await.unwrap();
    s.push("two", &[]).await.unwrap();
    s.registry.retire_version(&s.actor, &s.model, n(2)).await.unwrap();
    s.registry.restore_version(&s.actor, &s.model, n(2)).await.unwrap();
    let restored = s.head().await;
    s.promote("champion", 2).await.unwrap();
    let error = s.undo(restored).await.unwrap_err();
    assert!(error.public_text().contains("'champion' of 'digits' would name version 2, which is retired"), "{error}");

    // A deleted version comes back only while its blobs are there.
    s.registry.delete_version(&s.actor, &s.model, n(1)).await.unwrap();
    let deleted = s.head().await;
    s.undo(deleted).await.unwrap();
    s.undo(s.head().await).await.unwrap();
    s.collect().await.unwrap();
    assert_eq!(reason(s.undo(deleted).await), Reason::BlobNotFound);
    s.objects.insert("one");
    s.undo(deleted).await.unwrap();
    let collected = s.registry.audit(s.tenant(), &AuditPage { subject: Some("garbage".into()), ..AuditPage::default() }).await.unwrap();
    assert_eq!(reason(s.undo(collected.items[0].revision).await), Reason::InvalidResource);
    s.sound().await;
}

#[tokio::test]
async fn garbage_is_what_nothing_names_and_what_is_old() {
    let s = Setup::new();
    s.push("one", &[]).await.unwrap();
    s.push("two", &[]).await.unwrap();
    s.registry.retire_version(&s.actor, &s.model, n(1)).await.unwrap();
    let orphan = s.objects.insert("orphan");
    s.clock.advance(Duration::from_secs(3600));
    let young = s.objects.insert("young");
    let request = CollectGarbage { dry_run: true, older_than: Duration::from_secs(60) };
    let dry = s.registry.collect_garbage(&Actor::system(), request).await.unwrap();
    assert_eq!(dry, Garbage { digests: vec![orphan], bytes: 6, kept: 3 });
    assert!(s.registry.has_blob(&orphan).await.unwrap().is_some());
    let done = s.registry.collect_garbage(&Actor::system(), CollectGarbage { dry_run: false, ..request }).await.unwrap();
    assert_eq!(done, dry);
    assert!(s.registry.has_blob(&orphan).await.unwrap().is_none());
    assert!(s.registry.has_blob(&young).await.unwrap().is_some());
    s.sound().await;
    let body = stream::iter([Ok("orphan".into())]).boxed();
    s.registry.put_blob(&orphan, 6, body).await.unwrap();
    assert!(s.registry.has_blob(&orphan).await.unwrap().is_some(), "it may come again");
    // A head that moves under the plan is read again.
    s.metadata.plan(Some(MetadataError::HeadMoved(Revision(9))));
    assert_eq!(s.collect().await.unwrap().digests.len(), 2);
    s.sound().await;
}

/// Leaves a plan as a process does that is killed after phase 1.
async fn leave_plan(s: &Setup, deleting: Vec<Digest>) {
    let key = RecordKey::new(Kind::Collection, TenantName::default_tenant(), "plan");
    let value = serde_json::to_value(CollectionRecord { deleting }).unwrap();
    let change = plinth_store::metadata::Change { key, expect: plinth_store::metadata::Expect::Any, value: Some(value) };
    let note = plinth_store::metadata::AuditNote {
        at: s.registry.now(),
        tenant: TenantName::default_tenant(),
        actor: "system".into(),
        action: "garbage.plan".into(),
        subject: "garbage".into(),
        comment: String::new(),
    };
    let commit = Commit { changes: vec![change], guards: vec![], if_head: None, note };
    plinth_store::Metadata::commit(&*s.metadata, commit).await.unwrap();
}

#[tokio::test]
async fn a_collection_that_was_cut_off_is_finished_by_the_next() {
    let s = Setup::new();
    let new = s.new_version("one", &[]);
    let digest = new.files[0].digest;
    leave_plan(&s, vec![digest]).await;
    // While the plan stands the blob counts as absent, in every way.
    assert!(s.registry.has_blob(&digest).await.unwrap().is_none());
    assert_eq!(reason(s.registry.create_version(&s.actor, &s.model, new.clone()).await), Reason::EditConflict);
    let body = || stream::iter([Ok("one".into())]).boxed();
    assert_eq!(reason(s.registry.put_blob(&digest, 3, body()).await), Reason::EditConflict);
    let dry = CollectGarbage { dry_run: true, older_than: Duration::ZERO };
    s.registry.collect_garbage(&Actor::system(), dry).await.unwrap();
    assert!(s.objects.info(&digest).await.unwrap().is_some(), "a dry run finishes nothing");
    s.collect().await.unwrap();
    assert!(s.objects.info(&digest).await.unwrap().is_none());
    s.registry.put_blob(&digest, 3, body()).await.unwrap();
    s.registry.create_version(&s.actor, &s.model, new).await.unwrap();
    s.sound().await;
}

#[tokio::test]
async fn a_plan_of_another_process_is_left_alone_while_it_may_live() {
    let mut s = Setup::new();
    s.registry = s.registry.takeover_after(Duration::from_secs(600));
    let digest = s.objects.insert("x");
    leave_plan(&s, vec![digest]).await;
    assert_eq!(reason(s.collect().await), Reason::EditConflict);
    s.clock.advance(Duration::from_secs(600));
    s.collect().await.unwrap();
    assert!(s.objects.info(&digest).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn lost_races_are_tried_again_and_failures_are_not() {
    let s = Setup::new();
    let conflict = || Some(MetadataError::Conflict(RecordKey::new(Kind::Model, TenantName::default_tenant(), "digits")));
    for _ in 0..7 {
        s.metadata.plan(conflict());
    }
    s.push("one", &[]).await.unwrap();
    for _ in 0..8 {
        s.metadata.plan(conflict());
    }
    assert_eq!(reason(s.push("two", &[]).await), Reason::EditConflict);
    for (fault, expected) in [
        (MetadataError::Full, Reason::StorageFull),
        (MetadataError::TooNew { found: 9, known: 1 }, Reason::StoreTooNew),
        (MetadataError::Damaged("x".into()), Reason::Internal),
        (MetadataError::Unavailable { operation: "commit", source: "10.0.0.7 refused".into() }, Reason::StoreUnavailable),
    ] {
        s.metadata.plan(Some(fault));
        let error = s.push("two", &[]).await.unwrap_err();
        assert_eq!(error.reason(), expected);
        assert!(!error.public_text().contains("10.0.0.7"));
    }
    s.push("two", &[]).await.unwrap();
    s.sound().await;
}

#[tokio::test]
async fn uploads_fail_with_their_reason() {
    let s = Setup::new();
    let digest = Digest::of(b"one");
    let put = |length, bytes: &'static str| s.registry.put_blob(&digest, length, stream::iter([Ok(bytes.into())]).boxed());
    assert_eq!(reason(put(3, "two").await), Reason::DigestMismatch);
    assert_eq!(reason(put(4, "one").await), Reason::UploadIncomplete);
    let broken = stream::iter([Err(std::io::Error::other("gone"))]).boxed();
    assert_eq!(reason(s.registry.put_blob(&digest, 3, broken).await), Reason::UploadIncomplete);
    assert!(s.registry.has_blob(&digest).await.unwrap().is_none());
    put(3, "one").await.unwrap();
    assert_eq!(s.registry.has_blob(&digest).await.unwrap().unwrap().size, 3);
}

#[tokio::test]
async fn altered_blobs_are_found_by_hashing_again() {
    let s = Setup::new();
    let pushed = s.push("one", &[]).await.unwrap();
    let digest = pushed.version.record.files[0].digest;
    s.registry.rehash_version(s.tenant(), &s.model, n(1)).await.unwrap();
    s.objects.corrupt(&digest, "onE");
    let error = s.registry.rehash_version(s.tenant(), &s.model, n(1)).await.unwrap_err();
    assert_eq!((error.reason(), error.public_text().contains("'model.onnx'")), (Reason::ContentAltered, true));
    assert_eq!(check(&*s.metadata, &*s.objects).await.unwrap_err().len(), 1);
    s.objects.delete(&digest).await.unwrap();
    assert_eq!(reason(s.registry.rehash_version(s.tenant(), &s.model, n(1)).await), Reason::ContentAltered);
}

#[tokio::test]
async fn tenants_and_keys_are_records() {
    let s = Setup::new();
    let acme: TenantName = "acme".parse().unwrap();
    assert!(s.registry.ensure_tenant(&s.actor, &acme, "a customer").await.unwrap());
    assert!(!s.registry.ensure_tenant(&s.actor, &acme, "").await.unwrap());
    let id: KeyId = "k1".parse().unwrap();
    let hash = Digest::of(b"secret");
    let record = KeyRecord {
        secret_hash: hash,
        role: Role::Admin,
        description: String::new(),
        created_at: s.registry.now(),
        expires_at: None,
        models: Vec::new(),
        replaced_by: None,
    };
    s.registry.put_key(&s.actor, &id, &record).await.unwrap();
    assert_eq!(s.registry.key(s.tenant(), &id).await.unwrap(), record);
    assert_eq!(s.registry.keys(s.tenant(), &PageQuery::default()).await.unwrap().items, [(id.clone(), record)]);
    assert_eq!(s.registry.keys(&acme, &PageQuery::default()).await.unwrap().items, []);
    s.registry.delete_key(&s.actor, &id).await.unwrap();
    assert_eq!(reason(s.registry.delete_key(&s.actor, &id).await), Reason::RecordNotFound);
    let audit = s.registry.audit(s.tenant(), &AuditPage::default()).await.unwrap();
    let text = serde_json::to_string(&audit.items).unwrap();
    assert!(text.contains("hidden") && !text.contains(&hash.hex()));
    // Undoing brings back the real hash, not the hidden one.
    s.undo(audit.items[0].revision).await.unwrap();
    assert_eq!(s.registry.key(s.tenant(), &id).await.unwrap().secret_hash, hash);
    assert_eq!(reason(s.undo(Revision(1)).await), Reason::NotPermitted, "a tenant concerns all");
    s.registry.undo(&s.actor.clone().platform(true), Revision(1)).await.unwrap();
    s.sound().await;
}

#[tokio::test]
async fn the_checker_sees_each_kind_of_damage() {
    let s = Setup::new();
    s.push("one", &["champion"]).await.unwrap();
    let damage = [
        (
            Kind::Model,
            "digits",
            json!({ "aliases": { "champion": { "version": 7 } }, "last_version": 9, "created_by": "", "created_at": "1970-01-01T00:00:00.000Z" }),
        ),
        (Kind::FormerModel, "digits", json!({ "last_version": 10 })),
        (Kind::Version, "digits/1", serde_json::Value::Null),
        (Kind::Deployment, "ghost", json!({})),
        (Kind::Collection, "plan", json!({ "deleting": [Digest::of(b"one")] })),
        (Kind::Model, "digits", json!({ "nonsense": 1 })),
    ];
    for (kind, name, value) in damage {
        let s = Setup::new();
        s.push("one", &["champion"]).await.unwrap();
        let key = RecordKey::new(kind, TenantName::default_tenant(), name);
        let value = if value.is_null() { None } else { Some(value) };
        let change = plinth_store::metadata::Change { key, expect: plinth_store::metadata::Expect::Any, value };
        let note = s.registry.full_entry(s.tenant(), Revision(1)).await.unwrap().note;
        let commit = Commit { changes: vec![change], guards: vec![], if_head: None, note };
        plinth_store::Metadata::commit(&*s.metadata, commit).await.unwrap();
        assert!(check(&*s.metadata, &*s.objects).await.is_err(), "{} {name}", kind.as_str());
    }
    let version = s.registry.version(s.tenant(), &s.model, n(1)).await.unwrap();
    assert_eq!(version.record.state, VersionState::Active);
}
