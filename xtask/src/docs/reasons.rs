//! Every reason has a page in `docs/errors/`, every page has a reason, and the page's head agrees with the code.

use plinth_types::Reason;

use super::tree::Tree;
use crate::report::Finding;

const DIRECTORY: &str = "docs/errors/";
const SECTIONS: [&str; 3] = ["## What it means", "## What to do", "## For operators"];

/// What a page must say at its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    slug: String,
    title: String,
    status: u16,
    retriable: bool,
}

impl Page {
    /// The page of a reason.
    pub fn of(reason: Reason) -> Self {
        let class = reason.class();
        Self { slug: reason.slug().to_owned(), title: reason.title().to_owned(), status: class.status(), retriable: class.retriable() }
    }

    fn path(&self) -> String {
        format!("{DIRECTORY}{}.md", self.slug)
    }

    /// The first line and the line below the first empty one.
    fn head(&self) -> String {
        let retry = if self.retriable { "may succeed later" } else { "will fail again" };
        format!("# {}\n\n{}. HTTP status {}; the same request {retry}.\n", self.slug, self.title, self.status)
    }
}

/// Everything that is wrong with the pages.
pub fn check(tree: &Tree, pages: &[Page]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for page in pages {
        match tree.text(&page.path()) {
            None => {
                let problem = format!("the reason '{}' has no page", page.slug);
                findings.push(Finding::new(page.path(), problem, format!("write it; it begins with\n{}", page.head())));
            }
            Some(text) => findings.extend(wrong_with(page, text)),
        }
    }
    for (path, _) in tree.ending(".md") {
        let Some(name) = path.strip_prefix(DIRECTORY) else { continue };
        if name != "README.md" && !pages.iter().any(|p| p.path() == path) {
            findings.push(Finding::new(path, "no reason has this slug", "delete the page, or rename it after the reason"));
        }
    }
    findings
}

fn wrong_with(page: &Page, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with(&page.head()) {
        findings.push(Finding::new(page.path(), "its head does not agree with the code", format!("let it begin with\n{}", page.head())));
    }
    let headings: Vec<_> = text.lines().filter(|l| l.starts_with("## ")).collect();
    if headings != SECTIONS {
        findings.push(Finding::new(
            page.path(),
            "its sections are not the usual ones",
            format!("use, in this order: {}", SECTIONS.join(" / ")),
        ));
    }
    for (heading, body) in sections(text) {
        if body.trim().is_empty() {
            findings.push(Finding::new(page.path(), format!("the section '{heading}' is empty"), "say it in a sentence or two"));
        }
    }
    findings
}

/// Each heading of the second level with the text below it.
fn sections(text: &str) -> Vec<(&str, &str)> {
    let parts = text.split("\n## ").skip(1);
    parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# gone\n\nIt is gone. HTTP status 404; the same request will fail again.\n\n## What it means\n\na\n\n## What to do\n\nb\n\n## For operators\n\nc\n";

    fn page() -> Page {
        Page { slug: "gone".into(), title: "It is gone".into(), status: 404, retriable: false }
    }

    fn problems(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files), &[page()]).into_iter().map(|f| f.problem).collect()
    }

    #[test]
    fn a_page_and_an_index_are_enough() {
        assert_eq!(problems(&[("docs/errors/gone.md", GOOD), ("docs/errors/README.md", "# Errors")]), [""; 0]);
    }

    #[test]
    fn a_missing_page_and_an_orphan_are_found() {
        assert_eq!(problems(&[]), ["the reason 'gone' has no page"]);
        assert_eq!(problems(&[("docs/errors/gone.md", GOOD), ("docs/errors/other.md", GOOD)]), ["no reason has this slug"]);
    }

    #[test]
    fn a_page_that_disagrees_with_the_code_is_found() {
        let other_status = GOOD.replace("404", "400");
        assert_eq!(problems(&[("docs/errors/gone.md", &other_status)]), ["its head does not agree with the code"]);
        let other_order = GOOD.replace("## What to do", "## Advice");
        assert_eq!(problems(&[("docs/errors/gone.md", &other_order)]), ["its sections are not the usual ones"]);
        let empty = GOOD.replace("b\n", "");
        assert_eq!(problems(&[("docs/errors/gone.md", &empty)]), ["the section 'What to do' is empty"]);
    }
}
