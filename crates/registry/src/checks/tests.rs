//! Tables of what is let in and what is refused, each refusal with its field.

use plinth_types::{ModelName, TenantName};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

/// `base` with one field set, `a.b.0.c` leading to it.
fn with(mut base: Value, path: &str, value: Value) -> Value {
    let mut at = &mut base;
    for step in path.split('.') {
        at = match step.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[step],
        };
    }
    *at = value;
    base
}

fn said<T: DeserializeOwned>(record: &Value, check: impl FnOnce(&mut Problems, &T)) -> Vec<(String, String)> {
    let record = serde_json::from_value(record.clone()).unwrap_or_else(|e| panic!("{record}: {e}"));
    let mut problems = Problems::default();
    check(&mut problems, &record);
    match problems.into_result() {
        Ok(()) => Vec::new(),
        Err(error) if error.flaw_list().is_empty() => {
            vec![(error.field_name().unwrap_or_default().to_owned(), error.public_text().to_owned())]
        }
        Err(error) => error.flaw_list().iter().map(|flaw| (flaw.field.clone(), flaw.text.clone())).collect(),
    }
}

fn refuses(found: &[(String, String)], field: &str, words: &str, what: &str) {
    let hit = found.iter().any(|(at, text)| at == field && text.contains(words));
    assert!(hit, "{what}: wanted {field:?} with {words:?}, found {found:?}");
}

fn asked<R>(tenant: &str, platform: bool, look: impl FnOnce(Asker<'_>) -> R) -> R {
    let tenant: TenantName = tenant.parse().unwrap();
    look(Asker { tenant: &tenant, platform, own: &["0.0.0.0:8000".parse().unwrap()] })
}

fn route() -> Value {
    json!({
        "matches": { "path": { "prefix": "/chat" }, "methods": ["POST"], "hosts": ["api.example", "*.example"], "headers": [], "tenants": [], "models": [] },
        "targets": [
            { "name": "stable", "weight": 9, "to": { "upstream": "llm" } },
            { "name": "canary", "weight": 1, "to": { "model": { "name": "small", "alias": "canary", "version": null } } },
        ],
        "pins": [{ "target": "canary", "header": { "name": "x-canary", "value": { "regex": "[a-z]+" } }, "cookie": ["c", "1"], "tenant": null }],
        "request_headers": { "remove": ["authorization"], "set": { "x-team": "a" }, "add": {} },
        "rewrite": { "prefix": "/v1/chat" },
        "shadow": { "to": { "upstream": "next" }, "percent": 1.5 },
        "fallbacks": [{ "cached": { "max_age_seconds": 60 } }, { "static": { "body": "{}", "status": 503 } }],
        "degrade": [{ "level": 2, "parameters": { "size": 256 } }],
        "cors": { "origins": ["https://app.example", "http://localhost:3000"], "credentials": true },
        "timeout_ms": 1000,
        "sticky": { "cookie": "session" },
        "filters": ["mask"],
    })
}

fn route_said(spec: &Value, tenant: &str) -> Vec<(String, String)> {
    asked(tenant, false, |asker| said(spec, |p, record| super::route(p, record, asker)))
}

#[test]
fn a_good_route_passes() {
    for tenant in ["default", "acme"] {
        assert_eq!(route_said(&route(), tenant), []);
    }
    let least = json!({ "targets": [{ "to": { "model": {} } }] });
    assert_eq!(route_said(&least, "acme"), []);
    let models = json!({ "matches": { "path": { "prefix": "/v2/models" } }, "targets": [{ "to": { "model": {} } }] });
    assert_eq!(route_said(&models, "acme"), []);
}

#[test]
fn bad_routes_name_their_field() {
    let unicode = "\\w{40}".repeat(20);
    let long = "a".repeat(1025);
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        ("targets.0.weight", json!(0), "", ""),
        ("targets", json!([]), "targets", "at least one"),
        ("targets", json!([{ "weight": 0, "to": { "upstream": "a" } }]), "targets", "the weights add up to 0"),
        ("targets", json!([{ "to": { "upstream": "a" } }, { "to": { "upstream": "a" } }]), "targets[1].name", "two targets"),
        ("targets.1.to", json!({ "model": {} }), "targets[1].to.model", "name no model"),
        ("targets.1.to.model.version", json!(1), "targets[1].to.model", "not both"),
        ("targets.0.weight", json!(4_000_000), "targets[0].weight", "not between"),
        ("matches.path", json!({ "prefix": "chat" }), "matches.path.prefix", "begins with '/'"),
        ("matches.path", json!({ "exact": "/v1" }), "matches.path.exact", "own paths"),
        ("matches.path", json!({ "prefix": "/v1/keys" }), "matches.path.prefix", "own paths"),
        ("matches.path", json!({ "prefix": "/v2/models" }), "matches.path.prefix", "only models"),
        ("matches.path", json!({ "prefix": "/health" }), "matches.path.prefix", "own paths"),
        ("matches.path", json!({ "prefix": "/metrics" }), "matches.path.prefix", "own paths"),
        ("matches.path", json!({ "prefix": "/console/x" }), "matches.path.prefix", "own paths"),
        ("matches.path", json!({ "prefix": "/healthy" }), "", ""),
        ("matches.path", json!({ "exact": "/a/../v1" }), "matches.path.exact", "'..'"),
        ("matches.path", json!({ "exact": "/a b" }), "matches.path.exact", "visible"),
        ("matches.path", json!({ "exact": "/a?b" }), "matches.path.exact", "'?'"),
        ("matches.path", json!({ "regex": "/(a+)+b" }), "rewrite.prefix", "names no path"),
        ("matches.path", json!({ "regex": "/a(?=b)" }), "matches.path.regex", "look-ahead"),
        ("matches.path", json!({ "regex": "/(a)\\1" }), "matches.path.regex", "references"),
        ("matches.path", json!({ "regex": "/(a" }), "matches.path.regex", "not a regular expression"),
        ("matches.path", json!({ "regex": "a)(b" }), "matches.path.regex", "not a regular expression"),
        ("matches.path", json!({ "regex": "((a{100}){100}){100}" }), "matches.path.regex", "64 KiB"),
        ("matches.path", json!({ "regex": unicode }), "matches.path.regex", "64 KiB"),
        ("matches.path", json!({ "regex": long }), "matches.path.regex", "1024 bytes"),
        ("matches.hosts", json!(["API.example"]), "matches.hosts[0]", "small letters"),
        ("matches.hosts", json!(["api.example:80"]), "matches.hosts[0]", "not a host"),
        ("matches.hosts", json!(["a*.example"]), "matches.hosts[0]", "not a host"),
        ("matches.hosts", json!(["a", "a"]), "matches.hosts[1]", "twice"),
        ("matches.methods", json!(["get"]), "matches.methods[0]", "capitals"),
        ("matches.methods", json!(["CONNECT"]), "matches.methods[0]", "passed on"),
        ("matches.headers", json!([{ "name": "a b" }]), "matches.headers[0].name", "name of a header"),
        ("matches.headers", json!([{ "name": "a", "value": { "exact": "x\ny" } }]), "matches.headers[0].value.exact", "line breaks"),
        ("pins.0.target", json!("beta"), "pins[0].target", "there are stable, canary"),
        ("pins", json!([{ "target": "canary" }]), "pins[0]", "a header, a cookie or a tenant"),
        ("pins.0.cookie", json!(["a b", "1"]), "pins[0].cookie[0]", "name of a cookie"),
        ("pins.0.cookie", json!(["a", "1;2"]), "pins[0].cookie[1]", "semicolons"),
        ("sticky", json!({ "header": "" }), "sticky.header", "name of a header"),
        ("shadow.percent", json!(100.5), "shadow.percent", "between 0 and 100"),
        ("shadow.percent", json!(-0.1), "shadow.percent", "between 0 and 100"),
        ("rewrite", json!({ "prefix": "x" }), "rewrite.prefix", "begins with '/'"),
        ("rewrite", json!({ "regex": { "pattern": "(", "replacement": "/" } }), "rewrite.regex.pattern", "not a regular expression"),
        ("rewrite", json!({ "regex": { "pattern": "a", "replacement": "/\r\nX: y" } }), "rewrite.regex.replacement", "visible"),
        ("request_headers.set", json!({ "authorization": "Bearer x" }), "request_headers.set.authorization", "who asks"),
        ("request_headers.set", json!({ "Host": "x" }), "request_headers.set.Host", "belongs to the connection"),
        ("request_headers.add", json!({ "X-Plinth-Tenant": "x" }), "request_headers.add.X-Plinth-Tenant", "the gateway's own"),
        ("request_headers.set", json!({ "x-a": "1\r\nx-b: 2" }), "request_headers.set.x-a", "control characters"),
        ("request_headers.remove", json!(["transfer-encoding"]), "request_headers.remove[0]", "belongs to the connection"),
        ("timeout_ms", json!(0), "timeout_ms", "1 ms"),
        ("timeout_ms", json!(3_600_001), "timeout_ms", "1 hour"),
        ("fallbacks", json!([{ "static": { "body": "" } }, { "upstream": "b" }]), "fallbacks[1]", "never reached"),
        ("fallbacks", json!([{ "upstream": "b" }, { "upstream": "b" }]), "fallbacks[1]", "twice"),
        ("fallbacks", json!([{ "static": { "body": "", "status": 99 } }]), "fallbacks[0].static.status", "between"),
        ("degrade", json!([{ "level": 5, "stale_seconds": 1 }]), "degrade[0].level", "between 1 and 4"),
        ("degrade", json!([{ "level": 1 }]), "degrade[0]", "changes nothing"),
        ("degrade", json!([{ "level": 1, "stale_seconds": 1 }, { "level": 1, "stale_seconds": 2 }]), "degrade[1].level", "twice"),
        ("cors", json!({ "origins": ["*"], "credentials": true }), "cors.credentials", "name the origins"),
        ("cors", json!({ "origins": ["*", "https://a.example"] }), "cors.origins", "alone"),
        ("cors", json!({ "origins": ["https://a.example/"] }), "cors.origins[0]", "not an origin"),
        ("cors", json!({ "origins": [] }), "cors.origins", "at least one"),
        ("filters", json!(["a", "a"]), "filters[1]", "twice"),
    ];
    for (path, value, field, words) in cases {
        let what = format!("{path} = {value}");
        let found = route_said(&with(route(), path, value), "default");
        if field.is_empty() { assert_eq!(found, [], "{what}") } else { refuses(&found, field, words, &what) }
    }
}

#[test]
fn a_route_says_all_that_is_wrong_with_it() {
    let spec = with(with(route(), "timeout_ms", json!(0)), "targets.0.weight", json!(2_000_000_000));
    assert_eq!(route_said(&spec, "default").len(), 2);
}

#[test]
fn a_tenant_s_route_stays_with_the_tenant() {
    for (path, value, field) in [
        ("access", json!("public"), "access"),
        ("matches.tenants", json!(["other"]), "matches.tenants"),
        ("pins.0.tenant", json!("other"), "pins[0].tenant"),
    ] {
        let spec = with(route(), path, value);
        assert_eq!(route_said(&spec, "default"), [], "{path}");
        refuses(&route_said(&spec, "acme"), field, "tenant", path);
    }
    assert_eq!(route_said(&with(route(), "matches.tenants", json!(["acme"])), "acme"), []);
}

#[test]
fn falling_back_on_what_has_failed_is_refused() {
    let spec = json!({ "targets": [{ "to": { "upstream": "a" } }], "fallbacks": [{ "upstream": "a" }] });
    refuses(&route_said(&spec, "acme"), "fallbacks[0]", "just failed", "upstream");
    let other = json!({ "targets": [{ "to": { "model": {} } }], "fallbacks": [{ "model": { "alias": "previous" } }] });
    assert_eq!(route_said(&other, "acme"), []);
}

#[test]
fn circles_of_models_are_found() {
    let falls = |from: &str, to: &[&str]| -> plinth_store::resources::gateway::RouteRecord {
        let fallbacks: Vec<_> = to.iter().map(|to| json!({ "model": { "name": to } })).collect();
        serde_json::from_value(json!({ "matches": { "models": [from] }, "targets": [{ "to": { "model": {} } }], "fallbacks": fallbacks }))
            .unwrap()
    };
    let cycle = |routes: &[plinth_store::resources::gateway::RouteRecord]| {
        model_cycle(routes.iter()).map(|way| way.iter().map(ModelName::as_str).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(cycle(&[falls("a", &["b", "c"]), falls("b", &["c"]), falls("c", &["d"])]), None);
    assert_eq!(cycle(&[falls("a", &["a"])]), None, "another version of itself");
    assert_eq!(cycle(&[falls("a", &["b"]), falls("b", &["a"])]).as_deref(), Some("a b a"));
    assert_eq!(cycle(&[falls("x", &["a"]), falls("a", &["b"]), falls("b", &["c"]), falls("c", &["a"])]).as_deref(), Some("a b c a"));
}

fn upstream() -> Value {
    json!({
        "endpoints": [{ "url": "https://a.example/v1", "weight": 2 }, { "url": "grpc://b.example:50051", "weight": 1 }],
        "allow_networks": [],
        "balance": { "sticky": { "header": "x-user" } },
        "breaker": { "failure_percent": 50, "slow_ms": 100, "open_ms": 5000 },
        "attempts": 2,
        "max_connections": 64,
        "connect_timeout_ms": 500,
        "health": { "path": "/health", "interval_seconds": 5 },
    })
}

fn upstream_said(spec: &Value, platform: bool) -> Vec<(String, String)> {
    asked("acme", platform, |asker| said(spec, |p, record| super::upstream(p, record, asker)))
}

#[test]
fn bad_upstreams_name_their_field() {
    assert_eq!(upstream_said(&upstream(), false), []);
    let many: Vec<_> = (0..65).map(|n| json!({ "url": format!("https://h{n}.example") })).collect();
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        ("endpoints", json!([]), "endpoints", "at least one"),
        ("endpoints", json!(many), "endpoints", "at most 64"),
        ("endpoints.0.url", json!("ftp://a"), "endpoints[0].url", "scheme"),
        ("endpoints.0.url", json!("https://u:p@a.example"), "endpoints[0].url", "user"),
        ("endpoints.0.url", json!("https://a.example/?x"), "endpoints[0].url", "query"),
        ("endpoints.0.url", json!("https://a.example/#x"), "endpoints[0].url", "fragment"),
        ("endpoints.0.url", json!("http://10.1.2.3"), "endpoints[0].url", "private"),
        ("endpoints.0.url", json!("http://0x7f.1:9"), "endpoints[0].url", "loopback"),
        ("endpoints.0.url", json!("http://[::ffff:127.0.0.1]:9"), "endpoints[0].url", "loopback"),
        ("endpoints.0.url", json!("http://169.254.169.254/latest"), "endpoints[0].url", "not allowed"),
        ("endpoints.0.url", json!("http://localhost:9"), "endpoints[0].url", "loopback"),
        ("endpoints.0.url", json!("http://localhost:8000"), "endpoints[0].url", "round in a circle"),
        ("endpoints.0.url", json!("h2c://127.0.0.1:8000"), "endpoints[0].url", "round in a circle"),
        ("endpoints.1.url", json!("https://A.example:443/v1/"), "endpoints[1].url", "twice"),
        ("endpoints.0.weight", json!(1_000_001), "endpoints[0].weight", "not between"),
        ("balance", json!({ "sticky": { "cookie": "a;b" } }), "balance.sticky.cookie", "cookie"),
        ("breaker.failure_percent", json!(0), "breaker.failure_percent", "between 1 and 100"),
        ("breaker.failure_percent", json!(101), "breaker.failure_percent", "between 1 and 100"),
        ("attempts", json!(0), "attempts", "between"),
        ("max_connections", json!(0), "max_connections", "between"),
        ("connect_timeout_ms", json!(0), "connect_timeout_ms", "1 ms"),
        ("health.path", json!("health"), "health.path", "begins with '/'"),
        ("allow_networks", json!(["10.0.0.0/8"]), "allow_networks", "administrator"),
    ];
    for (path, value, field, words) in cases {
        let what = format!("{path} = {value}");
        refuses(&upstream_said(&with(upstream(), path, value), false), field, words, &what);
    }
    let zero = json!({ "endpoints": [{ "url": "https://a.example", "weight": 0 }] });
    refuses(&upstream_said(&zero, false), "endpoints", "add up to 0", "zero");
}

#[test]
fn a_private_address_needs_to_be_allowed() {
    let private = |networks: Value| json!({ "endpoints": [{ "url": "http://10.1.2.3:80" }], "allow_networks": networks });
    assert_eq!(upstream_said(&private(json!(["10.0.0.0/8"])), true), []);
    assert_eq!(upstream_said(&private(json!(["10.1.2.3"])), true), []);
    refuses(&upstream_said(&private(json!(["192.168.0.0/16"])), true), "endpoints[0].url", "private", "another network");
    refuses(&upstream_said(&private(json!(["10.1.2.3/8"])), true), "allow_networks[0]", "not a network", "bits behind the prefix");
    refuses(&upstream_said(&private(json!(["ten"])), true), "allow_networks[0]", "not a network", "words");
    let local = json!({ "endpoints": [{ "url": "http://localhost:9" }], "allow_networks": ["127.0.0.0/8"] });
    assert_eq!(upstream_said(&local, true), []);
}

#[test]
fn bad_plans_name_their_field() {
    let plan = |spec: &Value| said(spec, super::plan);
    let limit = |name: &str, rate: &str| json!({ "name": name, "rate": rate });
    for rate in ["10/s", "10/minute", "1000/hour", "5000/day"] {
        assert_eq!(plan(&json!({ "limits": [limit("a", rate)] })), [], "{rate}");
    }
    for rate in ["", "10", "s/10", "10/fortnight", "0/s", "-1/s", "99999999999999999999/s"] {
        refuses(&plan(&json!({ "limits": [limit("a", rate)] })), "limits[0].rate", "", rate);
    }
    refuses(&plan(&json!({ "limits": [limit("a", "1/s"), limit("a", "2/s")] })), "limits[1].name", "two limits", "names");
    refuses(&plan(&json!({ "limits": [{ "name": "a", "rate": "1/s", "burst": 0 }] })), "limits[0].rate", "", "burst");
    refuses(&plan(&json!({ "weight": 0 })), "weight", "between", "weight");
    refuses(&plan(&json!({ "concurrency": 0 })), "concurrency", "between", "concurrency");
    refuses(&plan(&json!({ "criticality": "critical", "max_criticality": "default" })), "max_criticality", "below", "criticality");
    for (name, builtin) in plinth_store::resources::gateway::builtin_plans() {
        assert_eq!(plan(&serde_json::to_value(builtin).unwrap()), [], "{name}");
    }
}

#[test]
fn bad_issuers_name_their_field() {
    let issuer = |spec: &Value| asked("default", true, |asker| said(spec, |p, record| super::issuer(p, record, asker)));
    let good = json!({ "issuer": "https://id.example/realms/a", "audiences": ["plinth"], "tenant": "acme", "default_role": "viewer" });
    assert_eq!(issuer(&good), []);
    for (path, value, field, words) in [
        ("issuer", json!("http://id.example"), "issuer", "https"),
        ("issuer", json!("id"), "issuer", "URL"),
        ("issuer", json!("https://127.0.0.1"), "issuer", "loopback"),
        ("jwks_url", json!("http://id.example/keys"), "jwks_url", "https"),
        ("jwks_url", json!("https://id.example/keys#x"), "jwks_url", "not an address"),
        ("audiences", json!([]), "audiences", "at least one"),
        ("tenant", json!(null), "tenant", "belong to nobody"),
        ("default_role", json!(null), "roles", "allow nothing"),
        ("roles_claim", json!(""), "roles_claim", "not empty"),
    ] {
        refuses(&issuer(&with(good.clone(), path, value.clone())), field, words, &format!("{path} = {value}"));
    }
    assert_eq!(issuer(&with(good, "jwks_url", json!("https://id.example/keys?p=1"))), []);
}

#[test]
fn bad_lists_of_addresses_name_their_field() {
    let addresses = |spec: &Value| said(spec, super::addresses);
    assert_eq!(
        addresses(&json!({ "allow": ["0.0.0.0/0", "2001:db8::/32"], "deny": ["192.0.2.7"], "trusted_proxies": ["10.0.0.0/8"] })),
        []
    );
    refuses(&addresses(&json!({ "deny": ["192.0.2.0/33"] })), "deny[0]", "not a network", "length");
    refuses(&addresses(&json!({ "trusted_proxies": ["::/0"] })), "trusted_proxies", "believed", "everybody");
}

#[test]
fn expressions_match_as_a_whole_and_quickly() {
    let pattern = patterns::whole("a|ab").unwrap();
    assert!(pattern.is_match("ab") && !pattern.is_match("abc") && !pattern.is_match("xa"));
    // What makes a backtracking engine stand still.
    let evil = patterns::whole("(a+)+$").unwrap();
    assert!(!evil.is_match(&("a".repeat(100_000) + "b")));
    for usual in ["/v\\d+/users/\\w+", "/[a-z]+(/[0-9]+)?", "(?i)bearer .+", "/(chat|completions)/.*"] {
        assert!(patterns::whole(usual).is_ok(), "{usual}");
    }
}
