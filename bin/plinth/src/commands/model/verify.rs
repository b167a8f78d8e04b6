//! `plinth model verify`: is a version what its signer signed, and would this node load it? Exit code 7 when not.

use std::path::{Path, PathBuf};

use plinth_client::wire;

use super::push::read_plan;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::plain;
use crate::progress::Progress;
use crate::reference::{ModelRef, found, with_suggestion};
use crate::signing;
use crate::table::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --public-key, TARGET is a directory on this machine, and its model.sig is held against its files. Without, the node \
hashes the stored files of a version again and judges it by the keys that it trusts; without a version, the champion, else \
the newest.

Examples:
  plinth model verify ./digits --public-key release.pub.pem
  plinth model verify digits@3")]
pub struct Args {
    /// A directory, or NAME or NAME@VERSION on the node
    #[arg(value_name = "TARGET")]
    target: String,

    /// Public key whose signature counts; may be given several times
    #[arg(long = "public-key", value_name = "PEM")]
    public_keys: Vec<PathBuf>,

    /// The signature of a directory; DIR/model.sig when absent
    #[arg(long, value_name = "FILE", requires = "public_keys")]
    signature: Option<PathBuf>,
}

/// Verifies.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let (what, verdict) = if args.public_keys.is_empty() { on_the_node(args, context)? } else { directory(args, context)? };
    context.output.answer(&verdict, || render(&what, &verdict))?;
    if verdict.accepted { Ok(()) } else { Err(Failure::silent(Exit::Unverified)) }
}

fn directory(args: &Args, context: &Context) -> Result<(String, wire::Verification), Failure> {
    let plan = read_plan(Path::new(&args.target), context.output)?;
    let bundle = match &args.signature {
        Some(path) => crate::files::read_text(path, 4 << 20)?,
        None => signing::bundle_of(&plan)?.to_owned(),
    };
    Ok((args.target.clone(), signing::verify(plan.files(), &bundle, &args.public_keys)?))
}

fn on_the_node(args: &Args, context: &Context) -> Result<(String, wire::Verification), Failure> {
    let target: ModelRef = args.target.parse().map_err(|what: String| {
        Failure::usage(format!("'{}': {what}", args.target)).next("for a directory give the signer's key with `--public-key PEM`")
    })?;
    let client = context.client()?;
    let name = &target.model;
    let _waiting = Progress::spinner(context.output, "the node is hashing");
    context.wait(async {
        let number = match &target.version {
            Some(selector) => selector.number(name, &client).await?,
            None => {
                let model = found(&client, name).await?;
                let champion = model.aliases.get(&plinth_types::AliasName::champion()).copied();
                let number = champion.or(model.last_version);
                number.ok_or_else(|| Failure::new(Exit::NotFound, format!("the model '{name}' has no versions")))?
            }
        };
        match client.verification(name, number).await {
            Ok(verdict) => Ok((format!("{name}@{number}"), verdict)),
            Err(error) => Err(with_suggestion(error, &client, name).await),
        }
    })
}

fn render(what: &str, verdict: &wire::Verification) -> String {
    let mut facts = Table::facts();
    let word = if verdict.accepted { Cell::new("accepted", Tone::Good) } else { Cell::new("refused", Tone::Bad) };
    facts.fact(what, word);
    facts.fact("signed", if verdict.signed { "yes" } else { "no" });
    if let Some(signer) = &verdict.signer {
        facts.fact("signer", signer.as_str());
    }
    if let Some(reason) = &verdict.reason {
        facts.fact("reason", reason.as_str());
    }
    // Not a cell: why a version is refused must be readable to its end.
    format!("{}\n{}", facts.render(), plain(&verdict.detail))
}
