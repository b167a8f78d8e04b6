//! `plinth model list`: the models of a node.

use plinth_client::{Paging, wire};

use crate::context::Context;
use crate::exit::Failure;
use crate::output::table_or;
use crate::paging::gather;
use crate::table::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show at most so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Lists.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let models = context.wait(gather(args.limit, async |page: Paging| client.models(&page).await))?;
    context.output.answer(&models, || table_or(&table(&models), "no models; push one with `plinth model push DIR --name NAME`"))
}

fn table(models: &[wire::Model]) -> Table {
    let mut table = Table::new(&["NAME", "VERSIONS#", "SERVED", "ALIASES", "UPDATED", "DESCRIPTION"]);
    for model in models {
        let last = model.last_version.map_or_else(|| "0".to_owned(), |v| v.to_string());
        table.row([
            model.name.as_str().into(),
            last.into(),
            served(model),
            aliases(model).into(),
            model.updated_at.to_string().into(),
            (&model.description).into(),
        ]);
    }
    table
}

fn served(model: &wire::Model) -> Cell {
    let ready: Vec<_> = model.served.iter().filter(|s| s.state == "ready").map(|s| s.version.to_string()).collect();
    let bad = model.served.iter().find(|s| matches!(s.state.as_str(), "failed" | "quarantined"));
    match (ready.is_empty(), bad) {
        (true, None) => Cell::new("-", Tone::Faint),
        (true, Some(bad)) => Cell::new(format!("{} {}", bad.version, bad.state), Tone::Bad),
        (false, None) => Cell::new(ready.join(" "), Tone::Good),
        (false, Some(bad)) => Cell::new(format!("{}, {} {}", ready.join(" "), bad.version, bad.state), Tone::Warning),
    }
}

/// `champion=3 previous=2`.
pub fn aliases(model: &wire::Model) -> String {
    model.aliases.iter().map(|(alias, version)| format!("{alias}={version}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::{AliasName, Timestamp, VersionNumber};

    #[test]
    fn a_list_of_models() {
        let now = Timestamp::from_millis(1_000).unwrap();
        let model = |name: &str, description: &str| wire::Model {
            name: name.parse().unwrap(),
            description: description.into(),
            tags: wire::Tags::new(),
            aliases: [(AliasName::champion(), VersionNumber::FIRST)].into(),
            last_version: Some(VersionNumber::FIRST),
            created_by: "key/a".into(),
            created_at: now,
            updated_at: now,
            served: Vec::new(),
        };
        let text = table(&[model("digits", "hand-written digits"), model("fraud-score", "\u{1b}[2J")]).render();
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string(), @r"
        NAME         VERSIONS  SERVED  ALIASES     UPDATED                   DESCRIPTION
        digits              1  -       champion=1  1970-01-01T00:00:01.000Z  hand-written digits
        fraud-score         1  -       champion=1  1970-01-01T00:00:01.000Z  �[2J
        ");
    }
}
