//! `plinth model load` and `plinth model unload`: whether the node holds a model in memory.

use plinth_types::ModelName;

use crate::context::Context;
use crate::exit::Failure;
use crate::reference::with_suggestion;

#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// The model
    name: ModelName,
}

#[derive(Debug, clap::Args)]
pub struct UnloadArgs {
    /// The model
    name: ModelName,
}

/// Loads the model and comes back when it answers.
pub fn load(args: &LoadArgs, context: &Context) -> Result<(), Failure> {
    let (client, name) = (context.client()?, &args.name);
    let model = context.wait(async {
        if let Err(error) = client.load_model(name).await {
            return Err(with_suggestion(error, &client, name).await);
        }
        Ok(client.model(name).await?)
    })?;
    context.output.answer(&model, || format!("{name} is loaded"))
}

/// Unloads the model; it stays in the registry and comes back with `plinth model load`.
pub fn unload(args: &UnloadArgs, context: &Context) -> Result<(), Failure> {
    let (client, name) = (context.client()?, &args.name);
    let model = context.wait(async {
        if let Err(error) = client.unload_model(name).await {
            return Err(with_suggestion(error, &client, name).await);
        }
        Ok(client.model(name).await?)
    })?;
    context.output.answer(&model, || format!("{name} is unloaded; `plinth model load {name}` brings it back"))
}
