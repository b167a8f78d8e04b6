//! Relative links in Markdown lead somewhere, with their anchors, and every page under `docs/` that is named exists.
//!
//! A small reader of Markdown: fenced code is skipped, `code` is not searched for links, nesting is not understood. It
//! fetches nothing.

use std::collections::BTreeSet;

use super::tree::Tree;
use crate::report::Finding;

/// Everything that leads nowhere.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".md") {
        for target in links(text) {
            findings.extend(
                broken(tree, path, &target).map(|problem| Finding::new(path, problem, "correct the link, or write what it promises")),
            );
        }
    }
    let sources = tree.ending(".rs").filter(|(path, _)| !path.starts_with("xtask/"));
    for (path, text) in tree.ending(".md").chain(sources) {
        let missing = named_pages(text).into_iter().filter(|page| !tree.contains(page));
        findings.extend(
            missing
                .map(|page| Finding::new(path, format!("it names {page}, which does not exist"), "write the page, or do not promise it")),
        );
    }
    findings
}

/// Lines outside fenced code, each without its `code`.
fn prose(text: &str) -> impl Iterator<Item = String> {
    let mut fenced = false;
    text.lines().filter_map(move |line| {
        let start = line.trim_start();
        if start.starts_with("```") || start.starts_with("~~~") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then(|| line.split('`').step_by(2).collect::<Vec<_>>().join("`"))
    })
}

/// The targets of all links to files of the repository.
fn links(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for line in prose(text) {
        for part in line.split("](").skip(1) {
            targets.extend(part.split(')').next().map(str::to_owned));
        }
        if let Some((_, target)) = line.trim_start().strip_prefix('[').and_then(|l| l.split_once("]: ")) {
            targets.push(target.to_owned());
        }
    }
    let first_word = |t: String| t.split_whitespace().next().unwrap_or_default().trim_matches(['<', '>']).to_owned();
    targets.into_iter().map(first_word).filter(|t| !t.is_empty() && !t.contains("://") && !t.starts_with("mailto:")).collect()
}

/// Why a link from a file does not lead anywhere.
fn broken(tree: &Tree, from: &str, target: &str) -> Option<String> {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() { Some(from.to_owned()) } else { resolve(from, file) };
    let Some(path) = path.filter(|p| tree.contains(p)) else { return Some(format!("the link '{target}' leads nowhere")) };
    let anchor = anchor.filter(|_| path.ends_with(".md"))?;
    let text = tree.text(&path)?;
    (!anchors(text).contains(anchor)).then(|| format!("the link '{target}' leads to no heading"))
}

/// A path relative to a file's directory, as a path under the root; `None` when it leaves the root.
fn resolve(from: &str, relative: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The anchors that a page's headings get: lower case, spaces to hyphens, without punctuation.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|l| l.starts_with('#')).map(|l| l.trim_start_matches('#').trim().to_lowercase());
    headings
        .map(|h| h.chars().filter(|c| c.is_alphanumeric() || "- _".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect())
        .collect()
}

/// Pages that a text names as `docs/….md`, from the root.
fn named_pages(text: &str) -> BTreeSet<String> {
    let mut pages = BTreeSet::new();
    for (position, _) in text.match_indices("docs/") {
        let (before, here) = text.split_at(position);
        if before.ends_with(|c: char| c.is_alphanumeric() || "/.-_".contains(c)) {
            continue;
        }
        let end = here.find(|c: char| !(c.is_ascii_alphanumeric() || "/._-".contains(c))).unwrap_or(here.len());
        let name = here.get(..end).unwrap_or_default().trim_end_matches('.');
        if name.ends_with(".md") {
            pages.insert(name.to_owned());
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files)).into_iter().map(|f| f.problem).collect()
    }

    #[test]
    fn links_that_lead_somewhere() {
        let page =
            "[a](b.md) [up](../README.md#two-words) ![i](img/) <https://example.org> [w](https://example.org/x.md) [s](#here)\n# Here\n";
        let files = [("docs/a.md", page), ("docs/b.md", ""), ("docs/img/x.png", ""), ("README.md", "## Two `words`!\n")];
        assert_eq!(problems(&files), [""; 0]);
    }

    #[test]
    fn links_that_lead_nowhere() {
        assert_eq!(problems(&[("a.md", "[a](b.md \"title\")")]), ["the link 'b.md' leads nowhere"]);
        assert_eq!(problems(&[("a.md", "[a](../b.md)")]), ["the link '../b.md' leads nowhere"]);
        assert_eq!(problems(&[("a.md", "[a]: b.md")]), ["the link 'b.md' leads nowhere"]);
        assert_eq!(problems(&[("a.md", "[a](#gone)\n# Here")]), ["the link '#gone' leads to no heading"]);
    }

    #[test]
    fn code_is_not_searched_for_links() {
        assert_eq!(problems(&[("a.md", "`[a](b.md)`\n```\n[c](d.md)\n```\n")]), [""; 0]);
    }

    #[test]
    fn pages_that_are_only_named_must_exist_too() {
        assert_eq!(problems(&[("crates/a.rs", "//! See `docs/cli.md`.")]), ["it names docs/cli.md, which does not exist"]);
        assert_eq!(problems(&[("crates/a.rs", "//! See docs/cli.md."), ("docs/cli.md", "")]), [""; 0]);
        assert_eq!(problems(&[("a.md", "`docs/errors/<slug>.md`, https://example.org/docs/x.md")]), [""; 0]);
    }
}
