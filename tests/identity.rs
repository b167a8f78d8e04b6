//! Who may do what: every route with every kind of credentials, keys over their life, tokens of an issuer, refusals on record.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_client::wire::{self, Role};
use reqwest::Method;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Node, NodeOptions, eventually, models};

async fn key(node: &Node, tenant: Option<&str>, role: Role, models: &[&str]) -> wire::CreatedKey {
    let models = models.iter().map(|m| models::name(m)).collect();
    let new = wire::NewKey { role, description: String::new(), expires_at: None, models };
    node.client().for_tenant(tenant.map(str::to_owned)).create_key(&new).await.unwrap()
}

async fn tenant(node: &Node, name: &str, spec: Value) {
    let resources = vec![wire::Resource { kind: "tenant".into(), name: name.into(), expect: None, spec }];
    node.client().apply(&wire::Apply { resources, dry_run: false }).await.unwrap();
}

/// A request with a key, or without: the status, and the body without what differs by request.
async fn ask(node: &Node, key: Option<&str>, method: &Method, path: &str) -> (u16, String) {
    let client = reqwest::Client::new();
    let mut request = client.request(method.clone(), format!("{}{path}", node.http)).timeout(Duration::from_secs(10));
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    let body = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(mut problem)) => {
            problem.remove("request_id");
            Value::Object(problem).to_string()
        }
        _ => text,
    };
    (status, body)
}

/// What exists in the default tenant, and what exists nowhere, for each parameter of a path.
const NAMES: [(&str, &str, &str); 4] =
    [("{model}", "digits", "absent"), ("{alias}", "champion", "nothing"), ("{version}", "1", "1"), ("{*path}", "model.onnx", "model.onnx")];

fn path(pattern: &str, id: &str, existing: bool) -> String {
    let named = NAMES
        .iter()
        .fold(pattern.to_owned(), |path, (parameter, there, nowhere)| path.replace(parameter, if existing { there } else { nowhere }));
    let (id, revision) = if existing { (id, "2") } else { ("0000000000000000", "999999") };
    named
        .replace("{id}", id)
        .replace("{revision}", revision)
        .replace("{kind}", "deployment")
        .replace("{name}", if existing { "digits" } else { "absent" })
        .replace(['{', '}'], "")
}

fn needed(access: &str) -> Option<Role> {
    match access {
        "public" => None,
        "read" => Some(Role::Viewer),
        "infer" => Some(Role::Developer),
        "operate" => Some(Role::Operator),
        "admin" | "platform" => Some(Role::Admin),
        other => panic!("an access that nobody knows: {other}"),
    }
}

fn rank(role: Role) -> usize {
    [Role::Viewer, Role::Developer, Role::Operator, Role::Admin].iter().position(|r| *r == role).unwrap()
}

#[tokio::test]
async fn every_route_is_judged_by_role_and_tenant() {
    let node = Node::start(NodeOptions::default()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    tenant(&node, "acme", json!({})).await;
    let mut keys = Vec::new();
    for role in [Role::Viewer, Role::Developer, Role::Operator] {
        keys.push((role, key(&node, None, role, &[]).await));
    }
    let other = key(&node, Some("acme"), Role::Admin, &[]).await.secret;
    let bystander = &keys[0].1.key.id;
    let routes: Vec<wire::RouteInfo> = node.get("/v1/routes").send().await.unwrap().json().await.unwrap();
    assert!(routes.len() > 50, "{}", routes.len());
    for route in &routes {
        let (method, what) = (Method::from_bytes(route.method.as_bytes()).unwrap(), format!("{} {}", route.method, route.pattern));
        let (absent, existing) = (path(&route.pattern, bystander, false), path(&route.pattern, bystander, true));
        let Some(needed) = needed(&route.access) else { continue };
        for nobody in
            [None, Some("nonsense"), Some("plinth_0000000000000000_0000000000000000000000000000000000000000000000000000000000000000")]
        {
            assert_eq!(ask(&node, nobody, &method, &existing).await.0, 401, "{what}");
        }
        for (role, key) in &keys {
            let (status, body) = ask(&node, Some(&key.secret), &method, &absent).await;
            if rank(*role) < rank(needed) {
                assert_eq!(status, 403, "{what} as {role:?}");
                assert!(method == Method::HEAD || body.contains("takes the role"), "{what}: {body}");
            } else {
                assert!(status != 401 && status != 403, "{what} as {role:?}: {status} {body}");
            }
        }
        // The administrator of another tenant learns nothing of what exists here, and changes nothing.
        let of_existing = ask(&node, Some(&other), &method, &existing).await;
        if route.access == "platform" {
            assert_eq!(of_existing.0, 403, "{what}");
        } else if route.pattern.contains("{model}")
            || route.pattern.contains("{id}")
            || route.pattern.contains("{revision}")
            || route.pattern.contains("{name}")
        {
            let of_absent = ask(&node, Some(&other), &method, &absent).await;
            let masked = |text: &str| {
                ["digits", "absent", "champion", "nothing", bystander, "0000000000000000", "999999", "revision 2", "change 2"]
                    .iter()
                    .fold(text.to_owned(), |text, word| text.replace(word, "…"))
                    .replace("revision …", "…")
                    .replace("change …", "…")
            };
            assert_eq!((of_existing.0, masked(&of_existing.1)), (of_absent.0, masked(&of_absent.1)), "{what}");
            assert!(of_existing.0 >= 400 && of_existing.0 != 403, "{what}: {} {}", of_existing.0, of_existing.1);
        }
    }
    // Nothing of the default tenant was harmed by any of that.
    assert_eq!(node.client().keys(&plinth_client::Paging::default()).await.unwrap().items.len(), 4);
    assert!(models::served(&node, "digits", 1).await.is_some());
}

#[tokio::test]
async fn an_administrator_of_the_whole_acts_for_a_tenant_and_the_audit_says_so() {
    let node = Node::start(NodeOptions::default()).await;
    tenant(&node, "acme", json!({})).await;
    let first = key(&node, Some("acme"), Role::Admin, &[]).await;
    let acme = models::client(&node.http, Some(&first.secret));
    let audit = acme.audit(None, &plinth_client::Paging::default()).await.unwrap();
    assert!(audit.items.iter().any(|entry| entry.action == "key.put" && entry.actor.ends_with(" for acme")), "{:?}", audit.items);
    let error = acme.for_tenant(Some("default".into())).status().await.unwrap_err();
    assert_eq!(error.reason(), Some("not_permitted"));
    let error = node.client().for_tenant(Some("nobody".into())).status().await.unwrap_err();
    assert_eq!(error.reason(), Some("record_not_found"));
    // Suspended, and back.
    for (suspended, reason) in [(true, Some("tenant_suspended")), (false, None)] {
        tenant(&node, "acme", json!({"suspended": suspended})).await;
        let acme = models::client(&node.http, Some(&first.secret));
        eventually("the tenant is as it was said", Duration::from_secs(5), async || {
            (acme.status().await.err().and_then(|e| e.reason().map(str::to_owned)).as_deref() == reason).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_key_is_rotated_with_an_overlap_and_kept_to_its_models() {
    let node = Node::start(NodeOptions::default()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    models::push(&node, "other", &models::digits(2), &[]).await;
    let old = key(&node, None, Role::Developer, &["digits"]).await;
    let id = old.key.id.parse().unwrap();
    let new = node.client().rotate_key(&id, &wire::RotateKey { overlap_seconds: 2 }).await.unwrap();
    assert_eq!((new.key.role, &new.key.models), (Role::Developer, &vec![models::name("digits")]));
    let error = node.client().rotate_key(&id, &wire::RotateKey { overlap_seconds: 2 }).await.unwrap_err();
    assert_eq!(error.reason(), Some("edit_conflict"));
    for secret in [&old.secret, &new.secret] {
        let client = models::client(&node.http, Some(secret));
        client.model_metadata(&models::name("digits"), None).await.unwrap();
        for unknown in ["other", "nothing"] {
            let (status, _) = ask(&node, Some(secret), &Method::GET, &format!("/v2/models/{unknown}")).await;
            assert_eq!(status, 403, "{unknown}");
        }
        let listed = client.models(&plinth_client::Paging::default()).await.unwrap();
        assert_eq!(listed.items.len(), 1);
    }
    let old_client = models::client(&node.http, Some(&old.secret));
    eventually("the old key is refused", Duration::from_secs(5), async || old_client.status().await.is_err().then_some(())).await;
    models::client(&node.http, Some(&new.secret)).status().await.unwrap();
    let listed = node.client().keys(&plinth_client::Paging::default()).await.unwrap().items;
    assert!(listed.iter().any(|key| key.id == old.key.id && key.replaced_by.as_deref() == Some(&new.key.id)));
    let scoped = wire::NewKey { role: Role::Admin, description: String::new(), expires_at: None, models: vec![models::name("digits")] };
    assert_eq!(node.client().create_key(&scoped).await.unwrap_err().reason(), Some("invalid_resource"));
}

#[tokio::test]
async fn a_token_of_an_issuer_opens_the_door() {
    let node = Node::start(NodeOptions::default()).await;
    tenant(&node, "acme", json!({})).await;
    let (random, how) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let pair = EcdsaKeyPair::from_pkcs8(how, EcdsaKeyPair::generate_pkcs8(how, &random).unwrap().as_ref(), &random).unwrap();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let point = &pair.public_key().as_ref()[1..];
    let document =
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "x": encode(&point[..32]), "y": encode(&point[32..])}]}).to_string();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let provider = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 2048]).await;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{document}", document.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let spec = json!({"issuer": address, "audiences": ["plinth"], "jwks_url": format!("{address}/keys"), "allow_networks": ["127.0.0.0/8"],
        "tenant_claim": "org", "roles_claim": "roles", "roles": {"ml": "developer"}});
    let resources = vec![wire::Resource { kind: "issuer".into(), name: "corp".into(), expect: None, spec }];
    node.client().apply(&wire::Apply { resources, dry_run: false }).await.unwrap();
    let token = |claims: Value| {
        let mut all = json!({"iss": address, "sub": "alice", "aud": "plinth", "exp": 4_000_000_000_u64, "roles": ["ml"], "org": "acme"});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let signed =
            format!("{}.{}", encode(json!({"alg": "ES256", "kid": "k"}).to_string().as_bytes()), encode(all.to_string().as_bytes()));
        format!("{signed}.{}", encode(pair.sign(&random, signed.as_bytes()).unwrap().as_ref()))
    };
    let good = token(json!({}));
    eventually("the token is good", Duration::from_secs(5), async || {
        (ask(&node, Some(&good), &Method::GET, "/v2").await.0 == 200).then_some(())
    })
    .await;
    assert_eq!(ask(&node, Some(&good), &Method::POST, "/v1/apply").await.0, 403, "a developer");
    for (claims, status) in
        [(json!({"org": "nobody"}), 401), (json!({"org": "default"}), 401), (json!({"aud": "x"}), 401), (json!({"roles": []}), 401)]
    {
        assert_eq!(ask(&node, Some(&token(claims.clone())), &Method::GET, "/v2").await.0, status, "{claims}");
    }
    // Who was refused is on record, and no credential is.
    let file = node.data_dir().join("audit/refusals.jsonl");
    let log = eventually("the refusals are written", Duration::from_secs(5), async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        Some(text).filter(|text| text.contains("not_permitted") && text.contains("credentials_invalid"))
    })
    .await;
    assert!(log.contains("token:corp/alice") && log.contains("\"address\":\"127.0.0.1\""), "{log}");
    assert!(!log.contains(&good[..20]) && !log.contains("plinth_"), "{log}");
    let found = node.client().verify_audit().await.unwrap();
    assert!(found.broken.is_none() && found.unlinked == 0 && found.entries > 3 && found.head.is_some(), "{found:?}");
    assert!(found.refusals.broken.is_none() && found.refusals.lines > 1, "{found:?}");

    provider.abort();
    // Without the provider, also after a restart.
    let mut node = node;
    node.restart().await;
    assert_eq!(ask(&node, Some(&good), &Method::GET, "/v2").await.0, 200);
}
