//! Pages that are generated from the code: what is committed is what the code says.
//!
//! Invariant: `check` writes nothing; `write` is for `cargo xtask fix` alone.

use std::path::Path;

use anyhow::{Context, Result};

use super::tree::Tree;
use crate::report::Finding;

/// A page and what it must hold.
pub struct Page {
    path: &'static str,
    text: String,
}

/// All generated pages.
pub fn pages() -> Vec<Page> {
    vec![Page { path: "docs/configuration.md", text: plinth_config::reference_markdown() }]
}

/// The pages that are missing or differ from the code.
pub fn check(tree: &Tree, pages: &[Page]) -> Vec<Finding> {
    let stale = pages.iter().filter(|page| tree.text(page.path) != Some(page.text.as_str()));
    stale
        .map(|page| Finding::new(page.path, "it differs from what the code generates", "run cargo xtask fix, and commit the page"))
        .collect()
}

/// Writes every page.
///
/// # Errors
/// When a page cannot be written.
pub fn write(root: &Path, pages: &[Page]) -> Result<()> {
    for page in pages {
        std::fs::write(root.join(page.path), &page.text).with_context(|| format!("cannot write {}", page.path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_differs_is_found_and_writing_puts_it_right() {
        let pages = [Page { path: "p.md", text: "# New\n".into() }];
        assert_eq!(check(&Tree::of(&[]), &pages).len(), 1);
        assert_eq!(check(&Tree::of(&[("p.md", "# Old\n")]), &pages)[0].place, "p.md");
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &pages).unwrap();
        assert_eq!(check(&Tree::read(root.path()).unwrap(), &pages), []);
    }
}
