//! The code map of ARCHITECTURE.md names every package that there is, by its directory, and none that is gone.

use std::collections::BTreeSet;

use super::tree::Tree;
use crate::report::Finding;

const FILE: &str = "ARCHITECTURE.md";

/// Compares the map with the directories of the workspace's packages.
pub fn check(tree: &Tree, directories: &[&str]) -> Vec<Finding> {
    let Some(text) = tree.text(FILE) else {
        return vec![Finding::new(FILE, "the file is missing", "write it: bird's eye, code map, invariants")];
    };
    let Some(map) = section(text) else {
        return vec![Finding::new(
            FILE,
            "it has no section 'Code map'",
            "add '## Code map', which names each package by its directory in `code`",
        )];
    };
    let named: BTreeSet<&str> = map.split('`').skip(1).step_by(2).collect();
    let mut findings = Vec::new();
    for directory in directories.iter().filter(|d| !named.contains(*d)) {
        findings.push(Finding::new(FILE, format!("the code map does not name `{directory}`"), "say in one line what lives there"));
    }
    let gone = named.iter().filter(|name| is_directory_of_package(name) && !directories.contains(*name));
    findings.extend(
        gone.map(|name| Finding::new(FILE, format!("the code map names `{name}`, which is no package"), "delete or rename the line")),
    );
    findings
}

/// The text below the heading "Code map", up to the next heading of its level.
fn section(text: &str) -> Option<&str> {
    let start = text.lines().find(|l| l.starts_with("## ") && l.to_ascii_lowercase().contains("code map"))?;
    let rest = text.split_once(start)?.1;
    Some(rest.split_once("\n## ").map_or(rest, |(map, _)| map))
}

/// `crates/types`, but not `crates/types/src/error.rs`.
fn is_directory_of_package(name: &str) -> bool {
    ["crates/", "bin/"]
        .iter()
        .any(|parent| name.strip_prefix(parent).is_some_and(|rest| !rest.is_empty() && !rest.contains(['/', '<', '*'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(map: &str) -> Vec<String> {
        let text = format!("# A\n\n`crates/elsewhere`\n\n## 2. Code map\n\n{map}\n\n## Invariants\n\n`crates/later`\n");
        check(&Tree::of(&[(FILE, &text)]), &["crates/types", "xtask"]).into_iter().map(|f| f.problem).collect()
    }

    #[test]
    fn every_package_is_named_and_nothing_else() {
        assert_eq!(problems("| 0 | `crates/types` | `crates/types/src/error.rs` |\n\n`xtask`, `Digest`"), [""; 0]);
        assert_eq!(problems("`crates/types`"), ["the code map does not name `xtask`"]);
        assert_eq!(problems("`crates/types` `xtask` `crates/gone`"), ["the code map names `crates/gone`, which is no package"]);
    }

    #[test]
    fn a_missing_map_is_found() {
        assert_eq!(check(&Tree::of(&[]), &[])[0].problem, "the file is missing");
        assert_eq!(check(&Tree::of(&[(FILE, "# A")]), &[])[0].problem, "it has no section 'Code map'");
    }
}
