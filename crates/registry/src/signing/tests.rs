//! Signatures: what is signed verifies, and whatever is changed afterwards does not.

use plinth_runtime::{SeededRandom, SystemRandom};
use plinth_types::{AliasName, Digest, Timestamp};
use proptest::prelude::*;

use super::*;

fn key(seed: u64) -> SigningKey {
    SigningKey::generate(&SeededRandom::new(seed))
}

fn file(path: &str, bytes: &[u8]) -> FileEntry {
    FileEntry { path: path.parse().unwrap(), size: bytes.len() as u64, digest: Digest::of(bytes) }
}

fn files() -> Vec<FileEntry> {
    vec![file("model.onnx", b"weights"), file("a-b", b"1"), file("a/b", b"2"), file("config.pbtxt", b"x")]
}

fn binding() -> Binding {
    Binding { tenant: Some(TenantName::default_tenant()), model: "digits".parse().unwrap(), version: "3".parse().unwrap() }
}

fn reason<T: std::fmt::Debug>(result: Result<T>) -> Reason {
    result.unwrap_err().reason()
}

#[test]
fn what_is_signed_verifies_and_says_for_which_version() {
    let key = key(1);
    let bundle = sign("digits", &files(), Some(&binding()), &key).unwrap();
    let mut shuffled = files();
    shuffled.reverse();
    let verified = verify(&bundle, &shuffled, &[super::tests::key(2).public(), key.public()]).unwrap();
    assert_eq!(verified, Verified { signer: key.public().fingerprint().into(), binding: Some(binding()), unlisted: vec![] });
    assert_eq!(inspect(&bundle, &shuffled).unwrap().claimed_signer.as_deref(), Some(key.public().fingerprint()));
    let unbound = sign("digits", &files(), None, &key).unwrap();
    assert_eq!(verify(&unbound, &files(), &[key.public()]).unwrap().binding, None);
}

#[test]
fn each_failure_has_its_own_reason() {
    let key = key(1);
    let bundle = sign("digits", &files(), Some(&binding()), &key).unwrap();
    let trusted = [key.public()];
    assert_eq!(reason(verify(&bundle, &files(), &[super::tests::key(2).public()])), Reason::SignerNotTrusted);
    assert_eq!(reason(verify(&bundle, &files(), &[])), Reason::SignerNotTrusted);
    for text in ["", "{}", "[]", "null", "not json", &bundle[..bundle.len() / 2]] {
        assert_eq!(reason(verify(text, &files(), &trusted)), Reason::SignatureInvalid, "{text}");
    }
    let newer = bundle.replace("bundle.v0.3+json", "bundle.v0.9+json");
    assert_eq!(reason(verify(&newer, &files(), &trusted)), Reason::SignatureInvalid);

    let mut changed = files();
    changed[0].digest = Digest::of(b"poisoned");
    let error = verify(&bundle, &changed, &trusted).unwrap_err();
    assert_eq!((error.reason(), error.public_text().contains("'model.onnx'")), (Reason::ContentAltered, true));
    let mut missing = files();
    missing.remove(1);
    let error = verify(&bundle, &missing, &trusted).unwrap_err();
    assert_eq!((error.reason(), error.public_text().contains("'a-b'")), (Reason::ContentAltered, true));
    let mut extra = files();
    extra.push(file("payload.so", b"!"));
    let error = verify(&bundle, &extra, &trusted).unwrap_err();
    assert_eq!((error.reason(), error.public_text().contains("'payload.so'")), (Reason::ContentAltered, true));
    let mut resized = files();
    resized[0].size += 1;
    assert_eq!(reason(verify(&bundle, &resized, &trusted)), Reason::SignatureInvalid);
}

#[test]
fn the_root_digest_alone_is_not_enough_names_count() {
    let key = key(1);
    let bundle = sign("m", &[file("a", b"1"), file("b", b"2")], None, &key).unwrap();
    let renamed = [file("a", b"1"), file("c", b"2")];
    assert_eq!(reason(verify(&bundle, &renamed, &[key.public()])), Reason::ContentAltered);
}

#[test]
fn only_the_signature_and_git_files_may_stay_unsigned() {
    let key = key(1);
    let bundle = sign("m", &files(), None, &key).unwrap();
    let mut beside = files();
    beside.extend([file("model.sig", b"s"), file(".git/config", b"c"), file(".gitignore", b"i")]);
    let verified = verify(&bundle, &beside, &[key.public()]).unwrap();
    assert_eq!(verified.unlisted.len(), 3);
    assert_eq!(reason(cover_everything(&verified.unlisted)), Reason::ContentAltered);
    for name in ["sub/model.sig", "model.sig/x", ".gitx", "sub/.git/x", "model.sig2"] {
        let mut hidden = files();
        hidden.push(file(name, b"x"));
        assert_eq!(reason(verify(&bundle, &hidden, &[key.public()])), Reason::ContentAltered, "{name}");
    }
    // A file of git that is signed must be there, and must be the signed one.
    let mut with_git = files();
    with_git.push(file(".gitattributes", b"g"));
    let bundle = sign("m", &with_git, None, &key).unwrap();
    assert!(verify(&bundle, &with_git, &[key.public()]).unwrap().unlisted.is_empty());
    assert_eq!(reason(verify(&bundle, &files(), &[key.public()])), Reason::ContentAltered);
}

/// Signs a statement after a change to its JSON, as a careless or hostile holder of a trusted key could.
fn signed_statement(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut value = serde_json::to_value(Statement::new("m", &files(), Some(&binding()), None)).unwrap();
    change(&mut value);
    let envelope = Envelope::sign(statement::PAYLOAD_TYPE, value.to_string().as_bytes(), &key(1), "");
    Bundle::new(&key(1).public(), envelope).to_json().unwrap()
}

#[test]
fn statements_that_plinth_does_not_read_are_refused_though_well_signed() {
    type Change = fn(&mut serde_json::Value);
    let changes: [(&str, Change); 12] = [
        ("shards", |s| s["predicate"]["serialization"]["method"] = "shards".into()),
        ("blake3", |s| s["predicate"]["serialization"]["hash_type"] = "blake3".into()),
        ("algorithm", |s| s["predicate"]["resources"][0]["algorithm"] = "blake3".into()),
        ("old layout", |s| s["predicateType"] = statement::PREDICATE_TYPE_OLD.into()),
        ("other predicate", |s| s["predicateType"] = "https://slsa.dev/provenance/v1".into()),
        ("other type", |s| s["_type"] = "https://in-toto.io/Statement/v0.1".into()),
        ("root", |s| s["subject"][0]["digest"]["sha256"] = Digest::of(b"").hex().into()),
        ("two subjects", |s| s["subject"] = vec![s["subject"][0].clone(), s["subject"][0].clone()].into()),
        ("escape", |s| s["predicate"]["resources"][0]["name"] = "../../x".into()),
        ("twice", |s| s["predicate"]["resources"][1]["name"] = s["predicate"]["resources"][0]["name"].clone()),
        ("future field of ours", |s| s["predicate"]["plinth"]["not_after"] = "2030".into()),
        ("content", |s| s["predicate"]["plinth"]["content"] = Digest::of(b"other").to_string().into()),
    ];
    for (name, change) in changes {
        let bundle = signed_statement(change);
        assert_eq!(reason(verify(&bundle, &files(), &[key(1).public()])), Reason::SignatureInvalid, "{name}");
    }
    // Fields of others are ignored, as the specification asks.
    let bundle = signed_statement(|s| s["predicate"]["model_card"] = serde_json::json!({ "license": "x" }));
    verify(&bundle, &files(), &[key(1).public()]).unwrap();
    // A statement cannot hide a file from the comparison by asking to ignore it.
    let bundle = signed_statement(|s| s["predicate"]["serialization"]["ignore_paths"] = vec!["weights.bin", ".", ""].into());
    let mut hidden = files();
    hidden.push(file("weights.bin", b"x"));
    assert_eq!(reason(verify(&bundle, &hidden, &[key(1).public()])), Reason::ContentAltered);
}

#[test]
fn a_signature_for_another_version_says_so() {
    let error = binding().must_name(&TenantName::default_tenant(), &"digits".parse().unwrap(), "1".parse().unwrap()).unwrap_err();
    assert_eq!(error.reason(), Reason::SignatureInvalid);
    assert!(error.public_text().starts_with("signed as default/digits/3, presented as default/digits/1"));
}

#[test]
fn keys_round_trip_and_show_nothing() {
    let key = SigningKey::generate(&SystemRandom);
    let pem = key.to_pem().unwrap();
    assert_eq!(SigningKey::from_pem(&pem, None).unwrap().public(), key.public());
    let public = PublicKey::from_pem(&format!("\n{}\n", key.public().to_pem().replace('\n', "\r\n"))).unwrap();
    assert_eq!(public, key.public());
    assert_eq!(public.fingerprint(), Digest::of(public.to_pem().as_bytes()).hex());
    assert!(!format!("{key:?}").contains(pem.lines().nth(1).unwrap()));
    for bad in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", public.to_pem()] {
        assert_eq!(reason(SigningKey::from_pem(bad, None)), Reason::MalformedRequest);
    }
    assert_eq!(reason(PublicKey::from_pem(&pem)), Reason::MalformedRequest);
}

#[test]
fn a_passphrase_locks_a_key() {
    let key = key(5);
    let pem = key.to_encrypted_pem("open sesame", &SystemRandom).unwrap();
    assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    assert_eq!(SigningKey::from_pem(&pem, Some("open sesame")).unwrap().public(), key.public());
    assert_eq!(reason(SigningKey::from_pem(&pem, Some("sesame"))), Reason::MalformedRequest);
    assert!(SigningKey::from_pem(&pem, None).unwrap_err().public_text().contains("passphrase"));
}

#[test]
fn a_permission_is_for_one_place_and_by_one_key() {
    let permission = RollbackPermission {
        tenant: TenantName::default_tenant(),
        model: "digits".parse().unwrap(),
        alias: AliasName::champion(),
        version: "1".parse().unwrap(),
        content: Digest::of(b"1"),
        sequence: 7,
        issued_at: Timestamp::from_millis(7).unwrap(),
    };
    let text = permission.sign(&key(1)).unwrap();
    assert_eq!(RollbackPermission::verify(&text, &[key(1).public()]).unwrap(), (permission.clone(), key(1).public().fingerprint().into()));
    assert_eq!(RollbackPermission::inspect(&text).unwrap(), permission);
    assert_eq!(reason(RollbackPermission::verify(&text, &[key(2).public()])), Reason::SignerNotTrusted);
    for (at, byte) in text.bytes().enumerate() {
        let mut flipped = text.clone().into_bytes();
        flipped[at] = byte ^ 1;
        if let Ok(flipped) = String::from_utf8(flipped) {
            assert!(RollbackPermission::verify(&flipped, &[key(1).public()]).is_err(), "byte {at}");
        }
    }
    // A signature over a version is not a permission, and the other way round.
    let bundle = sign("digits", &files(), None, &key(1)).unwrap();
    assert_eq!(reason(RollbackPermission::verify(&bundle, &[key(1).public()])), Reason::SignatureInvalid);
    assert_eq!(reason(verify(&text, &files(), &[key(1).public()])), Reason::SignatureInvalid);
}

#[test]
fn no_single_flipped_bit_is_ever_accepted() {
    let (key, files) = (key(1), [file("m", b"w")]);
    let bundle = sign("m", &files, Some(&binding()), &key).unwrap();
    let trusted = [key.public()];
    for at in 0..bundle.len() {
        for bit in 0..8 {
            let mut flipped = bundle.clone().into_bytes();
            flipped[at] ^= 1 << bit;
            if let Ok(flipped) = String::from_utf8(flipped) {
                assert!(verify(&flipped, &files, &trusted).is_err(), "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn the_limits_hold() {
    let many: Vec<_> = (0..=MAX_RESOURCES).map(|n| file(&format!("f{n}"), b"")).collect();
    assert_eq!(reason(sign("m", &many, None, &key(1))), Reason::InvalidResource);
    assert_eq!(reason(sign("m", &[], None, &key(1))), Reason::InvalidResource);
    assert!(sign("m", &many[1..], None, &key(1)).is_ok());
    assert_eq!(reason(verify(&" ".repeat(MAX_BUNDLE_BYTES + 1), &many, &[])), Reason::SignatureInvalid);
    let deep = "[".repeat(100_000);
    assert_eq!(reason(verify(&deep, &many, &[])), Reason::SignatureInvalid);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is done to the text: no panic, and what is still accepted is the same JSON.
    #[test]
    fn a_mangled_bundle_is_refused(cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..4, any::<u8>()), 1..4)) {
        let (key, files) = (key(1), files());
        let original = sign("m", &files, Some(&binding()), &key).unwrap();
        let mut bytes = original.clone().into_bytes();
        for (a, b, what, byte) in cuts {
            let (a, b) = (a.index(bytes.len()), b.index(bytes.len()));
            match what {
                0 => bytes[a] = byte,
                1 => bytes.insert(a, byte),
                2 => drop(bytes.drain(a.min(b)..a.max(b)).count()),
                _ => { let piece = bytes[a.min(b)..a.max(b)].to_vec(); bytes.splice(a..a, piece); }
            }
            if bytes.is_empty() { bytes.push(b' '); }
        }
        let text = String::from_utf8_lossy(&bytes);
        if verify(&text, &files, &[key.public()]).is_ok() {
            let parse = |t: &str| serde_json::from_str::<serde_json::Value>(t).unwrap();
            prop_assert_eq!(parse(&text), parse(&original));
        }
        let _ = RollbackPermission::verify(&text, &[key.public()]);
    }

    #[test]
    fn statements_are_total(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Statement::parse(&payload);
    }
}
