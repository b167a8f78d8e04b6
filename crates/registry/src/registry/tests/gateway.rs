//! Resources of the gateway: applied as a whole, read back, held by what names them, undone.

use serde_json::Value;

use super::*;

fn platform(s: &Setup) -> Actor {
    s.actor.clone().platform(true)
}

fn acme(s: &Setup) -> Actor {
    Actor { tenant: "acme".parse().unwrap(), ..s.actor.clone() }
}

fn everything() -> Vec<ResourceSpec> {
    vec![
        resource("route", "chat", json!({ "matches": { "path": { "prefix": "/chat" } }, "targets": [{ "to": { "upstream": "llm" } }] })),
        resource("upstream", "llm", json!({ "endpoints": [{ "url": "https://llm.example" }] })),
        resource("tenant", "acme", json!({ "plan": "gold" })),
        resource("plan", "gold", json!({ "limits": [{ "name": "requests", "rate": "50/s" }] })),
        resource("issuer", "id", json!({ "issuer": "https://id.example", "audiences": ["p"], "tenant": "acme", "default_role": "viewer" })),
        resource("addresses", "addresses", json!({ "deny": ["192.0.2.0/24"] })),
    ]
}

async fn apply(s: &Setup, actor: &Actor, resources: &[ResourceSpec]) -> Result<Applied> {
    s.registry.apply(actor, resources, false).await
}

fn flaws(error: &Error) -> Vec<(&str, Reason)> {
    match error.flaw_list() {
        [] => vec![(error.field_name().unwrap_or_default(), error.reason())],
        list => list.iter().map(|flaw| (flaw.field.as_str(), flaw.reason)).collect(),
    }
}

#[tokio::test]
async fn all_kinds_are_applied_in_one_commit_whatever_their_order() {
    let s = Setup::new();
    let applied = apply(&s, &platform(&s), &everything()).await.unwrap();
    assert_eq!(applied.revision, Some(Revision(1)));
    assert_eq!(apply(&s, &platform(&s), &everything()).await.unwrap().revision, None, "the same again changes nothing");
    s.sound().await;
    let entry = s.registry.audit_entry(s.tenant(), Revision(1)).await.unwrap();
    assert_eq!((entry.note.action.as_str(), entry.changes.len()), ("apply", 6));
}

#[tokio::test]
async fn what_is_read_back_can_be_applied_and_changes_nothing() {
    let s = Setup::new();
    s.push("one", &["champion"]).await.unwrap();
    apply(&s, &platform(&s), &everything()).await.unwrap();
    let head = s.head().await;
    let mut all = Vec::new();
    for kind in ResourceKind::ALL {
        for found in s.registry.resources(s.tenant(), kind, &PageQuery::default()).await.unwrap().items {
            let one = s.registry.resource(s.tenant(), kind, &found.name).await.unwrap();
            assert_eq!(one, found);
            all.push(ResourceSpec { kind: kind.as_str().into(), name: found.name, expect: Some(found.revision), spec: found.spec });
        }
    }
    // The built-in plans are shown and become records when they are applied; the rest is as it was.
    assert_eq!(all.len(), 10);
    let applied = s.registry.apply(&platform(&s), &all, true).await.unwrap();
    let changed: Vec<_> = applied.resources.iter().filter(|r| r.outcome != ApplyOutcome::Unchanged).map(|r| r.name.as_str()).collect();
    assert_eq!(changed, ["free", "paid"]);
    let chat = all.iter().find(|r| r.name == "chat").unwrap();
    let short = json!({ "matches": { "path": { "prefix": "/chat" } }, "targets": [{ "to": { "upstream": "llm" }, "weight": 1 }] });
    assert_eq!(chat.spec, short, "nothing that goes without saying");
    assert_eq!(s.head().await, head);
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_and_nothing_is_changed() {
    let s = Setup::new();
    let file = [
        resource("tenant", "acme", json!({ "plan": "silver", "plam": 1 })),
        resource(
            "route",
            "a",
            json!({ "targets": [{ "to": { "upstream": "nowhere" } }, { "to": { "model": { "name": "nobody" } } }], "filters": ["f"] }),
        ),
        resource("route", "b", json!({ "targets": [{ "to": { "modle": {} } }], "timeout_ms": "soon" })),
        resource("upstream", "u", json!({ "endpoints": [{ "url": "https://u.example", "wieght": 2 }], "atempts": 1 })),
        resource("filter", "f", json!({})),
        resource("tenant", "beta", json!({ "plan": "silver" })),
        resource("addresses", "others", json!({})),
    ];
    let error = apply(&s, &platform(&s), &file).await.unwrap_err();
    assert_eq!(
        flaws(&error),
        [
            ("resources[0].spec.plam", Reason::InvalidResource),
            ("resources[2].spec.targets[0].to", Reason::InvalidResource),
            ("resources[2].spec.timeout_ms", Reason::InvalidResource),
            ("resources[3].spec.atempts", Reason::InvalidResource),
            ("resources[3].spec.endpoints[0].wieght", Reason::InvalidResource),
            ("resources[4].spec", Reason::InvalidResource),
            ("resources[6].name", Reason::InvalidName),
            ("resources[1].spec.targets[0].to.upstream", Reason::RecordNotFound),
            ("resources[1].spec.targets[1].to.model", Reason::ModelNotFound),
            ("resources[1].spec.filters[0]", Reason::RecordNotFound),
            ("resources[5].spec.plan", Reason::RecordNotFound),
        ]
    );
    let text = |n: usize| error.flaw_list()[n].text.as_str();
    assert_eq!((text(0), text(1)), ("unknown field 'plam': did you mean 'plan'?", "unknown word 'modle': did you mean 'model'?"));
    assert_eq!(s.head().await, Revision(0));
}

#[tokio::test]
async fn what_concerns_all_is_for_administrators_of_the_whole() {
    let s = Setup::new();
    for one in everything().into_iter().skip(2) {
        let error = apply(&s, &s.actor, &[resource("plan", "gold", json!({})), one.clone()]).await.unwrap_err();
        assert!(flaws(&error).contains(&("resources[1].kind", Reason::NotPermitted)) || one.kind == "plan", "{one:?}: {error:?}");
        assert_eq!(reason(apply(&s, &acme(&s).platform(true), &[resource("plan", "gold", json!({}))]).await), Reason::NotPermitted);
    }
    apply(&s, &platform(&s), &everything()).await.unwrap();
    let kind = ResourceKind::Addresses;
    assert_eq!(reason(s.registry.delete_resource(&s.actor, kind, "addresses", None).await), Reason::NotPermitted);
    assert_eq!(reason(s.undo(Revision(1)).await), Reason::NotPermitted, "also not through an undo");
    let mine = [resource("upstream", "u", json!({ "endpoints": [{ "url": "http://10.0.0.1" }], "allow_networks": ["10.0.0.0/8"] }))];
    assert_eq!(flaws(&apply(&s, &acme(&s), &mine).await.unwrap_err()), [("resources[0].spec.allow_networks", Reason::NotPermitted)]);
    apply(&s, &acme(&s).platform(true), &mine).await.unwrap();
}

#[tokio::test]
async fn nothing_goes_that_others_name() {
    let s = Setup::new();
    let actor = platform(&s);
    apply(&s, &actor, &everything()).await.unwrap();
    let shared = [resource("route", "r", json!({ "targets": [{ "to": { "upstream": "llm" } }] }))];
    apply(&s, &acme(&s), &shared).await.unwrap();
    let delete = |kind: ResourceKind, name: &'static str| {
        let (s, actor) = (&s, &actor);
        async move { s.registry.delete_resource(actor, kind, name, None).await }
    };
    let refused = |error: Error, words: &str| {
        assert_eq!(error.reason(), Reason::ResourceInUse, "{error}");
        assert!(error.public_text().contains(words), "{error}");
    };
    refused(delete(ResourceKind::Upstream, "llm").await.unwrap_err(), "the route 'r' of the tenant 'acme' (targets[0].to.upstream)");
    refused(delete(ResourceKind::Plan, "gold").await.unwrap_err(), "the tenant 'acme'");
    refused(delete(ResourceKind::Tenant, "acme").await.unwrap_err(), "its route 'r'");
    refused(
        delete(ResourceKind::Tenant, "default").await.map_or_else(
            |e| if e.reason() == Reason::RecordNotFound { Error::new(Reason::ResourceInUse, "node") } else { e },
            |()| Error::internal("deleted"),
        ),
        "node",
    );
    s.registry.delete_resource(&acme(&s), ResourceKind::Route, "r", None).await.unwrap();
    refused(delete(ResourceKind::Upstream, "llm").await.unwrap_err(), "the route 'chat'");
    refused(delete(ResourceKind::Tenant, "acme").await.unwrap_err(), "the issuer 'id'");
    for (kind, name) in [
        (ResourceKind::Issuer, "id"),
        (ResourceKind::Tenant, "acme"),
        (ResourceKind::Plan, "gold"),
        (ResourceKind::Route, "chat"),
        (ResourceKind::Upstream, "llm"),
        (ResourceKind::Addresses, "addresses"),
    ] {
        delete(kind, name).await.unwrap();
        assert_eq!(reason(delete(kind, name).await), Reason::RecordNotFound);
        s.sound().await;
    }
    assert_eq!(reason(delete(ResourceKind::Plan, "free").await), Reason::RecordNotFound);
}

#[tokio::test]
async fn a_model_that_a_route_names_stays() {
    let s = Setup::new();
    apply(
        &s,
        &s.actor,
        &[
            resource("model", "digits", json!({})),
            resource("route", "r", json!({ "targets": [{ "to": { "model": { "name": "digits" } } }] })),
        ],
    )
    .await
    .unwrap();
    assert_eq!(reason(s.registry.delete_model(&s.actor, &s.model).await), Reason::ResourceInUse);
    s.registry.delete_resource(&s.actor, ResourceKind::Route, "r", None).await.unwrap();
    s.registry.delete_resource(&s.actor, ResourceKind::Model, "digits", None).await.unwrap();
    s.sound().await;
}

#[tokio::test]
async fn an_own_upstream_hides_the_shared_one() {
    let s = Setup::new();
    let upstream = resource("upstream", "u", json!({ "endpoints": [{ "url": "https://u.example" }] }));
    let route = resource("route", "r", json!({ "targets": [{ "to": { "upstream": "u" } }] }));
    apply(&s, &s.actor, std::slice::from_ref(&upstream)).await.unwrap();
    apply(&s, &acme(&s), &[upstream, route]).await.unwrap();
    s.registry.delete_resource(&s.actor, ResourceKind::Upstream, "u", None).await.unwrap();
    let own = s.registry.delete_resource(&acme(&s), ResourceKind::Upstream, "u", None).await;
    assert_eq!(reason(own), Reason::ResourceInUse);
}

#[tokio::test]
async fn two_editors_do_not_overwrite_each_other() {
    let s = Setup::new();
    let upstream = |host: &str, expect: Option<u64>| ResourceSpec {
        expect: expect.map(Revision),
        ..resource("upstream", "u", json!({ "endpoints": [{ "url": format!("https://{host}") }] }))
    };
    assert_eq!(reason(apply(&s, &s.actor, &[upstream("a", Some(3))]).await), Reason::EditConflict);
    apply(&s, &s.actor, &[upstream("a", Some(0))]).await.unwrap();
    let error = apply(&s, &s.actor, &[upstream("b", Some(0))]).await.unwrap_err();
    assert_eq!(flaws(&error), [("resources[0].expect", Reason::EditConflict)]);
    apply(&s, &s.actor, &[upstream("b", Some(1))]).await.unwrap();
    assert_eq!(reason(apply(&s, &s.actor, &[upstream("c", Some(1))]).await), Reason::EditConflict);
    let delete = |revision| s.registry.delete_resource(&s.actor, ResourceKind::Upstream, "u", Some(Revision(revision)));
    assert_eq!(reason(delete(1).await), Reason::EditConflict);
    delete(2).await.unwrap();
}

#[tokio::test]
async fn undoing_keeps_what_is_named() {
    let s = Setup::new();
    let actor = platform(&s);
    let (route, upstream) = (everything().remove(0), everything().remove(1));
    apply(&s, &actor, std::slice::from_ref(&upstream)).await.unwrap();
    apply(&s, &actor, std::slice::from_ref(&route)).await.unwrap();
    assert_eq!(reason(s.undo(Revision(1)).await), Reason::ResourceInUse, "the route still names it");
    s.registry.delete_resource(&actor, ResourceKind::Route, "chat", None).await.unwrap();
    s.registry.delete_resource(&actor, ResourceKind::Upstream, "llm", None).await.unwrap();
    assert_eq!(reason(s.undo(Revision(3)).await), Reason::EditConflict, "the route cannot come back without it");
    s.undo(Revision(4)).await.unwrap();
    s.undo(Revision(3)).await.unwrap();
    assert_eq!(s.registry.resource(s.tenant(), ResourceKind::Route, "chat").await.unwrap().revision, Revision(6));
    s.sound().await;
}

#[tokio::test]
async fn a_dry_run_shows_what_would_change() {
    let s = Setup::new();
    let plan = |rate: &str| resource("plan", "gold", json!({ "limits": [{ "name": "requests", "rate": rate }] }));
    apply(&s, &platform(&s), &[plan("1/s")]).await.unwrap();
    let dry = s.registry.apply(&platform(&s), &[plan("2/s"), resource("plan", "new", json!({}))], true).await.unwrap();
    let rate = |value: &Option<Value>| value.as_ref().map(|v| v["limits"][0]["rate"].clone());
    assert_eq!((rate(&dry.resources[0].before), rate(&dry.resources[0].after)), (Some(json!("1/s")), Some(json!("2/s"))));
    assert_eq!((&dry.resources[1].before, &dry.resources[1].after), (&None, &Some(json!({}))));
}

#[tokio::test]
async fn plans_are_listed_with_the_built_in_ones_page_by_page() {
    let s = Setup::new();
    let plans: Vec<_> = ["a", "free", "m", "z"].map(|name| resource("plan", name, json!({ "weight": 2 }))).into();
    apply(&s, &platform(&s), &plans).await.unwrap();
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = s.registry.resources(s.tenant(), ResourceKind::Plan, &PageQuery { after, limit: 2 }).await.unwrap();
        names.extend(page.items.into_iter().map(|plan| (plan.name, plan.revision.0)));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let expected = [("a", 1), ("free", 1), ("m", 1), ("paid", 0), ("z", 1)];
    assert_eq!(names, expected.map(|(name, revision)| (name.to_owned(), revision)));
}

#[tokio::test]
async fn a_circle_of_fallbacks_over_several_routes_is_refused() {
    let s = Setup::new();
    let model = |name| resource("model", name, json!({}));
    let falls = |name: &str, from: &str, to: &str| {
        let spec =
            json!({ "matches": { "models": [from] }, "targets": [{ "to": { "model": {} } }], "fallbacks": [{ "model": { "name": to } }] });
        resource("route", name, spec)
    };
    apply(&s, &s.actor, &[model("a"), model("b"), falls("one", "a", "b")]).await.unwrap();
    let error = apply(&s, &s.actor, &[falls("two", "b", "a")]).await.unwrap_err();
    assert_eq!(flaws(&error), [("resources[0].spec.fallbacks", Reason::InvalidResource)]);
    assert!(error.public_text().contains("a → b → a"), "{error}");
}
