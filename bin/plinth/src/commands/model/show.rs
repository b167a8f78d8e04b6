//! `plinth model show`: a model with its versions, or one version with its files.

use plinth_client::{Paging, wire};
use plinth_types::{AliasName, ByteSize};
use serde::Serialize;

use super::list::aliases;
use crate::commands::status;
use crate::context::Context;
use crate::exit::Failure;
use crate::paging::gather;
use crate::reference::{ModelRef, found, with_suggestion};
use crate::table::{Cell, Table, Tone};

/// How many versions are shown with a model.
const VERSIONS: usize = 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME for the model, NAME@VERSION or NAME@ALIAS for a version
    #[arg(value_name = "NAME[@VERSION]")]
    model: ModelRef,
}

#[derive(Serialize)]
struct Shown {
    model: wire::Model,
    /// The newest versions.
    versions: Vec<wire::Version>,
}

/// Shows.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let name = &args.model.model;
    if let Some(selector) = &args.model.version {
        let version = context.wait(async {
            let number = selector.number(name, &client).await?;
            match client.version(name, number).await {
                Ok(version) => Ok(version),
                Err(error) => Err(with_suggestion(error, &client, name).await),
            }
        })?;
        return context.output.answer(&version, || render_version(&version));
    }
    let shown = context.wait(async {
        let model = found(&client, name).await?;
        let versions = gather(Some(VERSIONS), async |page: Paging| client.versions(name, &page).await).await?;
        Ok(Shown { model, versions })
    })?;
    context.output.answer(&shown, || render_model(&shown))
}

fn render_model(shown: &Shown) -> String {
    let model = &shown.model;
    let mut facts = Table::facts();
    facts.fact("model", Cell::new(model.name.as_str(), Tone::Strong));
    words(&mut facts, &model.description, &model.tags);
    facts.fact("aliases", if model.aliases.is_empty() { "none".to_owned() } else { aliases(model) });
    facts.fact("created", format!("{} by {}", model.created_at, model.created_by));
    let mut table = Table::new(&["VERSION#", "STATE", "SIGNED", "SIZE#", "ALIASES", "CREATED", "BY", "DESCRIPTION"]);
    for version in &shown.versions {
        table.row([
            version.number.to_string().into(),
            state(version),
            if version.signature.is_some() { "yes".into() } else { Cell::new("no", Tone::Faint) },
            ByteSize(version.size).to_string().into(),
            names(&version.aliases).into(),
            version.created_at.to_string().into(),
            (&version.created_by).into(),
            (&version.description).into(),
        ]);
    }
    let mut text = format!("{}\n\n{}", facts.render(), if table.is_empty() { "no versions".to_owned() } else { table.render() });
    if !model.served.is_empty() {
        text.push_str("\n\n");
        text.push_str(&status::served(&model.served).render());
    }
    text
}

fn render_version(version: &wire::Version) -> String {
    let mut facts = Table::facts();
    facts.fact("version", Cell::new(format!("{}@{}", version.model, version.number), Tone::Strong));
    words(&mut facts, &version.description, &version.tags);
    facts.fact("state", state(version));
    facts.fact("aliases", if version.aliases.is_empty() { "none".to_owned() } else { names(&version.aliases) });
    facts.fact("signed", if version.signature.is_some() { "yes; `plinth model verify` says by whom" } else { "no" });
    facts.fact("created", format!("{} by {}", version.created_at, version.created_by));
    facts.row([Cell::new("content", Tone::Faint), version.content.to_string().into()]);
    let mut table = Table::new(&["FILE", "SIZE#", "DIGEST"]);
    for file in &version.files {
        table.row([file.path.as_str().into(), ByteSize(file.size).to_string().into(), file.digest.to_string().into()]);
    }
    format!("{}\n\n{}", facts.render(), table.render())
}

fn words(facts: &mut Table, description: &str, tags: &wire::Tags) {
    if !description.is_empty() {
        facts.fact("about", description);
    }
    if !tags.is_empty() {
        facts.fact("tags", tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "));
    }
}

fn state(version: &wire::Version) -> Cell {
    match version.state {
        wire::VersionState::Active => Cell::new("active", Tone::Good),
        wire::VersionState::Retired => Cell::new("retired", Tone::Faint),
    }
}

fn names(aliases: &[AliasName]) -> String {
    aliases.iter().map(AliasName::as_str).collect::<Vec<_>>().join(" ")
}
