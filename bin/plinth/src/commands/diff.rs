//! `plinth diff`: what applying files would change, without changing it.

use std::path::PathBuf;

use anstyle::{AnsiColor, Color, Style};
use plinth_client::wire;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::commands::apply;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::plain;
use crate::resources::to_yaml;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ends with 0 when nothing would change, with 1 when something would, and above when something is
wrong, also with the files (2).

Examples:
  plinth diff -f routes.yaml
  plinth diff -f routes.yaml && echo up to date")]
pub struct Args {
    /// File with resources; may be given several times
    #[arg(long = "file", short, value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Asks the node for a dry run and shows it.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let dry = apply::send(&args.files, true, context).map_err(|mut failure| {
        // 1 says that there are differences, so it cannot say that something is wrong.
        if failure.exit == Exit::Failed {
            failure.exit = Exit::Usage;
        }
        failure
    })?;
    let changed: Vec<_> = dry.resources.iter().filter(|resource| resource.outcome != "unchanged").collect();
    context.output.answer(&changed, || changed.iter().map(|resource| shown(resource)).collect())?;
    if changed.is_empty() { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

const fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(Color::Ansi(colour)))
}

/// One resource as a unified diff of its YAML.
fn shown(resource: &wire::AppliedResource) -> String {
    let yaml = |spec: &Option<Value>| spec.as_ref().map_or_else(String::new, to_yaml);
    let (before, after) = (yaml(&resource.before), yaml(&resource.after));
    let bold = Style::new().bold();
    let name = format!("{}/{}", plain(&resource.kind), plain(&resource.name));
    let (old, new) = if resource.before.is_some() { (name.as_str(), name.as_str()) } else { ("(not there)", name.as_str()) };
    let mut text = format!("{bold}--- {old}{bold:#}\n{bold}+++ {new}{bold:#}\n");
    let diff = TextDiff::from_lines(&before, &after);
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        let cyan = colour(AnsiColor::Cyan);
        text.push_str(&format!("{cyan}{}{cyan:#}\n", hunk.header()));
        for change in hunk.iter_changes() {
            let (sign, style) = match change.tag() {
                ChangeTag::Delete => ("-", colour(AnsiColor::Red)),
                ChangeTag::Insert => ("+", colour(AnsiColor::Green)),
                ChangeTag::Equal => (" ", Style::new()),
            };
            let line = plain(change.value().trim_end_matches('\n')).into_owned();
            text.push_str(&format!("{style}{sign}{line}{style:#}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_difference_is_shown_line_by_line() {
        let resource = |before: Option<Value>, after| wire::AppliedResource {
            kind: "plan".into(),
            name: "gold".into(),
            outcome: "changed".into(),
            before,
            after: Some(after),
        };
        let text = shown(&resource(
            Some(json!({ "limits": [{ "name": "requests", "rate": "1/s" }], "weight": 2 })),
            json!({ "limits": [{ "name": "requests", "rate": "2/s" }], "weight": 2 }),
        ));
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string(), @r#"
        --- plan/gold
        +++ plan/gold
        @@ -1,4 +1,4 @@
         limits:
           - name: requests
        -    rate: "1/s"
        +    rate: "2/s"
         weight: 2
        "#);
        let new = shown(&resource(None, json!({ "weight": 3 })));
        assert_eq!(anstream::adapter::strip_str(&new).to_string(), "--- (not there)\n+++ plan/gold\n@@ -0,0 +1 @@\n+weight: 3\n");
    }
}
