//! `plinth get`: resources as they stand, in a form that `plinth apply` takes back.

use plinth_client::{Client, Paging, wire};
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::table_or;
use crate::paging::gather;
use crate::resources::to_yaml;
use crate::table::{Cell, Table, Tone};

/// In the order in which a new node could be filled: each after those that it may name.
const KINDS: [&str; 9] = ["plan", "tenant", "issuer", "addresses", "model", "deployment", "upstream", "filter", "route"];

/// How to write them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Yaml,
    Json,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
KIND is tenant, plan, issuer, addresses, model, deployment, upstream, filter or route, or `all`.

Examples:
  plinth get routes                      what there is
  plinth get route chat -o yaml > chat.yaml
  plinth get all -o yaml > everything.yaml
  plinth get route chat --expect -o yaml with its revision: applied later, it overwrites nobody")]
pub struct Args {
    /// Kind of resources
    #[arg(value_name = "KIND", value_parser = parse_kind)]
    kind: String,

    /// Only this one
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// How to write it: a table, or what `plinth apply` takes
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,

    /// Write the revision along, so that applying it later overwrites nobody else's change
    #[arg(long)]
    expect: bool,
}

/// A kind in the singular or the plural.
fn parse_kind(text: &str) -> Result<String, String> {
    let singular = match text {
        "addresses" | "all" => text,
        _ => text.strip_suffix('s').unwrap_or(text),
    };
    if singular == "all" || KINDS.contains(&singular) {
        return Ok(singular.to_owned());
    }
    Err(format!("known are {} and all", KINDS.join(", ")))
}

/// Shows them.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let found = context.wait(read(args, &client))?;
    match args.output {
        Format::Table => context.output.answer(&found, || table_or(&table(&found), "none")),
        Format::Json => {
            let all: Vec<Value> = found.iter().map(|one| again(one, args.expect)).collect();
            let text = serde_json::to_string_pretty(&json!({ "resources": all }));
            context.output.print(&text.map_err(|e| Failure::new(Exit::Failed, format!("this cannot be written as JSON: {e}")))?)
        }
        Format::Yaml => {
            let all: Vec<String> = found.iter().map(|one| ordered(one, args.expect)).collect();
            context.output.print(&all.join("---\n"))
        }
    }
}

async fn read(args: &Args, client: &Client) -> Result<Vec<wire::StoredResource>, Failure> {
    if let Some(name) = &args.name {
        if args.kind == "all" {
            return Err(Failure::usage("a name needs its kind"));
        }
        return Ok(vec![client.resource(&args.kind, name).await?]);
    }
    if args.kind != "all" {
        return gather(None, async |page: Paging| client.resources(&args.kind, &page).await).await;
    }
    let mut all = Vec::new();
    for kind in KINDS {
        match gather(None, async |page: Paging| client.resources(kind, &page).await).await {
            Ok(found) => all.extend(found),
            // What concerns all tenants is not for every key to see.
            Err(failure) if failure.exit == Exit::Refused && kind != "route" => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(all)
}

fn table(found: &[wire::StoredResource]) -> Table {
    let mut table = Table::new(&["KIND", "NAME", "REVISION#", "UPDATED", "DESCRIPTION"]);
    for one in found {
        let updated = one.updated_at.map_or_else(|| Cell::new("built in", Tone::Faint), |at| at.to_string().into());
        let description = one.spec.get("description").and_then(Value::as_str).unwrap_or_default();
        table.row([(&one.kind).into(), Cell::new(&one.name, Tone::Strong), one.revision.to_string().into(), updated, description.into()]);
    }
    table
}

/// What `plinth apply` takes.
fn again(one: &wire::StoredResource, expect: bool) -> Value {
    let mut value = json!({ "kind": one.kind, "name": one.name, "spec": one.spec });
    if expect {
        value["expect"] = one.revision.into();
    }
    value
}

/// The same as YAML, the name before what it says.
fn ordered(one: &wire::StoredResource, expect: bool) -> String {
    let mut text = to_yaml(&json!({ "kind": one.kind })) + &to_yaml(&json!({ "name": one.name }));
    if expect {
        text += &to_yaml(&json!({ "expect": one.revision }));
    }
    text + &to_yaml(&json!({ "spec": one.spec }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_may_stand_in_the_plural() {
        for (text, kind) in [("route", "route"), ("routes", "route"), ("addresses", "addresses"), ("all", "all"), ("plans", "plan")] {
            assert_eq!(parse_kind(text).as_deref(), Ok(kind));
        }
        assert!(parse_kind("keys").is_err());
    }

    #[test]
    fn yaml_begins_with_what_it_is() {
        let one =
            wire::StoredResource { kind: "plan".into(), name: "no".into(), revision: 7, updated_at: None, spec: json!({ "weight": 2 }) };
        assert_eq!(ordered(&one, true), "kind: plan\nname: \"no\"\nexpect: 7\nspec:\n  weight: 2\n");
    }
}
