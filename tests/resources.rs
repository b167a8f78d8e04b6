//! Resources through the command line: applied as a whole or refused with file and line, shown, compared, taken back.

use std::process::{Command, Output};

use crate::support::{Node, NodeOptions, repository};

const GOOD: &str = "\
kind: plan
name: gold
spec:
  limits: [{name: requests, rate: 50/s}]
---
kind: tenant
name: acme
spec: {plan: gold}
---
kind: upstream
name: llm
spec:
  endpoints: [{url: 'https://llm.example'}]
---
kind: route
name: chat
spec:
  matches: {path: {prefix: /chat}, methods: [POST]}
  targets:
    - to: {upstream: llm}
";

const BAD: &str = "\
kind: tenant
name: acme
spec: {plan: silver}
---
kind: route
name: chat
spec:
  matches:
    path: {prefix: /v1/chat}
  targets:
    - weight: 0
      to:
        upstream: nowhere
  timeout_ms: 0
";

struct Shell<'a> {
    node: &'a Node,
    home: tempfile::TempDir,
}

impl Shell<'_> {
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.home.path().join(name), text).unwrap();
    }

    /// Runs a command; its standard output, or its standard error when it ends with another code than 0.
    fn run(&self, code: i32, line: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plinth"));
        command.args(line.split(' ')).env_clear().env("HOME", self.home.path()).current_dir(self.home.path());
        let output: Output = command.env("PLINTH_SERVER", &self.node.http).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(code), "{line}\n{out}\n{err}");
        if code == 0 || err.is_empty() { out } else { err }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_applied_shown_and_taken_back() {
    let node = Node::start(NodeOptions::dev()).await;
    let shell = Shell { node: &node, home: tempfile::tempdir().unwrap() };
    shell.write("good.yaml", GOOD);
    let diff = shell.run(1, "diff -f good.yaml");
    assert!(diff.contains("--- (not there)\n+++ route/chat\n") && diff.contains("+  - to:\n"), "{diff}");
    let applied = shell.run(0, "apply -f good.yaml");
    assert!(applied.contains("created") && applied.contains("plinth rollback"), "{applied}");
    assert_eq!(shell.run(0, "diff -f good.yaml"), "");

    // What is shown can be applied again, in both languages, and changes nothing.
    shell.write("all.yaml", &shell.run(0, "get all --expect -o yaml"));
    shell.write("routes.json", &shell.run(0, "get routes -o json"));
    let again = shell.run(1, "diff -f all.yaml");
    assert!(!again.contains("gold") && !again.contains("chat") && again.contains("plan/free"), "only built-in plans: {again}");
    assert_eq!(shell.run(0, "diff -f routes.json"), "");

    let changed = GOOD.replace("50/s", "60/s");
    shell.write("changed.yaml", &changed);
    let diff = shell.run(1, "diff -f changed.yaml");
    assert!(diff.contains("-    rate: \"50/s\"\n+    rate: \"60/s\"\n") && !diff.contains("chat"), "{diff}");
    shell.run(0, "apply -f changed.yaml");
    let conflict = shell.run(6, "apply -f all.yaml");
    assert!(conflict.contains("all.yaml:") && conflict.contains("changed by revision"), "{conflict}");
    let history = shell.run(0, "history");
    assert!(history.contains("apply"), "{history}");
    shell.run(0, "rollback");
    assert!(shell.run(0, "get plan gold -o yaml").contains("50/s"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_names_its_lines() {
    let node = Node::start(NodeOptions::dev()).await;
    let shell = Shell { node: &node, home: tempfile::tempdir().unwrap() };
    shell.write("good.yaml", GOOD);
    shell.write("bad.yaml", BAD);
    shell.run(0, "apply -f good.yaml");
    let before = shell.run(0, "get all --expect -o yaml");
    for (code, command) in [(1, "apply -f bad.yaml"), (1, "apply -f good.yaml -f bad.yaml"), (2, "diff -f bad.yaml")] {
        let said = shell.run(code, command);
        for expected in [
            "bad.yaml:9: spec.matches.path.prefix: /v1 and what lies below it",
            "bad.yaml:10: spec.targets: the weights add up to 0; give at least one target a weight",
            "bad.yaml:14: spec.timeout_ms: 0 ms",
        ] {
            assert!(said.contains(expected), "{command}: wanted {expected:?}\n{said}");
        }
        assert!(said.starts_with("error: ") && said.contains("next:  nothing was changed"), "{said}");
    }
    let said = shell.run(1, "apply -f bad.yaml");
    assert!(said.contains("bad.yaml:3: spec.plan: there is no plan 'silver'"), "{said}");
    assert!(said.contains("bad.yaml:13: spec.targets[0].to.upstream: there is no upstream 'nowhere'"), "{said}");
    assert_eq!(shell.run(0, "get all --expect -o yaml"), before);

    assert!(shell.run(6, "delete upstream llm").contains("used by the route 'chat'"));
    shell.run(0, "delete route chat");
    shell.run(0, "delete upstream llm");
    assert!(shell.run(5, "delete upstream llm").contains("no upstream"));
    assert!(shell.run(5, "get route chat").contains("no route"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_s_things_are_its_own() {
    let node = Node::start(NodeOptions::dev()).await;
    let shell = Shell { node: &node, home: tempfile::tempdir().unwrap() };
    shell.write("tenant.yaml", "kind: tenant\nname: acme\n");
    shell.run(0, "apply -f tenant.yaml");
    shell.write("mine.yaml", "kind: upstream\nname: u\nspec: {endpoints: [{url: 'https://u.example'}]}\n");
    shell.run(0, "apply -f mine.yaml --tenant acme");
    assert!(shell.run(0, "get upstreams --tenant acme").contains('u'));
    assert_eq!(shell.run(0, "get upstreams"), "none\n");
    shell.write("plan.yaml", "kind: plan\nname: p\n");
    assert!(shell.run(4, "apply -f plan.yaml --tenant acme").contains("plan.yaml:1: kind: a plan concerns all tenants"));
    assert!(shell.run(6, "delete tenant acme").contains("its upstream 'u'"));
    assert!(shell.run(5, "get upstreams --tenant nobody").contains("tenant"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_can_be_applied() {
    let node = Node::start(NodeOptions::dev()).await;
    let shell = Shell { node: &node, home: tempfile::tempdir().unwrap() };
    let example = |name: &str| repository().join("examples/gateway").join(name).to_str().unwrap().to_owned();
    let all = ["plans.yaml", "tenants.yaml", "routes.yaml"].map(example).join(" -f ");
    let applied = shell.run(0, &format!("apply -f {all}"));
    assert_eq!(applied.matches("created").count(), 7, "{applied}");
    assert_eq!(shell.run(0, &format!("diff -f {all}")), "");
}
