//! What the checks need to know of the workspace: its packages, their edges, and every package from outside.
//!
//! Plain values, so that a check can be tested on a workspace that was made up. Read from `cargo metadata`, which
//! knows what cargo will really build, and from the manifests where `cargo metadata` keeps silent.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{CargoOpt, DependencyKind, MetadataCommand};

/// The workspace.
#[derive(Debug, Clone, Default)]
pub struct Workspace {
    /// Its root directory.
    pub root: PathBuf,
    /// Its own packages, sorted by name.
    pub packages: Vec<Package>,
    /// All other packages that it is built from, on any platform and with all features.
    pub foreign: Vec<ForeignPackage>,
}

/// A package of the workspace.
#[derive(Debug, Clone, Default)]
pub struct Package {
    /// Its name, such as `plinth-types`.
    pub name: String,
    /// Its directory under the root, such as `crates/types`.
    pub directory: String,
    /// Its floor, when `[package.metadata.plinth]` states one.
    pub floor: Option<u64>,
    /// Whether its manifest takes the lints of the workspace.
    pub inherits_lints: bool,
    /// Whether it is a library whose first file warns of missing docs.
    pub warns_of_missing_docs: bool,
    /// Its edges to packages of the workspace.
    pub edges: Vec<Edge>,
    /// Dependencies that its manifest states by itself instead of taking them from the workspace.
    pub own_versions: Vec<String>,
}

/// A dependency of one package of the workspace on another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The name of the package that is used.
    pub to: String,
    /// In which table it stands.
    pub kind: EdgeKind,
}

/// In which table a dependency stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EdgeKind {
    /// `[dependencies]`.
    Normal,
    /// `[dev-dependencies]`.
    Development,
    /// `[build-dependencies]`.
    Build,
}

impl EdgeKind {
    /// The table, as it stands in a manifest.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Normal => "[dependencies]",
            Self::Development => "[dev-dependencies]",
            Self::Build => "[build-dependencies]",
        }
    }
}

/// A package from outside.
#[derive(Debug, Clone, Default)]
pub struct ForeignPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression.
    pub license: Option<String>,
    /// Where it comes from, as Cargo.lock says it.
    pub source: String,
}

impl Workspace {
    /// Reads the workspace that this tool belongs to.
    ///
    /// # Errors
    /// When cargo fails, for instance because Cargo.lock is behind, or a manifest cannot be read.
    pub fn load() -> Result<Self> {
        let metadata = MetadataCommand::new()
            .features(CargoOpt::AllFeatures)
            .other_options(vec!["--locked".to_owned()])
            .exec()
            .context("cargo metadata failed; when Cargo.lock is behind, run cargo check once")?;
        let root = metadata.workspace_root.clone().into_std_path_buf();
        let members: Vec<&str> = metadata.workspace_packages().iter().map(|p| p.name.as_str()).collect();
        let mut packages = Vec::new();
        for package in metadata.workspace_packages() {
            let directory = package.manifest_path.parent().map_or_else(|| root.clone(), |d| d.as_std_path().to_owned());
            let edges = package.dependencies.iter().filter(|d| d.path.is_some() && members.contains(&d.name.as_str()));
            let manifest = Manifest::read(&directory.join("Cargo.toml"))?;
            packages.push(Package {
                name: package.name.to_string(),
                directory: directory.strip_prefix(&root).unwrap_or(&directory).to_string_lossy().into_owned(),
                floor: package.metadata.get("plinth").and_then(|t| t.get("floor")).and_then(|f| f.as_u64()),
                inherits_lints: manifest.inherits_lints(),
                warns_of_missing_docs: warns_of_missing_docs(&directory),
                edges: edges.map(|d| Edge { to: d.name.clone(), kind: kind(d.kind) }).collect(),
                own_versions: manifest.own_versions(),
            });
        }
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        let foreign = metadata.packages.iter().filter_map(|p| {
            let source = p.source.as_ref()?.repr.clone();
            Some(ForeignPackage { name: p.name.to_string(), version: p.version.to_string(), license: p.license.clone(), source })
        });
        Ok(Self { root, packages, foreign: foreign.collect() })
    }
}

fn kind(kind: DependencyKind) -> EdgeKind {
    match kind {
        DependencyKind::Development => EdgeKind::Development,
        DependencyKind::Build => EdgeKind::Build,
        _ => EdgeKind::Normal,
    }
}

fn warns_of_missing_docs(directory: &Path) -> bool {
    let library = std::fs::read_to_string(directory.join("src/lib.rs")).unwrap_or_default();
    library.lines().any(|line| line.trim() == "#![warn(missing_docs)]")
}

/// A manifest as it stands on disk, for what `cargo metadata` has already resolved away.
struct Manifest(toml::Table);

impl Manifest {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self(text.parse().with_context(|| format!("{} is not TOML", path.display()))?))
    }

    fn inherits_lints(&self) -> bool {
        self.0.get("lints").and_then(|t| t.get("workspace")).and_then(toml::Value::as_bool) == Some(true)
    }

    /// Dependencies without `workspace = true`, except a package's edge to itself, which the workspace cannot state.
    fn own_versions(&self) -> Vec<String> {
        let own_name = self.0.get("package").and_then(|t| t.get("name")).and_then(toml::Value::as_str);
        let on_platforms =
            self.0.get("target").and_then(toml::Value::as_table).into_iter().flat_map(|t| t.values().filter_map(toml::Value::as_table));
        let mut names = Vec::new();
        for tables in std::iter::once(&self.0).chain(on_platforms) {
            for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let Some(entries) = tables.get(table).and_then(toml::Value::as_table) else { continue };
                let own = entries.iter().filter(|(_, value)| value.get("workspace").and_then(toml::Value::as_bool) != Some(true));
                names.extend(own.map(|(name, _)| name.clone()).filter(|name| Some(name.as_str()) != own_name));
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        Manifest(text.parse().unwrap())
    }

    #[test]
    fn a_manifest_says_which_versions_it_states_itself() {
        let text = r#"
            [package]
            name = "a"
            [dependencies]
            shared.workspace = true
            own = "1"
            [dev-dependencies]
            a = { path = ".", features = ["testing"] }
            [target.'cfg(unix)'.dependencies]
            elsewhere = { version = "2" }
        "#;
        assert_eq!(manifest(text).own_versions(), ["own", "elsewhere"]);
    }

    #[test]
    fn lints_are_inherited_only_when_the_manifest_says_so() {
        assert!(manifest("[lints]\nworkspace = true").inherits_lints());
        assert!(!manifest("[lints.rust]\nunsafe_code = \"deny\"").inherits_lints());
        assert!(!manifest("").inherits_lints());
    }

    #[test]
    fn this_workspace_can_be_read() {
        let workspace = Workspace::load().unwrap();
        let xtask = workspace.packages.iter().find(|p| p.name == "xtask").unwrap();
        assert_eq!((xtask.directory.as_str(), xtask.floor), ("xtask", Some(8)));
        assert!(xtask.edges.contains(&Edge { to: "plinth-types".into(), kind: EdgeKind::Normal }));
        assert!(workspace.foreign.iter().any(|p| p.name == "anyhow"));
    }
}
