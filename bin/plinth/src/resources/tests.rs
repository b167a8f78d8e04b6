//! The three languages lead to the same resources; mistakes have their line; what is written reads back.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const YAML: &str = "\
kind: upstream
name: llm
spec:
  endpoints:
    - url: https://a.example
      weight: 2
---
# a comment
kind: route
name: chat
expect: 7
spec:
  matches: {path: {prefix: /chat}, methods: [POST]}
  targets:
    - weight: 0
      to:
        upstream: llm
  request_headers:
    set:
      x.team: 'yes'
";

fn read(name: &str, text: &str) -> Vec<wire::Resource> {
    parse(Path::new(name), text).unwrap().into_iter().map(|(resource, _)| resource).collect()
}

fn wrong(name: &str, text: &str) -> Vec<(usize, String)> {
    parse(Path::new(name), text).unwrap_err().into_iter().map(|flaw| (flaw.line, flaw.text)).collect()
}

#[test]
fn resources_are_read_from_all_languages() {
    let from_yaml = read("x.yaml", YAML);
    let toml = r#"
[[resources]]
kind = "upstream"
name = "llm"
[[resources.spec.endpoints]]
url = "https://a.example"
weight = 2

[[resources]]
kind = "route"
name = "chat"
expect = 7
[resources.spec]
matches = { path = { prefix = "/chat" }, methods = ["POST"] }
targets = [{ weight = 0, to = { upstream = "llm" } }]
request_headers.set."x.team" = "yes"
"#;
    let json = serde_json::to_string_pretty(&from_yaml).unwrap();
    for (name, text) in [("x.json", json.as_str()), ("-", &json), ("x.toml", toml), ("-", toml), ("-", YAML), ("x.yml", YAML)] {
        assert_eq!(read(name, text), from_yaml, "{name}");
    }
    assert_eq!(from_yaml[1].spec["request_headers"]["set"]["x.team"], "yes");
    assert_eq!(read("-", &format!("{{\"resources\":{json}}}")), from_yaml);
    let one = serde_json::to_string(&from_yaml[0]).unwrap();
    assert_eq!(read("x.json", &one), from_yaml[..1]);
    assert_eq!(read("x.yaml", &format!("resources: {json}")), from_yaml, "JSON is YAML");
    assert_eq!(read("x.yaml", "# nothing\n"), []);
}

#[test]
fn mistakes_have_their_line() {
    for (name, text, line, words) in [
        ("x.json", "[\n{\"kind\":\"model\",\"name\":\"x\",\n\"specs\":{}}]", 3, "did you mean 'spec'?"),
        ("x.json", "{\n", 2, "not JSON"),
        ("x.json", "7", 1, "kind, name and spec"),
        ("x.json", "{\"kind\":\"model\",\n\"kind\":\"plan\"}", 2, "twice"),
        ("x.yaml", "kind: model\nname: x\nspecs: {}\n", 3, "did you mean 'spec'?"),
        ("x.yaml", "kind: model\nname: 7\n", 2, "put it into quotes"),
        ("x.yaml", "kind: model\nname: no\n", 0, ""),
        ("x.yaml", "kind: model\n", 1, "no name"),
        ("x.yaml", "kind: model\nname: x\nname: y\n", 3, "twice"),
        ("x.yaml", "kind: &a model\nname: *a\n", 1, "anchors"),
        ("x.yaml", "kind: model\nname: x\nspec: !!str x\n", 3, "tags"),
        ("x.yaml", "kind: model\nname: x\nspec: {<<: {}}\n", 3, "merge"),
        ("x.yaml", "kind: model\nname: x\nexpect: soon\n", 3, "no revision"),
        ("x.yaml", "a: [1\nb: 2\n", 2, "not YAML"),
        ("x.toml", "[[resources]]\nkind = 'model'\nname = \n", 3, "not TOML"),
        ("x.toml", "[[resource]]\nkind='model'\nname='x'", 1, "no kind"),
    ] {
        if line == 0 {
            assert_eq!(read(name, text)[0].name, "no", "a word of YAML 1.2, not a truth value");
            continue;
        }
        let found = wrong(name, text);
        assert!(found.iter().any(|(at, said)| *at == line && said.contains(words)), "{text:?}: {found:?}");
    }
    let all = wrong("x.yaml", "kind: model\nnaem: x\n---\nkind: 1\nname: y\n");
    assert_eq!(all.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 1, 4], "all of them at once");
}

#[test]
fn depth_has_an_end() {
    for (name, text) in [("x.yaml", "[".repeat(200)), ("x.json", "[".repeat(100) + &"]".repeat(100))] {
        assert!(!wrong(name, &text).is_empty());
    }
}

#[test]
fn what_the_node_finds_gets_file_and_line() {
    let places = |name: &str, text: &str| {
        let (resources, places) =
            parse(Path::new(name), text).unwrap().into_iter().map(|(r, node)| (r, (PathBuf::from(name), node))).unzip();
        Bundle { resources, places }
    };
    let bundle = places("routes.yaml", YAML);
    for (field, expected) in [
        ("resources[1].spec.targets", "routes.yaml:14: spec.targets: bad"),
        ("resources[1].spec.targets[0].weight", "routes.yaml:15: spec.targets[0].weight: bad"),
        ("resources[1].spec.targets[0].to.upstream", "routes.yaml:17: spec.targets[0].to.upstream: bad"),
        ("resources[1].spec.request_headers.set.x.team", "routes.yaml:20: spec.request_headers.set.x.team: bad"),
        ("resources[1].spec.matches.path.prefix", "routes.yaml:13: spec.matches.path.prefix: bad"),
        ("resources[1].spec.timeout_ms", "routes.yaml:13: spec.timeout_ms: bad"),
        ("resources[0].name", "routes.yaml:2: name: bad"),
        ("resources[0]", "routes.yaml:1: bad"),
    ] {
        assert_eq!(bundle.place(field, "bad").as_deref(), Some(expected), "{field}");
    }
    assert_eq!(bundle.place("resources[2].name", "bad"), None);
    let toml = places("x.toml", "[[resources]]\nkind = \"plan\"\nname = \"p\"\n[resources.spec]\nweight = 0\n");
    assert_eq!(toml.place("resources[0].spec.weight", "bad").as_deref(), Some("x.toml:5: spec.weight: bad"));
}

fn any_value() -> impl Strategy<Value = Value> {
    let words =
        prop::sample::select(vec!["yes", "no", "null", "~", "1e3", "0x10", "- a", "a: b", "#x", "", " a", "10/s", "*.example", "\u{85}"]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9f64..1e9).prop_map(Value::from),
        words.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[ -~\n\t]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(prop_oneof!["[a-z.]{1,6}", any::<String>()], inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back(value in any_value()) {
        let text = to_yaml(&json!({ "v": value }));
        let read = yaml::parse(&text).map_err(|flaw| TestCaseError::fail(format!("{flaw:?} in\n{text}")))?;
        prop_assert_eq!(&read[0].value()["v"], &value, "{}", text);
    }

    #[test]
    fn no_text_stops_the_readers(text in "[ -~\n\t]{0,80}") {
        for name in ["x.yaml", "x.json", "x.toml", "-"] {
            let _ = parse(Path::new(name), &text);
        }
    }
}
