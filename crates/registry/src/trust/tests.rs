//! Who may be loaded: signatures, bindings, and versions below the floor.

use plinth_runtime::SeededRandom;
use plinth_store::resources::{FileEntry, VersionState};
use plinth_types::{Digest, Timestamp};

use super::*;
use crate::signing::{Binding, SigningKey, sign};

fn key(seed: u64) -> SigningKey {
    SigningKey::generate(&SeededRandom::new(seed))
}

fn number(n: u64) -> VersionNumber {
    n.try_into().unwrap()
}

fn record(n: u64) -> VersionRecord {
    let bytes = n.to_le_bytes();
    let files = vec![FileEntry { path: "model.onnx".parse().unwrap(), size: 8, digest: Digest::of(&bytes) }];
    VersionRecord {
        content: content_digest(&files),
        files,
        signature: None,
        state: VersionState::Active,
        description: String::new(),
        tags: Default::default(),
        created_by: "t".into(),
        created_at: Timestamp::from_millis(0).unwrap(),
    }
}

struct Case {
    tenant: TenantName,
    model: ModelName,
    alias: AliasName,
}

impl Case {
    fn new() -> Self {
        Self { tenant: TenantName::default_tenant(), model: "digits".parse().unwrap(), alias: AliasName::champion() }
    }

    fn binding(&self, n: u64) -> Binding {
        Binding { tenant: Some(self.tenant.clone()), model: self.model.clone(), version: number(n) }
    }

    /// Version `n`, signed by a key for the number it has.
    fn signed(&self, n: u64, key: &SigningKey) -> VersionRecord {
        self.signed_as(n, Some(&self.binding(n)), key)
    }

    fn signed_as(&self, n: u64, binding: Option<&Binding>, key: &SigningKey) -> VersionRecord {
        let mut record = record(n);
        record.signature = Some(sign("digits", &record.files, binding, key).unwrap());
        record
    }

    fn judge(&self, policy: &TrustPolicy, n: u64, record: &VersionRecord, permission: Option<&str>, floor: Floor) -> Result<Verdict> {
        let facts = VersionFacts {
            tenant: &self.tenant,
            model: &self.model,
            number: number(n),
            record,
            alias: &self.alias,
            alias_permission: permission,
        };
        policy.judge(&facts, floor)
    }

    fn permission(&self, n: u64, sequence: u64, change: impl FnOnce(&mut RollbackPermission), key: &SigningKey) -> String {
        let mut permission = RollbackPermission {
            tenant: self.tenant.clone(),
            model: self.model.clone(),
            alias: self.alias.clone(),
            version: number(n),
            content: record(n).content,
            sequence,
            issued_at: Timestamp::from_millis(sequence).unwrap(),
        };
        change(&mut permission);
        permission.sign(key).unwrap()
    }
}

fn strict() -> TrustPolicy {
    TrustPolicy { require_signature: true, trusted: vec![key(1).public()], accept_unbound: false }
}

fn floor(n: u64, sequence: u64) -> Floor {
    Floor { version: Some(number(n)), permission_sequence: sequence, ..Floor::default() }
}

#[test]
fn a_strict_node_loads_only_what_a_trusted_key_signed_for_this_place() {
    let case = Case::new();
    let none = Floor::default();
    let good = case.signed(2, &key(1));
    let verdict = case.judge(&strict(), 2, &good, None, none).unwrap();
    assert_eq!((verdict.signed, verdict.signer.as_deref(), verdict.floor), (true, Some(key(1).public().fingerprint()), floor(2, 0)));

    let reason = |n, record: &VersionRecord| case.judge(&strict(), n, record, None, none).unwrap_err().reason();
    assert_eq!(reason(2, &record(2)), Reason::SignatureMissing);
    assert_eq!(reason(2, &case.signed(2, &key(9))), Reason::SignerNotTrusted);
    assert_eq!(reason(3, &good), Reason::SignatureInvalid, "signed for 2, presented as 3");
    assert_eq!(reason(2, &case.signed_as(2, None, &key(1))), Reason::SignatureInvalid, "for no version in particular");
    let elsewhere = Binding { tenant: Some("acme".parse().unwrap()), ..case.binding(2) };
    assert_eq!(reason(2, &case.signed_as(2, Some(&elsewhere), &key(1))), Reason::SignatureInvalid);
    let other_model = Binding { model: "letters".parse().unwrap(), ..case.binding(2) };
    assert_eq!(reason(2, &case.signed_as(2, Some(&other_model), &key(1))), Reason::SignatureInvalid);
    assert_eq!(reason(2, &VersionRecord { signature: Some("{}".into()), ..record(2) }), Reason::SignatureInvalid);

    let mut altered = good.clone();
    altered.files[0].digest = Digest::of(b"poison");
    assert_eq!(reason(2, &altered), Reason::ContentAltered, "the record contradicts itself");
    altered.content = content_digest(&altered.files);
    assert_eq!(reason(2, &altered), Reason::ContentAltered, "the record contradicts the signature");
    let mut extra = good.clone();
    extra.files.push(FileEntry { path: "model.sig".parse().unwrap(), size: 1, digest: Digest::of(b"s") });
    extra.content = content_digest(&extra.files);
    assert_eq!(reason(2, &extra), Reason::ContentAltered, "an unsigned file may not come along");
}

#[test]
fn unbound_signatures_pass_only_where_they_are_accepted() {
    let case = Case::new();
    let lenient = TrustPolicy { accept_unbound: true, ..strict() };
    let unbound = case.signed_as(2, None, &key(1));
    assert!(case.judge(&lenient, 2, &unbound, None, Floor::default()).is_ok());
    assert!(case.judge(&lenient, 5, &unbound, None, Floor::default()).is_ok());
    // Also then a git file that the statement leaves out may not come along.
    let mut extra = unbound.clone();
    extra.files.push(FileEntry { path: ".gitattributes".parse().unwrap(), size: 1, digest: Digest::of(b"g") });
    extra.content = content_digest(&extra.files);
    assert_eq!(case.judge(&lenient, 2, &extra, None, Floor::default()).unwrap_err().reason(), Reason::ContentAltered);
}

#[test]
fn going_back_needs_a_permission_and_each_permission_counts_once() {
    let case = Case::new();
    let one = case.signed(1, &key(1));
    let judge =
        |permission: Option<&str>, at: Floor| case.judge(&strict(), 1, &one, permission, at).map(|v| v.floor).map_err(|e| e.reason());
    let refused = Err(Reason::DowngradeRefused);
    assert_eq!(judge(None, floor(1, 0)), Ok(floor(1, 0)), "the same version again");
    assert_eq!(judge(None, floor(3, 0)), refused);
    let permission = case.permission(1, 7, |_| (), &key(1));
    assert_eq!(judge(Some(&permission), floor(3, 0)), Ok(floor(1, 7)));
    assert_eq!(judge(Some(&permission), floor(1, 7)), Ok(floor(1, 7)), "after a restart");
    assert_eq!(judge(Some(&permission), floor(3, 7)), refused, "after 3 served again the old permission is used up");
    assert_eq!(judge(Some(&permission), floor(3, 8)), refused);

    let changes: [fn(&mut RollbackPermission); 5] = [
        |p| p.tenant = "acme".parse().unwrap(),
        |p| p.model = "letters".parse().unwrap(),
        |p| p.alias = "canary".parse().unwrap(),
        |p| p.version = number(2),
        |p| p.content = Digest::of(b"other"),
    ];
    for change in changes {
        assert_eq!(judge(Some(&case.permission(1, 9, change, &key(1))), floor(3, 0)), refused);
    }
    assert_eq!(judge(Some(&case.permission(1, 9, |_| (), &key(2))), floor(3, 0)), refused, "by a key that is not trusted");
    assert_eq!(judge(Some("{}"), floor(3, 0)), refused);
    // A permission does not replace the signature.
    let unsigned = case.judge(&strict(), 1, &record(1), Some(&permission), floor(3, 0));
    assert_eq!(unsigned.unwrap_err().reason(), Reason::SignatureMissing);
}

#[test]
fn a_lenient_node_serves_all_and_reports_what_is_wrong() {
    let case = Case::new();
    let policy = TrustPolicy { trusted: vec![key(1).public()], ..TrustPolicy::default() };
    let verdict = case.judge(&policy, 1, &record(1), None, floor(3, 0)).unwrap();
    assert_eq!((verdict.signed, verdict.doubt, verdict.floor), (false, None, floor(3, 0)));
    let verdict = case.judge(&policy, 2, &case.signed(2, &key(9)), None, Floor::default()).unwrap();
    assert_eq!((verdict.signed, verdict.signer, verdict.doubt.map(|d| d.reason)), (true, None, Some(Reason::SignerNotTrusted)));
    let mut altered = case.signed(2, &key(1));
    altered.files[0].digest = Digest::of(b"poison");
    assert_eq!(case.judge(&policy, 2, &altered, None, Floor::default()).unwrap_err().reason(), Reason::ContentAltered);
}
