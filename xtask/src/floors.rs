//! The floors: a crate uses only crates on strictly lower floors, never sideways, in every table of dependencies.
//!
//! Development dependencies obey the same rule, because a test that needs a higher floor is a test of that floor. The
//! one exception is a package that uses itself, which is how a crate switches on its own feature `testing`.
//!
//! The same place holds every package to what it must state: a floor, the lint table, versions from the workspace, and
//! on the floors 0 to 3 the warning of missing docs.

use std::collections::BTreeMap;

use crate::report::Finding;
use crate::workspace::{Edge, Package};

/// The top: the binary, whole-system tests, benchmarks and this tool.
const TOP: u64 = 8;
/// Packages outside `crates/`, all of which stand on top.
const ON_TOP: [&str; 4] = ["bin/plinth", "tests", "bench", "xtask"];
/// The highest floor whose libraries document every public item.
const DOCUMENTED: u64 = 3;

/// Everything that is wrong with the packages.
pub fn check(packages: &[Package]) -> Vec<Finding> {
    let by_name: BTreeMap<&str, &Package> = packages.iter().map(|p| (p.name.as_str(), p)).collect();
    let mut findings = Vec::new();
    for package in packages {
        findings.extend(statements(package));
        for edge in &package.edges {
            if let Some(to) = by_name.get(edge.to.as_str()) {
                findings.extend(downwards(package, edge, to));
            }
        }
    }
    findings
}

/// What a package must state about itself.
fn statements(package: &Package) -> Vec<Finding> {
    let manifest = format!("{}/Cargo.toml", package.directory);
    let mut findings = Vec::new();
    match package.floor {
        None => findings.push(Finding::new(
            &manifest,
            "the package has no floor",
            "add [package.metadata.plinth] with floor = 0 to 8; ARCHITECTURE.md says which",
        )),
        Some(floor) if floor > TOP => {
            findings.push(Finding::new(&manifest, format!("there is no floor {floor}"), format!("the floors are 0 to {TOP}")));
        }
        Some(floor) if ON_TOP.contains(&package.directory.as_str()) && floor != TOP => {
            findings.push(Finding::new(
                &manifest,
                format!("the package says floor {floor}, but stands on top"),
                format!("set floor = {TOP}"),
            ));
        }
        Some(floor) if floor <= DOCUMENTED && !package.warns_of_missing_docs => {
            let file = format!("{}/src/lib.rs", package.directory);
            let problem = format!("a crate on floor {floor} documents every public item");
            findings.push(Finding::new(file, problem, "add #![warn(missing_docs)] below the file's header"));
        }
        Some(_) => {}
    }
    if !package.inherits_lints {
        findings.push(Finding::new(&manifest, "the package does not take the workspace's lints", "add [lints] with workspace = true"));
    }
    for name in &package.own_versions {
        let problem = format!("the package states its own version of '{name}'");
        let fix = format!("state it in [workspace.dependencies] of the root and write {name}.workspace = true here");
        findings.push(Finding::new(&manifest, problem, fix));
    }
    findings
}

/// Whether an edge goes down.
fn downwards(from: &Package, edge: &Edge, to: &Package) -> Option<Finding> {
    let (Some(from_floor), Some(to_floor)) = (from.floor, to.floor) else { return None };
    if to_floor < from_floor || from.name == to.name {
        return None;
    }
    let direction = if to_floor == from_floor { "sideways" } else { "upwards" };
    let problem = format!("{} (floor {from_floor}) uses {} (floor {to_floor}) in {}: {direction}", from.name, to.name, edge.kind.table());
    let fix = if from_floor == TOP {
        format!("nothing may use a package on floor {TOP}: move what is shared into a crate below")
    } else {
        format!(
            "let {} state what it needs as a trait of its own and let plinth-node hand in the implementation, or move what both need below floor {from_floor}",
            from.name
        )
    };
    Some(Finding::new(format!("{}/Cargo.toml", from.directory), problem, fix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::EdgeKind;

    fn package(name: &str, floor: u64, edges: &[(&str, EdgeKind)]) -> Package {
        Package {
            name: name.into(),
            directory: format!("crates/{name}"),
            floor: Some(floor),
            inherits_lints: true,
            warns_of_missing_docs: true,
            edges: edges.iter().map(|(to, kind)| Edge { to: (*to).into(), kind: *kind }).collect(),
            own_versions: Vec::new(),
        }
    }

    fn problems(packages: &[Package]) -> Vec<String> {
        check(packages).into_iter().map(|f| f.problem).collect()
    }

    #[test]
    fn down_is_allowed() {
        let packages = [package("low", 0, &[]), package("high", 4, &[("low", EdgeKind::Normal), ("low", EdgeKind::Development)])];
        assert_eq!(check(&packages), []);
    }

    #[test]
    fn sideways_and_upwards_are_named_in_every_table() {
        for kind in [EdgeKind::Normal, EdgeKind::Development, EdgeKind::Build] {
            let sideways = [package("a", 4, &[("b", kind)]), package("b", 4, &[])];
            assert_eq!(problems(&sideways), [format!("a (floor 4) uses b (floor 4) in {}: sideways", kind.table())]);
            let upwards = [package("a", 2, &[("b", kind)]), package("b", 3, &[])];
            assert_eq!(problems(&upwards), [format!("a (floor 2) uses b (floor 3) in {}: upwards", kind.table())]);
        }
    }

    #[test]
    fn a_finding_says_where_and_what_to_do() {
        let finding = check(&[package("a", 4, &[("b", EdgeKind::Normal)]), package("b", 4, &[])]).remove(0);
        assert_eq!(finding.place, "crates/a/Cargo.toml");
        assert!(finding.fix.contains("trait of its own"), "{}", finding.fix);
    }

    #[test]
    fn a_crate_may_switch_on_its_own_testing_feature() {
        assert_eq!(check(&[package("a", 3, &[("a", EdgeKind::Development)])]), []);
    }

    #[test]
    fn nothing_uses_what_stands_on_top() {
        let mut tests = package("tests", 8, &[("bin", EdgeKind::Development)]);
        tests.directory = "tests".into();
        let finding = check(&[tests, package("bin", 8, &[])]).remove(0);
        assert!(finding.fix.contains("move what is shared"), "{}", finding.fix);
    }

    #[test]
    fn what_a_package_must_state() {
        let mut nameless = package("a", 0, &[]);
        nameless.floor = None;
        assert_eq!(problems(&[nameless]), ["the package has no floor"]);
        assert_eq!(problems(&[package("a", 9, &[])]), ["there is no floor 9"]);
        let mut low = package("tests", 7, &[]);
        low.directory = "tests".into();
        assert_eq!(problems(&[low]), ["the package says floor 7, but stands on top"]);
        let mut careless = package("a", 5, &[]);
        (careless.inherits_lints, careless.own_versions) = (false, vec!["serde".into()]);
        assert_eq!(
            problems(&[careless]),
            ["the package does not take the workspace's lints", "the package states its own version of 'serde'"]
        );
    }

    #[test]
    fn low_floors_document_everything() {
        for (floor, findings) in [(0, 1), (3, 1), (4, 0)] {
            let mut package = package("a", floor, &[]);
            package.warns_of_missing_docs = false;
            assert_eq!(check(&[package]).len(), findings, "floor {floor}");
        }
    }
}
