//! Every source file says at its top what it owns, and no file tells on which machine it was made.

use super::tree::Tree;
use crate::report::Finding;

/// Directories that are somebody's machine. Written in two parts so that this file does not find itself.
const MACHINE_PATHS: [&str; 4] = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
/// People who are nobody: examples may use their directories.
const NOBODIES: [&[u8]; 3] = [b"u", b"user", b"alice"];
/// Hosts that packages come from: the clients know them; naming one bypasses what a company has configured.
const REGISTRY_HOSTS: [&str; 6] = [
    concat!("pypi.", "org"),
    concat!("pythonhosted.", "org"),
    concat!("index.crates.", "io"),
    concat!("static.crates.", "io"),
    concat!("registry.npmjs.", "org"),
    concat!("/artifac", "tory/"),
];

/// Every `.rs` file begins with `//!`.
pub fn check_headers(tree: &Tree) -> Vec<Finding> {
    let headless = tree.ending(".rs").filter(|(_, text)| !text.starts_with("//!"));
    let fix = "begin with //! saying what the file owns, the invariant it keeps and what it leaves to others";
    headless.map(|(path, _)| Finding::new(path, "the file has no header", fix)).collect()
}

/// No file holds a path of somebody's machine or the host of a package registry.
pub fn check_traces(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, bytes) in tree.files() {
        for needle in MACHINE_PATHS {
            if let Some(line) = line_with(bytes, needle, true) {
                let problem = format!("it holds a path of a machine ({needle}…)");
                findings.push(Finding::new(format!("{path}:{line}"), problem, "use a path relative to the repository, or a placeholder"));
            }
        }
        for needle in REGISTRY_HOSTS {
            if let Some(line) = line_with(bytes, needle, false) {
                let problem = format!("it names the host of a package registry ({needle})");
                findings.push(Finding::new(format!("{path}:{line}"), problem, "name the package; the client knows where to get it"));
            }
        }
    }
    findings
}

/// The first line that holds the needle. `at_start`: only where a path could begin, so not in `example.com/home/`.
fn line_with(bytes: &[u8], needle: &str, at_start: bool) -> Option<usize> {
    let needle = needle.as_bytes();
    let position = bytes.windows(needle.len()).enumerate().position(|(i, window)| {
        let before = i.checked_sub(1).and_then(|i| bytes.get(i));
        let name = bytes.get(i + needle.len()..).unwrap_or_default().split(|b| !b.is_ascii_alphanumeric()).next().unwrap_or_default();
        let elsewhere = before.is_some_and(|b| b.is_ascii_alphanumeric() || b"._-}$)/~".contains(b));
        window == needle && !(at_start && (elsewhere || NOBODIES.contains(&name)))
    })?;
    Some(bytes.iter().take(position).filter(|b| **b == b'\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_header_is_found() {
        let tree = Tree::of(&[("a.rs", "//! owns a\n"), ("b.rs", "use c;\n//! late\n"), ("c.py", "import d\n")]);
        let found: Vec<_> = check_headers(&tree).into_iter().map(|f| f.place).collect();
        assert_eq!(found, ["b.rs"]);
    }

    #[test]
    fn traces_are_found_with_their_line() {
        let text = format!("one\npath = {}carol/plinth\n", MACHINE_PATHS[2]);
        let found = check_traces(&Tree::of(&[("a.toml", &text)]));
        assert_eq!(found.iter().map(|f| f.place.as_str()).collect::<Vec<_>>(), ["a.toml:2"]);
        let text = format!("pip install --index-url https://{}/simple x", REGISTRY_HOSTS[0]);
        assert_eq!(check_traces(&Tree::of(&[("setup.sh", &text)])).len(), 1);
    }

    #[test]
    fn other_uses_of_the_same_words_are_fine() {
        let text = format!("https://example.com{0}x ./sub{0}y ${{HOME}}{0}z {0}alice/z", MACHINE_PATHS[2]);
        assert_eq!(check_traces(&Tree::of(&[("a.md", &text)])), []);
    }
}
