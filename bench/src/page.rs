//! Copies the results into the page that people read, so that its tables are those that were measured.
//!
//! Between `<!-- results: NAME -->` and `<!-- end -->` stands what `NAME.md` says below its title; a part without results
//! says so. Everything else of the page is left as it is.

use std::path::Path;

use anyhow::{Context, Result};

const BEGIN: &str = "<!-- results: ";
const END: &str = "<!-- end -->";

/// Rewrites the page.
pub fn write(results: &Path, page: &Path) -> Result<()> {
    let text = std::fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let text = fill(&text, |name| std::fs::read_to_string(results.join(name).with_extension("md")).ok())?;
    Ok(std::fs::write(page, text)?)
}

fn fill(page: &str, results: impl Fn(&str) -> Option<String>) -> Result<String> {
    let mut parts = page.split(BEGIN);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once(" -->").context("a place for results has no name")?;
        let (_, rest) = rest.split_once(END).with_context(|| format!("the place for {name} has no end"))?;
        let found = results(name);
        let body = match found.as_deref().and_then(|found| found.split_once('\n')) {
            Some((_title, body)) => body.trim(),
            None => "Not measured in the last run.",
        };
        text.push_str(&format!("{BEGIN}{name} -->\n\n{body}\n\n{END}{rest}"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_replace_what_stood_there_before() {
        let page = "# Page\n<!-- results: a -->old<!-- end -->\nbetween\n<!-- results: b -->\n<!-- end -->\nafter\n";
        let results = |name: &str| (name == "a").then(|| "# Title\n\nfigures\n".to_owned());
        let want = "# Page\n<!-- results: a -->\n\nfigures\n\n<!-- end -->\nbetween\n<!-- results: b -->\n\nNot measured in the last run.\n\n<!-- end -->\nafter\n";
        assert_eq!(fill(page, results).unwrap(), want);
        assert_eq!(fill(want, results).unwrap(), want);
    }
}
