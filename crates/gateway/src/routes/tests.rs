//! What matches what, in which order, and what is left out.

use std::collections::BTreeMap;

use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::*;

struct NoAliases;

impl Aliases for NoAliases {
    fn version(&self, _: &TenantName, model: &ModelName, alias: &str) -> Option<VersionNumber> {
        (model.as_str() == "digits" && alias == "canary").then(|| "4".parse().unwrap())
    }
}

impl FilterSlots for NoAliases {
    fn slot(&self, _: &TenantName, named: &FilterRef) -> Handle {
        Handle::new(named.clone(), None)
    }
}

fn table(routes: &[(&str, Value)]) -> RouteTable {
    let record = |spec: &Value| Arc::new(serde_json::from_value::<RouteRecord>(spec.clone()).unwrap());
    let own: BTreeMap<Label, _> = routes.iter().map(|(name, spec)| (name.parse().unwrap(), record(spec))).collect();
    RouteTable::compile(&[(TenantName::default_tenant(), Arc::new(own))].into_iter().collect(), &NoAliases, &NoAliases)
}

fn route(matches: Value) -> Value {
    json!({"matches": matches, "targets": [{"to": {"upstream": "u"}}]})
}

/// The name of the route of a request; `headers` as `name: value`.
fn found(table: &RouteTable, method: &str, host: &str, path: &str, headers: &[(&'static str, &str)]) -> Option<String> {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect();
    let (method, tenant) = (method.parse::<Method>().unwrap(), TenantName::default_tenant());
    let model = Named::of(path).map(|named| named.model);
    let asked = Asked { method: &method, path, host, headers: &headers, tenant: &tenant, model };
    table.of(&tenant, &asked).or_else(|| table.public(&asked)).map(|route| route.name.to_string())
}

#[test]
fn every_condition_counts() {
    let table = table(&[
        ("prefix", route(json!({"path": {"prefix": "/a/"}}))),
        ("longer", route(json!({"path": {"prefix": "/a/b"}}))),
        ("exact", route(json!({"path": {"exact": "/a/b"}}))),
        ("posts", route(json!({"path": {"prefix": "/only"}, "methods": ["POST"]}))),
        ("regex", route(json!({"path": {"regex": "/v[0-9]+/x"}}))),
        (
            "header",
            route(json!({"path": {"prefix": "/h"}, "headers": [{"name": "x-kind", "value": {"regex": "a|b"}}, {"name": "x-there"}]})),
        ),
        ("host", route(json!({"hosts": ["*.example.com", "one.org"], "path": {"prefix": "/host"}}))),
        ("model", route(json!({"models": ["digits"]}))),
    ]);
    let plain = |path: &str| found(&table, "GET", "h", path, &[]);
    for (path, name) in [
        ("/a", Some("prefix")),
        ("/a/c", Some("prefix")),
        ("/ab", None),
        ("/a/b", Some("exact")),
        ("/a/b/c", Some("longer")),
        ("/a/bc", Some("prefix")),
        ("/a%2Fb", None),
        ("/only", None),
        ("/v12/x", Some("regex")),
        ("/v12/x/y", None),
        ("/w/v1/x", None),
        ("/v2/models/digits/infer", Some("model")),
        ("/v2/models/digits/versions/3", Some("model")),
        ("/v2/models/other/infer", None),
        ("/v2/models/stats", None),
        ("/", None),
        ("", None),
    ] {
        assert_eq!(plain(path).as_deref(), name, "{path}");
    }
    assert_eq!(found(&table, "POST", "h", "/only", &[]).as_deref(), Some("posts"));
    for (headers, hit) in [
        (&[("x-kind", "a"), ("x-there", "")][..], true),
        (&[("x-kind", "ab"), ("x-there", "")], false),
        (&[("x-kind", "b")], false),
        (&[], false),
    ] {
        assert_eq!(found(&table, "GET", "h", "/h", headers).is_some(), hit, "{headers:?}");
    }
    for (host, hit) in [
        ("api.example.com", true),
        ("API.EXAMPLE.COM", true),
        ("example.com", false),
        ("evilexample.com", false),
        ("one.org", true),
        ("two.org", false),
    ] {
        assert_eq!(found(&table, "GET", host, "/host", &[]).is_some(), hit, "{host}");
    }
}

#[test]
fn priority_comes_before_length_and_length_before_name() {
    let first = |mut spec: Value, priority: i32| {
        spec["priority"] = json!(priority);
        spec
    };
    let table = table(&[
        ("b", route(json!({"path": {"prefix": "/x"}}))),
        ("a", route(json!({"path": {"prefix": "/x"}}))),
        ("long", route(json!({"path": {"prefix": "/x/y"}}))),
        ("anywhere", first(route(json!({"methods": ["PUT"]})), 1)),
        ("last", first(route(json!({})), -1)),
    ]);
    assert_eq!(found(&table, "GET", "h", "/x", &[]).as_deref(), Some("a"));
    assert_eq!(found(&table, "GET", "h", "/x/y/z", &[]).as_deref(), Some("long"));
    assert_eq!(found(&table, "PUT", "h", "/x/y/z", &[]).as_deref(), Some("anywhere"));
    assert_eq!(found(&table, "GET", "h", "/elsewhere", &[]).as_deref(), Some("last"));
}

#[test]
fn what_cannot_be_compiled_is_left_out_and_the_rest_stands() {
    let good = route(json!({"path": {"prefix": "/good"}}));
    let bad = [
        json!({"targets": []}),
        json!({"targets": [{"to": {"upstream": "u"}, "weight": 0}, {"to": {"upstream": "v"}, "weight": 0}]}),
        route(json!({"path": {"regex": "("}})),
        route(json!({"path": {"regex": "((a{100}){100}){100}"}})),
        json!({"targets": [{"to": {"model": {"name": "digits", "alias": "nothing"}}}]}),
        json!({"targets": [{"to": {"upstream": "u"}}], "pins": [{"target": "v"}]}),
        json!({"targets": [{"to": {"upstream": "u"}}], "request_headers": {"set": {"x": "a\nb"}}}),
        json!({"targets": [{"to": {"upstream": "u"}}], "cors": {"origins": ["*"], "credentials": true}}),
    ];
    for bad in bad {
        let table = table(&[("bad", bad.clone()), ("good", good.clone())]);
        assert_eq!(found(&table, "GET", "h", "/good", &[]).as_deref(), Some("good"), "{bad}");
        assert_eq!(found(&table, "GET", "h", "/other", &[]), None, "{bad}");
    }
}

#[test]
fn paths_are_rewritten() {
    let rewritten = |matches: Value, rewrite: Value, path: &str| {
        let table = table(&[("r", json!({"matches": matches, "targets": [{"to": {"upstream": "u"}}], "rewrite": rewrite}))]);
        let (headers, tenant) = (HeaderMap::new(), TenantName::default_tenant());
        let asked = Asked { method: &Method::GET, path, host: "", headers: &headers, tenant: &tenant, model: None };
        table.of(&tenant, &asked).unwrap().rewritten(path).unwrap()
    };
    let prefix = json!({"path": {"prefix": "/a/"}});
    assert_eq!(rewritten(prefix.clone(), json!({"prefix": "/b"}), "/a/c"), "/b/c");
    assert_eq!(rewritten(prefix.clone(), json!({"prefix": "/b/"}), "/a"), "/b");
    assert_eq!(rewritten(prefix.clone(), json!({"prefix": "/"}), "/a/c"), "/c");
    assert_eq!(rewritten(prefix.clone(), json!({"prefix": "/"}), "/a"), "/");
    assert_eq!(rewritten(prefix, json!({"regex": {"pattern": "^/a/([0-9]+)$", "replacement": "/item/$1"}}), "/a/7"), "/item/7");
}

#[test]
fn an_alias_stands_for_its_version() {
    let table = table(&[("r", json!({"matches": {"models": ["digits"]}, "targets": [{"to": {"model": {"alias": "canary"}}}]}))]);
    let (headers, tenant) = (HeaderMap::new(), TenantName::default_tenant());
    let asked = Asked {
        method: &Method::POST,
        path: "/v2/models/digits/infer",
        host: "",
        headers: &headers,
        tenant: &tenant,
        model: Some("digits"),
    };
    let route = table.of(&tenant, &asked).unwrap();
    let To::Model(model) = &route.target(&asked, 1).to else { panic!("a model") };
    assert_eq!(model.path(asked.path).unwrap(), "/v2/models/digits/versions/4/infer");
}

#[test]
fn calls_are_looked_at_only_where_models_matter() {
    let goes = |routes: &[(&str, Value)]| table(routes).goes_by_models(&TenantName::default_tenant(), false);
    let to_model = |matches: Value| json!({"matches": matches, "targets": [{"to": {"model": {"name": "digits"}}}]});
    assert!(
        !goes(&[]) && !goes(&[("a", route(json!({"path": {"prefix": "/a"}})))]) && !goes(&[("a", route(json!({"methods": ["POST"]})))])
    );
    for matches in [
        json!({"models": ["digits"]}),
        json!({"path": {"prefix": "/v2/models/digits"}}),
        json!({"path": {"regex": "/v2/models/.*"}}),
        json!({"path": {"prefix": "/inference.GRPCInferenceService"}}),
    ] {
        assert!(goes(&[("a", route(matches.clone()))]), "{matches}");
    }
    assert!(goes(&[("a", to_model(json!({"methods": ["POST"]})))]), "any call may be for it");
    // What comes first is told by priority, then by the length of the path.
    let two =
        table(&[("low", route(json!({"path": {"prefix": "/v2"}}))), ("model", route(json!({"path": {"prefix": "/v2/models/digits"}})))]);
    assert_eq!(found(&two, "POST", "h", &crate::dispatch::grpc::path_of("digits"), &[]).as_deref(), Some("model"));
}
