//! Tokens that are good, tokens that are hostile, and providers that turn their keys, hang or are away.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plinth_runtime::{Clock, CrashPoints, ManualClock, SystemRandom, TaskGroup, World};
use plinth_store::resources::Role;
use plinth_store::resources::gateway::IssuerRecord;
use plinth_types::{Reason, TenantName, Timestamp};
use serde_json::{Value, json};

use super::testing::{ISSUER, JWKS, Memory, PlainHttp, Provider, Signer, claims, document, record, serve};
use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000).unwrap()
}

/// Tokens of one issuer, on a clock that the test moves.
struct Setup {
    tokens: Tokens,
    provider: Arc<Provider>,
    store: Arc<Memory>,
    clock: Arc<ManualClock>,
    tasks: TaskGroup,
}

impl Setup {
    /// With the keys of `signers` fetched.
    async fn new(signers: &[&Signer], record: IssuerRecord) -> Self {
        let setup = Self::bare(Arc::default(), Arc::default(), at(1000));
        setup.provider.publish(JWKS, document(signers));
        setup.follow(record).await;
        setup
    }

    fn bare(provider: Arc<Provider>, store: Arc<Memory>, start: Timestamp) -> Self {
        let (clock, tasks) = (Arc::new(ManualClock::new(start)), TaskGroup::new("test"));
        let world = World { clock: clock.clone(), random: Arc::new(SystemRandom), crash: CrashPoints::none() };
        let parts = TokensParts { fetch: provider.clone(), store: store.clone(), world };
        Self { tokens: Tokens::start(parts, &tasks), provider, store, clock, tasks }
    }

    async fn follow(&self, record: IssuerRecord) {
        self.tokens.follow(&BTreeMap::from([("corp".parse().unwrap(), Arc::new(record))]));
        self.settle().await;
    }

    /// Lets the questions end that are under way; blocking threads take part.
    async fn settle(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
            if self.tasks.len() == 1 {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    async fn verify(&self, token: &str) -> Result<Arc<Verified>, Reason> {
        self.tokens.verify(token, self.clock.now()).await.map_err(|error| error.reason())
    }

    /// Moves both clocks, and lets the steady pace do its work.
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        tokio::time::advance(Duration::from_secs(6)).await;
        self.settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_algorithm_is_verified_and_claims_become_tenant_role_and_user() {
    let (rsa, p256, p384, ed) = (Signer::rsa("r"), Signer::p256("e"), Signer::p384("f"), Signer::ed25519("d"));
    let setup = Setup::new(&[&rsa, &p256, &p384, &ed], record()).await;
    let by_rsa = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].map(|algorithm| (&rsa, algorithm));
    for (signer, algorithm) in by_rsa.into_iter().chain([(&p256, "ES256"), (&p384, "ES384"), (&ed, "EdDSA")]) {
        let found = setup.verify(&signer.good(algorithm, &claims())).await.unwrap_or_else(|reason| panic!("{algorithm}: {reason}"));
        assert_eq!((found.tenant.as_str(), found.role, &*found.subject), ("acme", Role::Operator, "corp/alice"));
    }
    let mut other = claims();
    other["sub"] = "bob".into();
    other["aud"] = json!(["x", "plinth-2"]);
    other["realm"] = json!({"roles": "ml-users nonsense"});
    let (alice, bob) = (setup.verify(&rsa.good("RS256", &claims())).await.unwrap(), setup.verify(&ed.good("EdDSA", &other)).await.unwrap());
    assert_eq!(bob.role, Role::Developer);
    assert_ne!(alice.user, bob.user);
    assert_eq!(setup.provider.asked(), 1);
}

/// What must not pass: a name, and the token.
fn hostile(rsa: &Signer, ed: &Signer, stranger: &Signer) -> Vec<(&'static str, String)> {
    let header = |alg: &str| json!({"alg": alg, "kid": "r"});
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = claims();
        change(&mut changed);
        changed
    };
    let signed = |change: &dyn Fn(&mut Value)| rsa.good("RS256", &with(change));
    let headed = |change: &dyn Fn(&mut Value)| {
        let mut changed = header("RS256");
        change(&mut changed);
        rsa.token(&changed, &claims())
    };
    let good = rsa.good("RS256", &claims());
    let parts: Vec<_> = good.split('.').collect();
    let public = document(&[rsa]);
    let hmac = |key: &[u8]| {
        let text = format!("{}.{}", base64url::encode(header("HS256").to_string().as_bytes()), parts[1]);
        let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), text.as_bytes());
        format!("{text}.{}", base64url::encode(tag.as_ref()))
    };
    let none = |alg: &str| format!("{}.{}.", base64url::encode(header(alg).to_string().as_bytes()), parts[1]);
    let other_claims = base64url::encode(with(&|c| c["sub"] = "root".into()).to_string().as_bytes());
    let mut bent = rsa.sign("RS256", format!("{}.{}", parts[0], parts[1]).as_bytes());
    bent[7] ^= 1;
    vec![
        ("alg none", none("none")),
        ("alg None", none("None")),
        ("alg empty", none("")),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("HS256 with the public key's document", hmac(public.as_bytes())),
        ("HS256 with an empty key", hmac(b"")),
        ("ES256 with an RSA key", rsa.token(&header("ES256"), &claims())),
        ("PS256 said, PKCS#1 signed", {
            let text = format!("{}.{}", base64url::encode(header("PS256").to_string().as_bytes()), parts[1]);
            format!("{text}.{}", base64url::encode(&rsa.sign("RS256", text.as_bytes())))
        }),
        ("another key under the same name", stranger.token(&json!({"alg": "EdDSA", "kid": "d"}), &claims())),
        ("a key that is not known", stranger.token(&json!({"alg": "EdDSA", "kid": "s"}), &claims())),
        ("a path for a name", headed(&|h| h["kid"] = "../../../etc/passwd".into())),
        ("a name of 300 characters", headed(&|h| h["kid"] = "k".repeat(300).into())),
        ("a name that is a number", headed(&|h| h["kid"] = 1.into())),
        ("no name among several keys that fit", ed.token(&json!({"alg": "RS256"}), &claims())),
        ("a key of its own in the header", stranger.token(&json!({"alg": "EdDSA", "jwk": stranger.jwk()}), &claims())),
        ("an address of keys in the header", headed(&|h| *h = json!({"alg": "EdDSA", "jku": "http://169.254.169.254/", "kid": "x"}))),
        ("a critical extension", headed(&|h| h["crit"] = json!(["b64"]))),
        ("an encoded payload that is none", headed(&|h| h["b64"] = false.into())),
        ("encryption", headed(&|h| h["enc"] = "A256GCM".into())),
        ("a logout token", headed(&|h| h["typ"] = "logout+jwt".into())),
        ("other claims under the signature", format!("{}.{other_claims}.{}", parts[0], parts[2])),
        ("a bent signature", format!("{}.{}.{}", parts[0], parts[1], base64url::encode(&bent))),
        ("a short signature", format!("{}.{}.AAAA", parts[0], parts[1])),
        ("another issuer", signed(&|c| c["iss"] = "https://evil.example".into())),
        ("no issuer", signed(&|c| drop(c.as_object_mut().unwrap().remove("iss")))),
        ("another audience", signed(&|c| c["aud"] = "other".into())),
        ("no audience", signed(&|c| drop(c.as_object_mut().unwrap().remove("aud")))),
        ("an audience that is an object", signed(&|c| c["aud"] = json!({"plinth": true}))),
        ("expired", signed(&|c| c["exp"] = 939.into())),
        ("no end", signed(&|c| drop(c.as_object_mut().unwrap().remove("exp")))),
        ("an end in words", signed(&|c| c["exp"] = "never".into())),
        ("not yet", signed(&|c| c["nbf"] = 1062.into())),
        ("issued tomorrow", signed(&|c| c["iat"] = 90_000.into())),
        ("no subject", signed(&|c| drop(c.as_object_mut().unwrap().remove("sub")))),
        ("an empty subject", signed(&|c| c["sub"] = "".into())),
        ("a subject with a line feed", signed(&|c| c["sub"] = "a\nkey:1".into())),
        ("no tenant", signed(&|c| drop(c.as_object_mut().unwrap().remove("org")))),
        ("a path for a tenant", signed(&|c| c["org"] = "../acme".into())),
        ("a list for a tenant", signed(&|c| c["org"] = json!(["acme"]))),
        ("the default tenant by claim", signed(&|c| c["org"] = "default".into())),
        ("no role that is known", signed(&|c| c["realm"] = json!({"roles": ["admin"]}))),
        ("too long", signed(&|c| c["more"] = "x".repeat(9000).into())),
        ("four parts", format!("{good}.x")),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("padding", format!("{}=.{}.{}", parts[0], parts[1], parts[2])),
        ("a space", format!("{} .{}.{}", parts[0], parts[1], parts[2])),
        ("dots alone", "..".to_owned()),
        ("a header that is a list", format!("W10.{}.{}", parts[1], parts[2])),
        ("two algorithms", {
            let header = base64url::encode(br#"{"alg":"none","alg":"RS256","kid":"r"}"#);
            let text = format!("{header}.{}", parts[1]);
            format!("{text}.{}", base64url::encode(&rsa.sign("RS256", text.as_bytes())))
        }),
    ]
}

#[tokio::test(start_paused = true)]
async fn hostile_tokens_are_refused_with_one_text() {
    let (rsa, ed, p256, stranger) = (Signer::rsa("r"), Signer::ed25519("d"), Signer::p256("e"), Signer::ed25519("d"));
    // Twice the same RSA key, so that two keys fit a token that names none.
    let again = Signer::rsa("r2");
    let setup = Setup::new(&[&rsa, &again, &ed, &p256], record()).await;
    setup.verify(&rsa.good("RS256", &claims())).await.unwrap();
    let mut texts = std::collections::BTreeSet::new();
    let table = hostile(&rsa, &ed, &stranger);
    assert!(table.len() > 40);
    for (name, token) in table {
        let error = setup.tokens.verify(&token, setup.clock.now()).await.err().unwrap_or_else(|| panic!("{name} passed"));
        assert_eq!(error.reason(), Reason::CredentialsInvalid, "{name}: {error}");
        texts.insert(error.to_string());
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    // The end has a leeway of a minute, and not more.
    let short = |end: u64| {
        let mut claims = claims();
        claims["exp"] = end.into();
        rsa.good("RS256", &claims)
    };
    assert!(setup.verify(&short(941)).await.is_ok() && setup.verify(&short(940)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_key_is_taken_for_its_own_algorithm_and_use_alone() {
    let ed = Signer::ed25519("d");
    for (field, value) in [("alg", "ES256"), ("use", "enc"), ("kty", "RSA"), ("crv", "X25519"), ("x", "AAAA")] {
        let mut jwk = ed.jwk();
        jwk[field] = value.into();
        let setup = Setup::bare(Arc::default(), Arc::default(), at(1000));
        setup.provider.publish(JWKS, json!({"keys": [jwk, Signer::p256("other").jwk()]}).to_string());
        setup.follow(record()).await;
        assert_eq!(setup.verify(&ed.good("EdDSA", &claims())).await, Err(Reason::CredentialsInvalid), "{field}");
    }
    for document in ["", "[]", "{}", "{\"keys\": []}", "{\"keys\": [{\"kty\": \"oct\", \"k\": \"AAAA\"}]}"] {
        assert!(jwk::keys(document.as_bytes()).is_err(), "{document}");
    }
    let many = json!({"keys": vec![ed.jwk(); MAX_KEYS + 1]}).to_string();
    assert!(jwk::keys(many.as_bytes()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_asked_for_once_a_minute_and_others_go_on() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let setup = Setup::new(&[&old], record()).await;
    assert_eq!(setup.provider.asked(), 1);
    // The provider has turned its key: the first token of it waits for one question.
    setup.provider.publish(JWKS, document(&[&old, &new]));
    let token = new.good("EdDSA", &claims());
    let (a, b) = tokio::join!(setup.verify(&token), setup.verify(&token));
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(setup.provider.asked(), 2, "one question for both");
    // Names that nobody knows do not make us ask again within the minute.
    for n in 0..50 {
        let stranger = Signer::ed25519("nobody");
        let token = stranger.token(&json!({"alg": "EdDSA", "kid": format!("k{n}")}), &claims());
        assert_eq!(setup.verify(&token).await, Err(Reason::CredentialsInvalid));
    }
    assert_eq!(setup.provider.asked(), 2);
    setup.clock.advance(Duration::from_secs(60));
    assert_eq!(setup.verify(&Signer::ed25519("nobody").good("EdDSA", &claims())).await, Err(Reason::CredentialsInvalid));
    assert_eq!(setup.provider.asked(), 3);
    // A provider that hangs holds those up who need it, for two seconds, and nobody else.
    setup.clock.advance(Duration::from_secs(60));
    setup.provider.slow.store(true, Ordering::SeqCst);
    let begun = tokio::time::Instant::now();
    let stranger = Signer::ed25519("another").good("EdDSA", &claims());
    assert_eq!(setup.verify(&stranger).await, Err(Reason::IssuerUnavailable));
    assert_eq!(begun.elapsed().as_secs(), WAIT.as_secs());
    assert!(setup.verify(&old.good("EdDSA", &claims())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn keys_are_good_for_a_day_without_the_provider_also_over_a_restart() {
    let signer = Signer::ed25519("k");
    let setup = Setup::new(&[&signer], record()).await;
    setup.provider.away.store(true, Ordering::SeqCst);
    let mut claims = claims();
    claims["exp"] = 10_000_000.into();
    let token = signer.good("EdDSA", &claims);
    setup.verify(&token).await.unwrap();
    setup.pass(KEEP - Duration::from_secs(10)).await;
    setup.verify(&token).await.unwrap();

    let restarted = Setup::bare(setup.provider.clone(), setup.store.clone(), setup.clock.now());
    restarted.follow(record()).await;
    restarted.verify(&token).await.unwrap();
    // Keys that were kept for another issuer are not this one's.
    let moved = Setup::bare(setup.provider.clone(), setup.store.clone(), setup.clock.now());
    moved.follow(IssuerRecord { jwks_url: Some("https://elsewhere.example/keys".into()), ..record() }).await;
    assert_eq!(moved.verify(&token).await, Err(Reason::IssuerUnavailable));

    setup.pass(Duration::from_secs(11)).await;
    assert_eq!(setup.verify(&token).await, Err(Reason::IssuerUnavailable), "not even what was judged before");
    setup.provider.away.store(false, Ordering::SeqCst);
    setup.pass(Duration::from_secs(61)).await;
    setup.verify(&token).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_judged_is_judged_again_when_keys_or_issuers_change() {
    let (first, second) = (Signer::ed25519("1"), Signer::ed25519("2"));
    let setup = Setup::new(&[&first, &second], record()).await;
    let token = first.good("EdDSA", &claims());
    let before = setup.verify(&token).await.unwrap();
    assert!(Arc::ptr_eq(&before, &setup.verify(&token).await.unwrap()), "from memory");
    // Withdrawn: gone at the next look, at the steady pace.
    setup.provider.publish(JWKS, document(&[&second]));
    setup.pass(REFRESH).await;
    assert_eq!(setup.verify(&token).await, Err(Reason::CredentialsInvalid));
    let token = second.good("EdDSA", &claims());
    setup.verify(&token).await.unwrap();
    setup.follow(IssuerRecord { audiences: vec!["another".into()], ..record() }).await;
    assert_eq!(setup.verify(&token).await, Err(Reason::CredentialsInvalid));
    setup.tokens.follow(&BTreeMap::new());
    assert_eq!(setup.verify(&token).await, Err(Reason::CredentialsInvalid));
}

#[tokio::test]
async fn keys_are_found_through_the_providers_description_over_http() {
    let signer = Signer::p256("k");
    let description = r#"{"issuer": "{base}", "jwks_uri": "{base}/keys"}"#.to_owned();
    let documents = HashMap::from([("/.well-known/openid-configuration", description), ("/keys", document(&[&signer]))]);
    let (address, server) = serve(documents).await;
    let tasks = TaskGroup::new("test");
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(KeyFiles::new(root.path().join("issuers")));
    let tokens = Tokens::start(TokensParts { fetch: Arc::new(PlainHttp), store, world: World::real() }, &tasks);
    let record = IssuerRecord { issuer: address.clone(), jwks_url: None, tenant: Some(TenantName::default_tenant()), ..record() };
    let record = IssuerRecord { tenant_claim: None, ..record };
    tokens.follow(&BTreeMap::from([("corp".parse().unwrap(), Arc::new(record))]));
    let mut claims = claims();
    claims["iss"] = address.into();
    claims["exp"] = 4_000_000_000_u64.into();
    let found = tokens.verify(&signer.good("ES256", &claims), plinth_runtime::SystemClock.now()).await.unwrap();
    assert_eq!((&found.tenant, found.role), (&TenantName::default_tenant(), Role::Operator));
    server.abort();
    tasks.close(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_description_is_the_issuers_own_and_leads_nowhere_less_safe() {
    let signer = Signer::ed25519("k");
    let url = format!("{ISSUER}/.well-known/openid-configuration");
    for (description, passes) in [
        (json!({"issuer": ISSUER, "jwks_uri": JWKS}), true),
        (json!({"issuer": "https://evil.example", "jwks_uri": JWKS}), false),
        (json!({"issuer": ISSUER, "jwks_uri": "http://login.corp.example/keys"}), false),
        (json!({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}), false),
        (json!({"issuer": ISSUER}), false),
    ] {
        let setup = Setup::bare(Arc::default(), Arc::default(), at(1000));
        for address in [JWKS, "http://login.corp.example/keys", "file:///etc/passwd"] {
            setup.provider.publish(address, document(&[&signer]));
        }
        setup.provider.publish(&url, description.to_string());
        setup.follow(IssuerRecord { jwks_url: None, ..record() }).await;
        assert_eq!(setup.verify(&signer.good("EdDSA", &claims())).await.is_ok(), passes, "{description}");
    }
}

#[test]
fn records_that_make_no_sense_are_no_issuers() {
    let name: Label = "corp".parse().unwrap();
    let with = |change: fn(&mut IssuerRecord)| {
        let mut changed = record();
        change(&mut changed);
        IssuerSpec::new(name.clone(), changed).map(|_| ()).map_err(|error| error.field)
    };
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(with(|r| r.issuer.clear()), Err("issuer"));
    assert_eq!(with(|r| r.audiences.clear()), Err("audiences"));
    assert_eq!(with(|r| r.jwks_url = Some("file:///keys".into())), Err("jwks_url"));
    assert_eq!(with(|r| r.jwks_url = Some("https://u:p@corp/keys".into())), Err("jwks_url"));
    assert_eq!(with(|r| r.tenant_claim = None), Err("tenant"));
    assert_eq!(with(|r| r.roles.clear()), Err("roles"));
    assert_eq!(with(|r| r.roles_claim = None), Err("roles_claim"));
    assert_eq!(with(|r| (r.jwks_url, r.issuer) = (None, "corp".into())), Err("issuer"));
}
