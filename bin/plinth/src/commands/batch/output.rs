//! Getting the output of a batch: a file is there whole or not at all.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use plinth_client::Client;

use super::id;
use crate::commands::job::advised;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::progress::Progress;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The batch
    #[arg(value_name = "ID", value_parser = id)]
    id: String,

    /// Write it to this file; standard output when absent
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Gets it.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    context.wait(get(&client, &args.id, args.out.as_deref(), context.output))
}

/// Writes the output of a batch that has ended to a file, or to standard output.
pub async fn get(client: &Client, id: &str, out: Option<&Path>, output: Output) -> Result<(), Failure> {
    let Some(mut download) = client.bulk_output(id).await.map_err(advised)? else {
        return Err(Failure::new(Exit::TryLater, format!("the batch {id} has not ended"))
            .next(format!("`plinth batch resume {id}` waits for it and gets its output")));
    };
    let length = download.length();
    let Some(out) = out else {
        while let Some(chunk) = download.chunk().await? {
            let mut stdout = std::io::stdout().lock();
            match stdout.write_all(&chunk).and_then(|()| stdout.flush()) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                other => other.map_err(|e| Failure::new(Exit::Failed, format!("standard output cannot be written: {e}")))?,
            }
        }
        return Ok(());
    };
    let failed = |e: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, format!("'{}' cannot be written: {e}", out.display()))
            .next(format!("`plinth batch output {id} --out FILE` gets the output again"))
    };
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let permissions = std::fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix(".plinth-").permissions(permissions).tempfile_in(parent).map_err(|e| failed(&e))?;
    let bar = Progress::bytes(output, "download");
    let mut size = 0;
    while let Some(chunk) = download.chunk().await? {
        file.write_all(&chunk).map_err(|e| failed(&e))?;
        size += chunk.len() as u64;
        bar.of(size, length.unwrap_or(size));
    }
    file.as_file().sync_all().map_err(|e| failed(&e))?;
    file.persist(out).map_err(|e| failed(&e.error))?;
    Ok(())
}
