//! `plinth gc`: deletes file contents that no version needs.

use plinth_client::wire;
use plinth_config::setting::Setting;
use plinth_types::ByteSize;

use crate::context::Context;
use crate::exit::Failure;
use crate::progress::Progress;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Young contents are spared, because a push that is under way has not registered its version yet (`gc.grace`).

Examples:
  plinth gc --dry-run             what would go
  plinth gc --older-than 1h       spare only what is younger than an hour")]
pub struct Args {
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,

    /// Spare contents younger than this, such as 30m, 24h or 7d; the node's setting when absent
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<u64>,
}

fn age(text: &str) -> Result<u64, String> {
    <std::time::Duration as Setting>::from_text(text).map(|age| age.as_secs()).map_err(|_| "want an age such as 30m, 24h or 7d".to_owned())
}

/// Asks the node to collect.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let what = wire::CollectGarbage { dry_run: args.dry_run, older_than_seconds: args.older_than };
    let client = context.client()?;
    let _waiting = Progress::spinner(context.output, "collecting");
    let garbage = context.wait(async { Ok(client.collect_garbage(&what).await?) })?;
    context.output.answer(&garbage, || {
        let verb = if args.dry_run { "would delete" } else { "deleted" };
        let mut text = format!("{verb} {} contents ({}), kept {}", garbage.digests.len(), ByteSize(garbage.bytes), garbage.kept);
        if args.dry_run {
            garbage.digests.iter().for_each(|digest| text.push_str(&format!("\n{digest}")));
        }
        text
    })
}
