//! `plinth model sign`: a signature for a directory on this machine, or for a version that is on the node already.

use std::path::{Path, PathBuf};

use plinth_client::{plan, wire};
use plinth_types::{ModelName, VersionNumber};
use serde::Serialize;

use super::push::read_plan;
use crate::context::Context;
use crate::exit::Failure;
use crate::files;
use crate::reference::VersionRef;
use crate::signing::{KeyArgs, Signer};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --name and --version, DIR is signed as that version and the signature is written to DIR/model.sig, which the next \
`plinth model push` takes along. Without them, TARGET is a version on the node, and the signature is attached to it.

The signature follows OpenSSF Model Signing 1.0; the PyPI package `model-signing` accepts it.

Examples:
  plinth model sign ./digits --name digits --version 4 --sign-key release.pem
  plinth model sign digits@3 --sign-key release.pem")]
pub struct Args {
    /// A directory, or NAME@VERSION on the node
    #[arg(value_name = "TARGET")]
    target: String,

    #[command(flatten)]
    key: KeyArgs,

    /// The model that the directory is signed as
    #[arg(long, value_name = "NAME", requires = "version")]
    name: Option<ModelName>,

    /// The number of the version that the directory is signed as
    #[arg(long, value_name = "NUMBER", requires = "name")]
    version: Option<VersionNumber>,

    /// Where to write the signature of a directory; DIR/model.sig when absent
    #[arg(long, value_name = "FILE", requires = "name")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Signed {
    signature: PathBuf,
    signer: String,
    files: usize,
}

/// Signs.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let signer = args
        .key
        .load()?
        .ok_or_else(|| Failure::usage("signing needs a private key").next("name it with `--sign-key PEM`; `plinth key new` makes one"))?;
    match (&args.name, args.version) {
        (Some(name), Some(version)) => directory(args, &signer, name, version, context),
        _ => on_the_node(args, &signer, context),
    }
}

fn directory(args: &Args, signer: &Signer, name: &ModelName, version: VersionNumber, context: &Context) -> Result<(), Failure> {
    let directory = Path::new(&args.target);
    let plan = read_plan(directory, context.output)?;
    let bundle = signer.sign(name, version, plan.files())?;
    plan.check_unchanged()?;
    let signature = args.out.clone().unwrap_or_else(|| directory.join(plan::SIGNATURE_FILE));
    files::replace(&signature, bundle.as_bytes(), 0o644)?;
    let signed = Signed { signature, signer: signer.fingerprint(), files: plan.files().len() };
    context.output.answer(&signed, || {
        format!(
            "signed {} files as {name}@{version}\nsignature  {}\nsigner     {}",
            signed.files,
            signed.signature.display(),
            signed.signer
        )
    })
}

fn on_the_node(args: &Args, signer: &Signer, context: &Context) -> Result<(), Failure> {
    let target: VersionRef = args.target.parse().map_err(|what| {
        Failure::usage(format!("'{}': {what}", args.target)).next("for a directory give --name NAME and --version NUMBER")
    })?;
    let client = context.client()?;
    let version = context.wait(async {
        let number = target.number(&client).await?;
        let version = client.version(&target.model, number).await?;
        let bundle = signer.sign(&target.model, number, &version.files)?;
        Ok(client.attach_signature(&target.model, number, &wire::Signature { bundle }).await?)
    })?;
    context.output.answer(&version, || {
        format!("signed {}@{}: {} files\nsigner     {}", version.model, version.number, version.files.len(), signer.fingerprint())
    })
}
