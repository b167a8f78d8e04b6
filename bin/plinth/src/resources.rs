//! Files with resources: reading them, and saying where in them something is wrong.
//!
//! YAML, JSON and TOML lead to the same tree, in which every value knows its line. Invariant: a problem that the node
//! finds in a resource is shown with file, line and field, as one that is found here.

mod json;
mod node;
mod toml;
mod write;
mod yaml;

use std::path::{Path, PathBuf};

use plinth_client::wire;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::files;

pub use node::{Node, Tree};
pub use write::yaml as to_yaml;

const MAX_FILE: u64 = 16 << 20;
const NEXT: &str = "nothing was changed; correct the files and try again";
const FIELDS: [&str; 4] = ["kind", "name", "expect", "spec"];

/// Something wrong, with its line.
#[derive(Debug, PartialEq, Eq)]
pub struct Flaw {
    pub line: usize,
    pub text: String,
}

impl Flaw {
    pub fn new(line: usize, text: impl Into<String>) -> Self {
        Self { line, text: text.into() }
    }
}

/// Resources with where each of them stands.
#[derive(Debug, Default)]
pub struct Bundle {
    pub resources: Vec<wire::Resource>,
    places: Vec<(PathBuf, Node)>,
}

impl Bundle {
    /// Reads all files; every mistake of every file is named.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        let (mut bundle, mut mistakes) = (Self::default(), Vec::new());
        for path in paths {
            let text = files::read_text(path, MAX_FILE)?;
            match parse(path, &text) {
                Ok(found) => {
                    for (resource, node) in found {
                        bundle.resources.push(resource);
                        bundle.places.push((path.clone(), node));
                    }
                }
                Err(flaws) => mistakes.extend(flaws.into_iter().map(|flaw| format!("{}:{}: {}", path.display(), flaw.line, flaw.text))),
            }
        }
        failure(mistakes, Exit::Failed).map_or(Ok(bundle), Err)
    }

    /// The node's refusal, with files and lines in place of the numbers of resources.
    pub fn explain(&self, error: plinth_client::Error) -> Failure {
        let plinth_client::Error::Problem(refusal) = &error else { return error.into() };
        let problem = &refusal.problem;
        let listed = problem.problems.iter().map(|one| (one.field.as_str(), one.detail.as_str()));
        let alone = problem.field.as_deref().filter(|_| problem.problems.is_empty()).map(|field| (field, problem.detail.as_str()));
        let lines: Option<Vec<String>> = listed.chain(alone).map(|(field, text)| self.place(field, text)).collect();
        let lines = lines.filter(|lines| !lines.is_empty());
        let original = Failure::from(error);
        match lines {
            Some(lines) => original.instead(lines).next(NEXT),
            None => original,
        }
    }

    /// `routes.yaml:17: spec.targets: …` for `resources[2].spec.targets`.
    fn place(&self, field: &str, text: &str) -> Option<String> {
        let rest = field.strip_prefix("resources[")?;
        let (number, path) = rest.split_once(']')?;
        let (file, node) = self.places.get(number.parse::<usize>().ok()?)?;
        let path = path.trim_start_matches('.');
        let line = node.line_of(path);
        let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
        Some(format!("{}:{line}: {path}{text}", file.display()))
    }
}

fn failure(mut lines: Vec<String>, exit: Exit) -> Option<Failure> {
    (!lines.is_empty()).then(|| Failure::new(exit, lines.remove(0)).also(lines).next(NEXT))
}

fn parse(path: &Path, text: &str) -> Result<Vec<(wire::Resource, Node)>, Vec<Flaw>> {
    let documents = match path.extension().and_then(|e| e.to_str()) {
        Some("json") => json::parse(text),
        Some("toml") => toml::parse(text),
        Some("yaml" | "yml") => yaml::parse(text),
        _ => guess(text),
    };
    let documents = documents.map_err(|flaw| vec![flaw])?;
    let (mut found, mut flaws) = (Vec::new(), Vec::new());
    for document in documents {
        for node in listed(document) {
            match resource(&node) {
                Ok(resource) => found.push((resource, node)),
                Err(wrong) => flaws.extend(wrong),
            }
        }
    }
    if flaws.is_empty() { Ok(found) } else { Err(flaws) }
}

/// What has no telling name: JSON begins with a bracket, TOML has tables, the rest is YAML.
fn guess(text: &str) -> Result<Vec<Node>, Flaw> {
    let start = text.trim_start();
    let table = text.lines().any(|line| line.trim_start().starts_with("[["));
    match start.chars().next() {
        Some('{') => json::parse(text),
        Some('[') if !start.starts_with("[[") => json::parse(text),
        _ if table => toml::parse(text),
        _ => yaml::parse(text),
    }
}

/// The resources of a document: one, a list, or those under `resources`.
fn listed(document: Node) -> Vec<Node> {
    match document.tree {
        Tree::List(items) => items,
        Tree::Null => Vec::new(),
        Tree::Map(mut fields) if fields.len() == 1 && fields.iter().any(|field| field.name == "resources") => {
            match fields.pop().map(|field| field.node) {
                Some(Node { tree: Tree::List(items), .. }) => items,
                other => other.into_iter().collect(),
            }
        }
        tree => vec![Node { tree, ..document }],
    }
}

fn resource(node: &Node) -> Result<wire::Resource, Vec<Flaw>> {
    let Tree::Map(fields) = &node.tree else {
        return Err(vec![Flaw::new(node.line, "a resource has kind, name and spec")]);
    };
    let mut flaws = Vec::new();
    for field in fields.iter().filter(|field| !FIELDS.contains(&field.name.as_str())) {
        let near = FIELDS.iter().min_by_key(|known| strsim::damerau_levenshtein(known, &field.name));
        let near = near.filter(|known| strsim::damerau_levenshtein(known, &field.name) <= 3);
        let advice = near.map_or_else(|| format!("known are {}", FIELDS.join(", ")), |near| format!("did you mean '{near}'?"));
        flaws.push(Flaw::new(field.line, format!("unknown field '{}': {advice}", field.name)));
    }
    let mut text = |name: &str| match node.field(name) {
        Some(Node { tree: Tree::Text(text), .. }) => text.clone(),
        Some(other) => {
            flaws.push(Flaw::new(other.line, format!("{name}: this is no text; put it into quotes if it is meant as one")));
            String::new()
        }
        None => {
            flaws.push(Flaw::new(node.line, format!("the resource has no {name}")));
            String::new()
        }
    };
    let (kind, name) = (text("kind"), text("name"));
    let expect = node
        .field("expect")
        .filter(|node| node.tree != Tree::Null)
        .map(|node| node.value().as_u64().ok_or_else(|| Flaw::new(node.line, "expect: this is no revision")));
    let expect = expect.transpose().unwrap_or_else(|flaw| {
        flaws.push(flaw);
        None
    });
    let spec = node.field("spec").map_or(Value::Null, Node::value);
    if flaws.is_empty() { Ok(wire::Resource { kind, name, expect, spec }) } else { Err(flaws) }
}

#[cfg(test)]
mod tests;
