//! `plinth infer`: asks a model, with JSON, `.npy` files or images in, a table or JSON out.

use plinth_client::oip::{InferRequest, InferResponse};
use plinth_client::{Client, Error};
use plinth_types::{ModelName, VersionNumber};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::plain;
use crate::reference::{Selector, with_suggestion};
use crate::tensor::image::Pixels;
use crate::tensor::{show, source};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Inputs. VALUE is JSON (a list, nested as deep as the tensor has dimensions; a flat list takes the input's shape), \
or a file: .json, .npy, .png, .jpg, .jpeg; `-` is JSON on standard input. NAME= may be left out when the model has one \
input. An input that is given several times becomes a batch. A missing leading batch dimension of 1 is added.

Numbers are converted to the type that the model wants when they fit: integers exactly, floats by rounding.

Images are stretched to the input's size. The shape says where channels are: [C,H,W] or [H,W,C] with 1 or 3 channels, \
[H,W], or [N] with N a square number, each with a batch dimension before it or not. White becomes 1 for floats and 255 \
for integers, or what --white says; --invert swaps black and white. Other preparation: give a .npy file.

Examples:
  plinth infer digits --input seven.png --white 16
  plinth infer digits -i image=a.npy -i image=b.npy --output label
  plinth infer iris --version 3 -i '[5.1, 3.5, 1.4, 0.2]' --json")]
pub struct Args {
    /// The model
    #[arg(value_name = "MODEL")]
    model: ModelName,

    /// Version number or alias; the champion when absent
    #[arg(long, value_name = "VERSION")]
    version: Option<Selector>,

    /// One input; may be given several times
    #[arg(long = "input", short, value_name = "[NAME=]VALUE", required = true)]
    inputs: Vec<String>,

    /// An output that is wanted; all when absent
    #[arg(long = "output", short, value_name = "NAME")]
    outputs: Vec<String>,

    /// What white becomes in an image
    #[arg(long, value_name = "NUMBER", value_parser = finite)]
    white: Option<f64>,

    /// Swap black and white in images
    #[arg(long)]
    invert: bool,

    /// An id that comes back with the answer
    #[arg(long, value_name = "ID")]
    id: Option<String>,
}

fn finite(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|n| n.is_finite()).ok_or_else(|| "want a number".to_owned())
}

/// Reads the inputs, asks, shows the answer.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let response = context.wait(ask(args, &client))?;
    context.output.answer(&show::json(&response), || {
        let version = response.model_version.as_deref().map(|v| format!(" version {}", plain(v))).unwrap_or_default();
        context.output.note(&format!("{}{version}", plain(&response.model_name)));
        show::table(&response.outputs).render()
    })
}

async fn ask(args: &Args, client: &Client) -> Result<InferResponse, Failure> {
    let version: Option<VersionNumber> = match &args.version {
        Some(selector) => Some(selector.number(&args.model, client).await?),
        None => None,
    };
    let metadata = match client.model_metadata(&args.model, version).await {
        Ok(metadata) => metadata,
        Err(error) => return Err(missing(error, client, args).await),
    };
    let pixels = Pixels { white: args.white, invert: args.invert };
    let inputs = source::tensors(&args.inputs, &metadata.inputs, pixels)?;
    if let Some(name) = args.outputs.iter().find(|name| metadata.outputs.iter().all(|o| o.name() != *name)) {
        let names: Vec<_> = metadata.outputs.iter().map(|o| o.name()).collect();
        return Err(
            Failure::new(Exit::NotFound, format!("the model has no output '{name}'")).next(format!("it gives {}", names.join(", ")))
        );
    }
    let request = InferRequest { id: args.id.clone(), inputs, outputs: args.outputs.clone(), ..InferRequest::default() };
    Ok(client.infer(&args.model, version, &request).await?)
}

async fn missing(error: Error, client: &Client, args: &Args) -> Failure {
    let absent = error.status() == Some(404);
    let failure = with_suggestion(error, client, &args.model).await;
    if absent && failure.next.is_empty() { failure.next("`plinth status` shows what is served") } else { failure }
}
