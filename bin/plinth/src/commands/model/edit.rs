//! `plinth model edit`: descriptions and tags, of a model or of a version.

use plinth_client::wire;
use plinth_types::Label;

use crate::context::Context;
use crate::exit::Failure;
use crate::reference::{self, ModelRef, with_suggestion};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  plinth model edit digits --description 'hand-written digits'
  plinth model edit digits@3 --tag stage=production --untag reviewer")]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true).args(["description", "tags", "untags"])))]
pub struct Args {
    /// NAME for the model, NAME@VERSION for a version
    #[arg(value_name = "NAME[@VERSION]")]
    model: ModelRef,

    /// The new description
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// Set a tag; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = reference::tag)]
    tags: Vec<(Label, String)>,

    /// Take a tag away; may be given several times
    #[arg(long = "untag", value_name = "KEY")]
    untags: Vec<Label>,
}

/// Changes the words.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let name = &args.model.model;
    let set = args.tags.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
    let tags = set.chain(args.untags.iter().map(|key| (key.clone(), None))).collect();
    let edit = wire::Edit { description: args.description.clone(), tags };
    let Some(selector) = &args.model.version else {
        let model = context.wait(async {
            match client.edit_model(name, &edit).await {
                Ok(model) => Ok(model),
                Err(error) => Err(with_suggestion(error, &client, name).await),
            }
        })?;
        return context.output.answer(&model, || format!("changed {name}"));
    };
    let version = context.wait(async {
        let number = selector.number(name, &client).await?;
        Ok(client.edit_version(name, number, &edit).await?)
    })?;
    context.output.answer(&version, || format!("changed {name}@{}", version.number))
}
