//! `plinth model push`: a directory becomes a version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plinth_client::plan::Limits;
use plinth_client::{Client, Plan, Push, PushEvent, Pushed};
use plinth_types::{AliasName, ByteSize, Label, ModelName, VersionNumber};

use super::wait::until_served;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::progress::Progress;
use crate::reference;
use crate::signing::KeyArgs;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
All files of the directory become the version's, but for what begins with `.git` at its top and for `model.sig`, which is \
taken as its signature. Links and special files are refused. Contents that the node has already are not sent again. Pushing \
the same files again makes no new version.

Examples:
  plinth model push ./digits --name digits --promote
  plinth model push ./digits --name digits --sign-key release.pem --tag stage=test --promote canary")]
pub struct Args {
    /// The directory with the model's files, such as model.onnx
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// The model; it is made when there is none of that name
    #[arg(long, value_name = "NAME")]
    name: ModelName,

    /// A word about this version
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,

    /// A tag on this version; may be given several times
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = reference::tag)]
    tags: Vec<(Label, String)>,

    #[command(flatten)]
    key: KeyArgs,

    /// The number that the version must get; a signature names it
    #[arg(long, value_name = "NUMBER")]
    version: Option<VersionNumber>,

    /// Move an alias to the version at once
    #[arg(long, value_name = "ALIAS", num_args = 0..=1, default_missing_value = "champion")]
    pub promote: Option<AliasName>,

    /// Come back only when the version answers, or has failed
    #[arg(long, requires = "promote")]
    wait: bool,
}

/// Hashes, signs, uploads and registers.
pub fn run(args: Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let signer = args.key.load()?;
    let plan = read_plan(&args.directory, context.output)?;
    if signer.is_some() && plan.signature().is_some() {
        let message = "the directory holds a model.sig, and --sign-key asks for another signature";
        return Err(Failure::new(Exit::Conflict, message).next("leave one of them out"));
    }
    let mut push = Push {
        description: args.description,
        tags: args.tags.into_iter().collect::<BTreeMap<_, _>>(),
        aliases: args.promote.into_iter().collect(),
        expect_number: args.version,
        ..Push::default()
    };
    let pushed = context.wait(async {
        if let Some(signer) = &signer {
            // The signature names the number, so the number must be known before.
            let number = match args.version {
                Some(number) => number,
                None => next_number(&client, &args.name).await?,
            };
            push.signature = Some(signer.sign(&args.name, number, plan.files())?);
            push.expect_number = Some(number);
        }
        let pushed = upload(&client, &args.name, &plan, push, context.output).await?;
        if args.wait {
            until_served(&client, &args.name, pushed.version.number, context.output).await?;
        }
        Ok(pushed)
    })?;
    context.output.answer(&pushed.version, || render(&pushed))
}

/// Reads a directory, with a bar while it is hashed.
pub fn read_plan(directory: &Path, output: Output) -> Result<Plan, Failure> {
    let bar = Progress::bytes(output, "hashing");
    Ok(Plan::read(directory, &Limits::default(), &|p| bar.of(p.done, p.total))?)
}

async fn next_number(client: &Client, model: &ModelName) -> Result<VersionNumber, Failure> {
    let last = match client.model(model).await {
        Ok(found) => found.last_version,
        Err(error) if error.status() == Some(404) => None,
        Err(error) => return Err(error.into()),
    };
    last.map_or(Ok(VersionNumber::FIRST), |n| n.next().map_err(|e| Failure::new(Exit::Failed, e.to_string())))
}

async fn upload(client: &Client, model: &ModelName, plan: &Plan, push: Push, output: Output) -> Result<Pushed, Failure> {
    let bar = Progress::bytes(output, "uploading");
    let signed = push.expect_number.is_some();
    let events = bar.clone();
    let on_event = move |event| match event {
        PushEvent::Missing { bytes, .. } => events.total(bytes),
        PushEvent::Sent(bytes) => events.done(bytes),
        PushEvent::Registering => events.message("checking"),
    };
    client.push(model, plan, push, on_event).await.map_err(|error| {
        let raced = signed && error.status() == Some(409);
        let failure = Failure::from(error);
        if raced {
            failure.next("push again; a model that was deleted before goes on counting: give the next number with --version")
        } else {
            failure
        }
    })
}

fn render(pushed: &Pushed) -> String {
    let version = &pushed.version;
    let mut text = match pushed.created {
        true => format!("{}@{} is new: {} files, {}", version.model, version.number, version.files.len(), ByteSize(version.size)),
        false => format!("{}@{} has exactly these files already", version.model, version.number),
    };
    text.push_str(&format!("\ncontent  {}", version.content));
    text.push_str(&format!("\nsent     {} of {} contents, {}", pushed.uploaded, version.files.len(), ByteSize(pushed.uploaded_bytes)));
    text.push_str(&format!("\nsigned   {}", if version.signature.is_some() { "yes" } else { "no" }));
    if version.aliases.is_empty() {
        text.push_str(&format!("\nserved   not yet; `plinth model promote {}@{}`", version.model, version.number));
    } else {
        let names: Vec<_> = version.aliases.iter().map(AliasName::as_str).collect();
        text.push_str(&format!("\naliases  {}", names.join(", ")));
    }
    text
}
