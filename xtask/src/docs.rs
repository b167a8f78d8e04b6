//! The documents and the code speak of the same things: generated pages, error pages, code map, file headers, links,
//! no traces of a machine.
//!
//! Each module checks one thing on a [`Tree`]; this file says which and hands in what they need from the code.

mod code_map;
mod generated;
mod links;
mod reasons;
mod sources;
mod tree;

use std::path::Path;

use anyhow::Result;
use plinth_types::Reason;

use crate::report::Finding;
use crate::workspace::Workspace;
use tree::Tree;

/// The commands that a newcomer types first.
const FIRST_COMMANDS: [&str; 2] = ["make demo", "make test"];

/// Checks the repository that the workspace is the root of.
///
/// # Errors
/// When a file cannot be read.
pub fn check_workspace(workspace: &Workspace) -> Result<Vec<Finding>> {
    let tree = Tree::read(&workspace.root)?;
    let pages: Vec<_> = Reason::ALL.iter().map(|r| reasons::Page::of(*r)).collect();
    let mut findings = reasons::check(&tree, &pages);
    findings.extend(generated::check(&tree, &generated::pages()));
    findings.extend(code_map::check(&tree, &workspace.packages));
    findings.extend(sources::check_headers(&tree));
    findings.extend(sources::check_traces(&tree));
    findings.extend(links::check(&tree));
    findings.extend(first_commands(&tree));
    Ok(findings)
}

/// Writes the pages that are generated from the code.
///
/// # Errors
/// When a page cannot be written.
pub fn write_generated(root: &Path) -> Result<()> {
    generated::write(root, &generated::pages())
}

fn first_commands(tree: &Tree) -> Vec<Finding> {
    let readme = tree.text("README.md").unwrap_or_default();
    let missing = FIRST_COMMANDS.iter().filter(|command| !readme.contains(*command));
    missing.map(|c| Finding::new("README.md", format!("it does not name '{c}'"), "the first screen shows both commands")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_names_the_first_commands() {
        let found = first_commands(&Tree::of(&[("README.md", "type `make demo`")]));
        assert_eq!(found.iter().map(|f| f.problem.as_str()).collect::<Vec<_>>(), ["it does not name 'make test'"]);
        assert_eq!(first_commands(&Tree::of(&[("README.md", "`make demo`, `make test`")])), []);
    }
}
