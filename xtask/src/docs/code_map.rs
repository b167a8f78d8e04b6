//! The code map of ARCHITECTURE.md names every package that there is, on its floor, and none that is gone.
//!
//! A package is named by its name or by its directory, in `code`. In a table whose first column is a number, that number
//! is the floor of the packages in the second column.

use std::collections::BTreeSet;

use super::tree::Tree;
use crate::report::Finding;
use crate::workspace::Package;

const FILE: &str = "ARCHITECTURE.md";

/// Compares the map with the workspace's packages.
pub fn check(tree: &Tree, packages: &[Package]) -> Vec<Finding> {
    let Some(text) = tree.text(FILE) else {
        return vec![Finding::new(FILE, "the file is missing", "write it: bird's eye, code map, invariants")];
    };
    let Some(map) = section(text) else {
        return vec![Finding::new(FILE, "it has no section 'Code map'", "add '## Code map', which names each package in `code`")];
    };
    let named: BTreeSet<&str> = codes(map).collect();
    let mut findings = Vec::new();
    for package in packages.iter().filter(|p| !named.contains(p.name.as_str()) && !named.contains(p.directory.as_str())) {
        let problem = format!("the code map does not name `{}` ({})", package.name, package.directory);
        findings.push(Finding::new(FILE, problem, "say in one line what lives there"));
    }
    for name in named.iter().filter(|name| looks_like_package(name) && !packages.iter().any(|p| is(p, name))) {
        findings.push(Finding::new(FILE, format!("the code map names `{name}`, which is no package"), "delete or rename the line"));
    }
    findings.extend(map.lines().flat_map(|line| misplaced(line, packages)));
    findings
}

/// The text below the heading "Code map", up to the next heading of its level.
fn section(text: &str) -> Option<&str> {
    let start = text.lines().find(|l| l.starts_with("## ") && l.to_ascii_lowercase().contains("code map"))?;
    let rest = text.split_once(start)?.1;
    Some(rest.split_once("\n## ").map_or(rest, |(map, _)| map))
}

/// What stands in `code`.
fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is(package: &Package, name: &str) -> bool {
    package.name == name || package.directory == name
}

/// `plinth-types` and `crates/types`, but not `crates/types/src/error.rs` and not `plinth-<directory>`.
fn looks_like_package(name: &str) -> bool {
    let rest = ["plinth-", "crates/", "bin/"].iter().find_map(|start| name.strip_prefix(start));
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase() || b"-_".contains(&b)))
}

/// Packages of a table's row that stand on another floor than the row says.
fn misplaced(line: &str, packages: &[Package]) -> Vec<Finding> {
    let mut cells = line.trim().trim_start_matches('|').split('|').map(str::trim);
    let (Some(Ok(floor)), Some(names)) = (cells.next().map(str::parse::<u64>), cells.next()) else { return Vec::new() };
    let there = packages.iter().filter(|p| codes(names).any(|name| is(p, name)));
    let wrong = there.filter(|p| p.floor.is_some_and(|own| own != floor));
    let finding = |p: &Package| {
        let problem = format!("the code map puts `{}` on floor {floor}, its manifest on {}", p.name, p.floor.unwrap_or_default());
        Finding::new(FILE, problem, "correct the one that is wrong")
    };
    wrong.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(map: &str) -> Vec<String> {
        let text = format!("# A\n\n`plinth-elsewhere`\n\n## 2. Code map\n\n{map}\n\n## Invariants\n\n`plinth-later`\n");
        let package = |name: &str, directory: &str, floor| Package {
            name: name.into(),
            directory: directory.into(),
            floor: Some(floor),
            ..Package::default()
        };
        let packages = [package("plinth-types", "crates/types", 0), package("xtask", "xtask", 8)];
        check(&Tree::of(&[(FILE, &text)]), &packages).into_iter().map(|f| f.problem).collect()
    }

    #[test]
    fn every_package_is_named_by_name_or_directory_and_nothing_else() {
        assert_eq!(problems("`crates/types`, `crates/types/src/error.rs`, `xtask`, `plinth-<directory>`, `Digest`"), [""; 0]);
        assert_eq!(problems("`plinth-types`"), ["the code map does not name `xtask` (xtask)"]);
        assert_eq!(problems("`plinth-types` `xtask` `plinth-gone`"), ["the code map names `plinth-gone`, which is no package"]);
        assert_eq!(problems("`plinth-types` `xtask` `crates/gone`"), ["the code map names `crates/gone`, which is no package"]);
    }

    #[test]
    fn the_floors_of_the_table_are_the_ones_of_the_manifests() {
        assert_eq!(problems("| floor | crate |\n|---|---|\n| 8 | `xtask` | x |\n| 0 | `plinth-types` | `xtask` |"), [""; 0]);
        let wrong = problems("| 7 | `xtask` | x |\n| 0 | `plinth-types` (`crates/types`) |");
        assert_eq!(wrong, ["the code map puts `xtask` on floor 7, its manifest on 8"]);
    }

    #[test]
    fn a_missing_map_is_found() {
        assert_eq!(check(&Tree::of(&[]), &[])[0].problem, "the file is missing");
        assert_eq!(check(&Tree::of(&[(FILE, "# A")]), &[])[0].problem, "it has no section 'Code map'");
    }
}
