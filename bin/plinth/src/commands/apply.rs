//! `plinth apply`: brings resources to what files say, all of them or none.
//!
//! JSON: one resource, a list of them, or `{"resources": […]}`. TOML: `[[resources]]` tables. A resource has `kind`, `name`
//! and `spec`.

use std::path::{Path, PathBuf};

use plinth_client::wire;
use serde::Deserialize;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::files;
use crate::output::table_or;
use crate::table::{Cell, Table, Tone};

const MAX_FILE: u64 = 16 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file holds resources, in TOML:

  [[resources]]
  kind = \"deployment\"
  name = \"digits\"
  spec = { alias = \"champion\" }

or in JSON, as one object, a list, or {\"resources\": [...]}. `-` reads JSON or TOML from standard input.

Examples:
  plinth apply -f deployments.toml --dry-run
  plinth apply -f models.toml -f deployments.json")]
pub struct Args {
    /// File with resources; may be given several times
    #[arg(long = "file", short, value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
}

/// Sends the resources of all files as one change.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let mut resources = Vec::new();
    for path in &args.files {
        let text = files::read_text(path, MAX_FILE)?;
        let parsed = parse(path, &text).map_err(|what| Failure::new(Exit::Failed, format!("'{}' {what}", path.display())))?;
        resources.extend(parsed);
    }
    let what = wire::Apply { resources, dry_run: args.dry_run };
    let client = context.client()?;
    let applied = context.wait(async { Ok(client.apply(&what).await?) })?;
    context.output.answer(&applied, || {
        let mut table = Table::new(&["KIND", "NAME", "OUTCOME"]);
        for resource in &applied.resources {
            let tone = if resource.outcome == "unchanged" { Tone::Faint } else { Tone::Good };
            table.row([(&resource.kind).into(), (&resource.name).into(), Cell::new(&resource.outcome, tone)]);
        }
        let end = match (args.dry_run, applied.revision) {
            (true, _) => "\nnothing was changed (--dry-run)".to_owned(),
            (false, Some(revision)) => format!("\nrevision {revision}; undo it with `plinth model undo {revision}`"),
            (false, None) => "\nnothing to change".to_owned(),
        };
        table_or(&table, "no resources") + &end
    })
}

fn parse(path: &Path, text: &str) -> Result<Vec<wire::Resource>, String> {
    let json = || parse_json(text);
    let toml = || parse_toml(text);
    match path.extension().and_then(|e| e.to_str()) {
        Some("json") => json(),
        Some("toml") => toml(),
        _ if text.trim_start().starts_with(['{', '[']) && !text.trim_start().starts_with("[[") => json(),
        _ => toml(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    resources: Vec<wire::Resource>,
}

fn parse_json(text: &str) -> Result<Vec<wire::Resource>, String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|e| format!("is not JSON: {e}"))?;
    let is_list = value.is_array();
    let has_list = value.get("resources").is_some();
    let parsed = if is_list {
        serde_json::from_value(value)
    } else if has_list {
        serde_json::from_value::<Listed>(value).map(|listed| listed.resources)
    } else {
        serde_json::from_value(value).map(|one| vec![one])
    };
    parsed.map_err(|e| format!("holds something that is no resource: {e}"))
}

fn parse_toml(text: &str) -> Result<Vec<wire::Resource>, String> {
    // TOML's own message has several lines; the first two say where and what.
    let listed: Listed = toml::from_str(text).map_err(|e| format!("cannot be used: {}", e.message()))?;
    Ok(listed.resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_from_both_languages() {
        let toml = "[[resources]]\nkind = \"deployment\"\nname = \"digits\"\n[resources.spec]\nalias = \"champion\"\n";
        let json = r#"[{"kind":"deployment","name":"digits","spec":{"alias":"champion"}}]"#;
        let from_toml = parse(Path::new("x.toml"), toml).unwrap();
        assert_eq!(from_toml, parse(Path::new("x.json"), json).unwrap());
        assert_eq!(from_toml, parse(Path::new("-"), toml).unwrap());
        assert_eq!(from_toml, parse(Path::new("-"), json).unwrap());
        assert_eq!(from_toml, parse(Path::new("-"), &json[1..json.len() - 1]).unwrap());
        assert_eq!(from_toml, parse(Path::new("-"), &format!("{{\"resources\":{json}}}")).unwrap());
    }

    #[test]
    fn misspelt_keys_are_refused() {
        for bad in [r#"{"kind":"model","name":"x","specs":{}}"#, r#"{"resources":[],"more":1}"#, "{", "7"] {
            assert!(parse(Path::new("x.json"), bad).is_err(), "{bad}");
        }
        assert!(parse(Path::new("x.toml"), "[[resource]]\nkind='model'\nname='x'").is_err());
    }
}
