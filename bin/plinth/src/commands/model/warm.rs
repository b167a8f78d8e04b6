//! `plinth model warm`: has answers in the response cache before they are asked for. Exit code 1 when a request failed.

use std::path::PathBuf;

use plinth_client::{Client, wire};
use plinth_types::{ModelName, VersionNumber};
use serde_json::value::RawValue;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::plain;
use crate::progress::Progress;
use crate::reference::{Selector, with_suggestion};
use crate::table::{Cell, Table, Tone};

/// The longest file.
const MAX_FILE: u64 = 1 << 30;
/// One call to the node has about so many bytes, and at most so many requests: short enough that the bar moves.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_REQUESTS: usize = 32;
/// The most failures that are shown.
const MAX_FAILURES: usize = 10;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
FILE has one request on each line, in the JSON form of the Open Inference Protocol: what is sent to \
/v2/models/NAME/infer. `-` reads standard input; empty lines are passed over. The node computes two at a time, as any \
other request of this key. What is in the cache already is not computed again, so the same list can be sent again. In \
the answer of --json, failures name the line in FILE.

Answers are kept only for deployments that ask for it; see `cache` in the deployment.

Examples:
  plinth model warm digits --file requests.jsonl
  plinth model warm digits --version 3 --file - < requests.jsonl")]
pub struct Args {
    /// The model
    name: ModelName,

    /// Requests, one on each line
    #[arg(long, value_name = "FILE")]
    file: PathBuf,

    /// Version number or alias; the champion when absent
    #[arg(long, value_name = "VERSION")]
    version: Option<Selector>,
}

/// A request and its line, from 1.
struct Line {
    number: u64,
    request: Box<RawValue>,
}

/// Sends the list and says what came of it.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let text = crate::files::read_text(&args.file, MAX_FILE)?;
    let lines = lines(&text).map_err(|what| {
        Failure::new(Exit::Failed, format!("'{}' {what}", args.file.display()))
            .next("each line is one request as JSON, without line breaks")
    })?;
    let client = context.client()?;
    let progress = Progress::count(context.output, "warming", lines.len() as u64);
    let warmed = context.wait(send(args, &client, lines, &progress))?;
    drop(progress);
    if !warmed.kept {
        let name = &args.name;
        return Err(Failure::new(Exit::Conflict, format!("the answers of '{name}' are not kept: its deployment does not ask for a cache"))
            .next(format!("give the deployment '{name}' `cache = {{ enabled = true }}` with `plinth apply`")));
    }
    context.output.answer(&warmed, || render(&warmed))?;
    if warmed.failed == 0 { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

fn lines(text: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (number, line) in (1u64..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let request: Box<RawValue> = serde_json::from_str(line).map_err(|e| format!("has no JSON on line {number}: {e}"))?;
        if !line.starts_with('{') {
            return Err(format!("has something else than a request on line {number}"));
        }
        lines.push(Line { number, request });
    }
    if lines.is_empty() { Err("has no requests".to_owned()) } else { Ok(lines) }
}

async fn send(args: &Args, client: &Client, lines: Vec<Line>, progress: &Progress) -> Result<wire::WarmedCache, Failure> {
    let version: Option<VersionNumber> = match &args.version {
        Some(selector) => Some(selector.number(&args.name, client).await?),
        None => None,
    };
    let mut all = wire::WarmedCache { kept: true, ..wire::WarmedCache::default() };
    let mut rest = &lines[..];
    while !rest.is_empty() {
        let batch = &rest[..batch(rest)];
        let list = wire::WarmCache { version, requests: batch.iter().map(|line| line.request.clone()).collect() };
        let part = match client.warm_cache(&args.name, &list).await {
            Ok(part) => part,
            Err(error) => return Err(with_suggestion(error, client, &args.name).await),
        };
        let tried = batch.len() - usize::try_from(part.skipped).map_or(batch.len(), |skipped| skipped.min(batch.len()));
        all.kept &= part.kept;
        all.computed += part.computed;
        all.present += part.present;
        all.failed += part.failed;
        let place =
            |failure: &wire::WarmFailure| usize::try_from(failure.request).ok().and_then(|at| batch.get(at)).map(|line| line.number);
        all.failures.extend(part.failures.into_iter().map(|f| wire::WarmFailure { request: place(&f).unwrap_or(f.request), ..f }));
        all.failures.truncate(MAX_FAILURES);
        if !all.kept {
            break;
        }
        if tried == 0 {
            return Err(Failure::new(Exit::TryLater, "the node found no time for any request of the list")
                .next("send the list again when it is less busy; what was computed is not computed again"));
        }
        rest = &rest[tried..];
        progress.done((lines.len() - rest.len()) as u64);
    }
    Ok(all)
}

/// How many lines go into the next call: at least one.
fn batch(lines: &[Line]) -> usize {
    let mut bytes = 0;
    let fits = |line: &&Line| {
        bytes += line.request.get().len();
        bytes <= BATCH_BYTES
    };
    lines.iter().take(BATCH_REQUESTS).take_while(fits).count().max(1)
}

fn render(warmed: &wire::WarmedCache) -> String {
    let mut facts = Table::facts();
    facts.fact("computed", warmed.computed.to_string());
    facts.fact("there already", warmed.present.to_string());
    let tone = if warmed.failed == 0 { Tone::Good } else { Tone::Bad };
    facts.fact("failed", Cell::new(warmed.failed.to_string(), tone));
    let mut text = facts.render();
    // Not cells: what is wrong must be readable to its end.
    for failure in &warmed.failures {
        let field = failure.field.as_deref().map(|field| format!(" ({field})")).unwrap_or_default();
        text.push_str(&format!("\nline {}{}: {}", failure.request, plain(&field), plain(&failure.detail)));
    }
    let hidden = warmed.failed.saturating_sub(warmed.failures.len() as u64);
    if hidden > 0 {
        text.push_str(&format!("\nand {hidden} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_request_on_each_line() {
        let read = lines("{\"inputs\": []}\n\n  {\"id\": \"x\"}  \r\n").unwrap();
        assert_eq!(read.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 3]);
        for (bad, what) in [("", "no requests"), ("\n\n", "no requests"), ("{}\n{", "line 2"), ("[]", "line 1"), ("{} {}", "line 1")] {
            assert!(lines(bad).err().unwrap().contains(what), "{bad:?}");
        }
    }

    #[test]
    fn batches_are_bounded_by_bytes_and_count() {
        let line = |length: usize| Line { number: 1, request: serde_json::from_str(&format!("\"{}\"", "x".repeat(length))).unwrap() };
        assert_eq!(batch(&(0..100).map(|_| line(10)).collect::<Vec<_>>()), BATCH_REQUESTS);
        assert_eq!(batch(&(0..10).map(|_| line(BATCH_BYTES / 3)).collect::<Vec<_>>()), 2);
        assert_eq!(batch(&[line(2 * BATCH_BYTES), line(1)]), 1);
    }
}
