//! Licences, bans and sources of everything from outside, by the lists in `deny.toml`.
//!
//! `deny.toml` is written for cargo-deny, which checks more (advisories, duplicates); `make deny` runs it where it is
//! installed. This check reads the same lists and needs nothing but cargo, so it runs on every machine.

use anyhow::{Context, Result, bail};
use cargo_metadata::semver::{Version, VersionReq};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use crate::report::Finding;
use crate::workspace::{ForeignPackage, Workspace};

/// How Cargo.lock writes that a package comes from a registry.
const REGISTRY: &str = "registry+";

/// The lists of `deny.toml` that this check reads; cargo-deny knows more keys.
#[derive(Debug, Deserialize)]
struct Lists {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    /// `name`, or `name:requirement` for some versions only.
    #[serde(rename = "crate")]
    spec: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

/// Checks the packages of the workspace by the `deny.toml` in its root.
///
/// # Errors
/// When `deny.toml` cannot be read or understood.
pub fn check_workspace(workspace: &Workspace) -> Result<Vec<Finding>> {
    let text = std::fs::read_to_string(workspace.root.join("deny.toml")).context("cannot read deny.toml")?;
    check(&text, &workspace.foreign)
}

fn check(lists: &str, packages: &[ForeignPackage]) -> Result<Vec<Finding>> {
    let lists: Lists = toml::from_str(lists).context("deny.toml cannot be understood")?;
    let mut findings = licences(&lists.licenses, packages)?;
    findings.extend(bans(&lists.bans, packages)?);
    findings.extend(sources(&lists.sources, packages));
    Ok(findings)
}

fn place(package: &ForeignPackage) -> String {
    format!("{} {}", package.name, package.version)
}

fn licences(licenses: &Licenses, packages: &[ForeignPackage]) -> Result<Vec<Finding>> {
    let parse = |text: &String| Licensee::parse(text).with_context(|| format!("deny.toml allows '{text}', which is not an SPDX licence"));
    let allowed = licenses.allow.iter().map(parse).collect::<Result<Vec<_>>>()?;
    let mut used = vec![false; allowed.len()];
    let mut findings = Vec::new();
    for package in packages {
        let text = package.license.as_deref().unwrap_or_default();
        // Old manifests write `MIT/Apache-2.0`; cargo and cargo-deny read that as OR.
        let Ok(expression) = Expression::parse_mode(text, ParseMode::LAX) else {
            findings.push(Finding::new(place(package), format!("its licence '{text}' is not an SPDX expression"), "use another package"));
            continue;
        };
        let holds = expression.evaluate(|requirement| {
            let found = allowed.iter().position(|licensee| licensee.satisfies(requirement));
            found.inspect(|index| used[*index] = true).is_some()
        });
        if !holds {
            let fix = "use another package; or, if the licence is permissive or weak copyleft, add it to [licenses] allow in deny.toml";
            findings.push(Finding::new(place(package), format!("its licence '{text}' is not allowed"), fix));
        }
    }
    let unused = licenses.allow.iter().zip(used).filter(|(_, used)| !used);
    findings
        .extend(unused.map(|(text, _)| Finding::new("deny.toml", format!("it allows '{text}', which nothing uses"), "delete the line")));
    Ok(findings)
}

fn bans(bans: &Bans, packages: &[ForeignPackage]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for ban in &bans.deny {
        let (name, requirement) = match ban.spec.split_once(':') {
            Some((name, text)) => {
                (name, VersionReq::parse(text).with_context(|| format!("deny.toml: '{text}' is no version requirement"))?)
            }
            None if ban.spec.contains('@') => bail!("deny.toml: write '{}' as name:requirement", ban.spec),
            None => (ban.spec.as_str(), VersionReq::STAR),
        };
        for package in packages.iter().filter(|p| p.name == name) {
            let version = Version::parse(&package.version).with_context(|| format!("version of {}", place(package)))?;
            if requirement.matches(&version) {
                let fix = "cargo tree --workspace --target all --all-features --invert PACKAGE shows who brings it; update or replace that";
                findings.push(Finding::new(place(package), format!("it is banned: {}", ban.reason), fix.replace("PACKAGE", name)));
            }
        }
    }
    Ok(findings)
}

fn sources(sources: &Sources, packages: &[ForeignPackage]) -> Vec<Finding> {
    let known = |source: &str| source.strip_prefix(REGISTRY).is_some_and(|url| sources.allow_registry.iter().any(|allowed| allowed == url));
    let unknown = packages.iter().filter(|p| !known(&p.source));
    unknown
        .map(|p| {
            Finding::new(place(p), format!("it comes from {}", p.source), "packages come from crates.io only: use a published version")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTS: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0 WITH LLVM-exception"]
        [bans]
        multiple-versions = "allow"
        deny = [{ crate = "old:<1.2.3", reason = "too old" }, { crate = "gone", reason = "unmaintained" }]
        [sources]
        allow-registry = ["https://example.org/index"]
    "#;

    fn package(name: &str, version: &str, license: &str) -> ForeignPackage {
        let source = "registry+https://example.org/index".into();
        ForeignPackage { name: name.into(), version: version.into(), license: Some(license.into()), source }
    }

    /// What is found beside two packages that use every allowed licence.
    fn findings(packages: &[ForeignPackage]) -> Vec<String> {
        let mut all = vec![package("a", "1.0.0", "MIT"), package("b", "1.0.0", "Apache-2.0 WITH LLVM-exception")];
        all.extend_from_slice(packages);
        check(LISTS, &all).unwrap().iter().map(|f| format!("{}: {}", f.place, f.problem)).collect()
    }

    #[test]
    fn licence_expressions_are_understood() {
        for fine in ["MIT", "MIT OR GPL-3.0-only", "GPL-3.0-only/MIT", "GPL-3.0-only / MIT", "(MIT OR ISC) AND MIT"] {
            assert_eq!(findings(&[package("c", "1.0.0", fine)]), [""; 0], "{fine}");
        }
        for bad in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "Apache-2.0"] {
            assert_eq!(findings(&[package("c", "1.0.0", bad)]), [format!("c 1.0.0: its licence '{bad}' is not allowed")]);
        }
        assert_eq!(findings(&[package("c", "1.0.0", "")]), ["c 1.0.0: its licence '' is not an SPDX expression"]);
    }

    #[test]
    fn an_allowance_that_nothing_uses_is_found() {
        let found = check(LISTS, &[package("a", "1.0.0", "MIT")]).unwrap();
        assert_eq!(found[0].problem, "it allows 'Apache-2.0 WITH LLVM-exception', which nothing uses");
    }

    #[test]
    fn bans_may_name_versions() {
        assert_eq!(findings(&[package("old", "1.2.3", "MIT"), package("older", "1.0.0", "MIT")]), [""; 0]);
        assert_eq!(findings(&[package("old", "1.2.2", "MIT")]), ["old 1.2.2: it is banned: too old"]);
        assert_eq!(findings(&[package("gone", "9.0.0", "MIT")]), ["gone 9.0.0: it is banned: unmaintained"]);
    }

    #[test]
    fn only_known_registries_are_sources() {
        let mut package = package("c", "1.0.0", "MIT");
        package.source = "git+https://example.org/index#0123".into();
        assert_eq!(findings(&[package]), ["c 1.0.0: it comes from git+https://example.org/index#0123"]);
    }
}
