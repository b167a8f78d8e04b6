//! `plinth key rotate`: a new API key in place of an old one, with a time in which both are good.

use std::time::Duration;

use plinth_client::wire;
use plinth_types::KeyId;

use super::duration;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::plain;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The new key allows what the old one does, until the same end. Give it to whoever uses the old one within the overlap; after \
that the old one is refused. With `--overlap 0s` it is refused at once.

Example:
  plinth key rotate 0123456789abcdef --overlap 7d")]
pub struct Args {
    /// The old key's id, as `plinth key list` shows it
    #[arg(value_name = "ID")]
    id: KeyId,

    /// For how long the old key is good beside the new one, at most 90d
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1d")]
    overlap: Duration,
}

/// Rotates the key and shows the new one.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let rotate = wire::RotateKey { overlap_seconds: u32::try_from(args.overlap.as_secs()).unwrap_or(u32::MAX) };
    let client = context.client()?;
    let created = context.wait(async { Ok(client.rotate_key(&args.id, &rotate).await?) })?;
    context.output.note("this key is shown one time; keep it now");
    context.output.answer(&created, || plain(&created.secret).into_owned())
}
