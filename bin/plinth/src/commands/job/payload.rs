//! `plinth job result` and `plinth job input`: the bytes that a job has given and was given.
//!
//! Invariants: bytes go out as they came, except to a terminal, which gets text without anything that steers it; memory does not grow with
//! them; a file is there whole or not at all.

use std::io::{ErrorKind, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use plinth_client::jobs::Download;
use plinth_types::ByteSize;
use serde::Serialize;
use serde_json::Value;

use super::{advised, id};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Output, plain};

/// More is not shown on a terminal.
const MAX_SHOWN: usize = 4 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 8 while the job has not ended, 1 when it failed.

Examples:
  plinth job result 01890a5d-ac96-774b-bcce-b302099a8057 | jq .outputs
  plinth job result 01890a5d-ac96-774b-bcce-b302099a8057 --out answer.json")]
pub struct ResultArgs {
    /// The job
    #[arg(value_name = "ID", value_parser = id)]
    id: String,

    /// Write it to this file; standard output when absent
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct InputArgs {
    /// The job
    #[arg(value_name = "ID", value_parser = id)]
    id: String,

    /// Write it to this file; standard output when absent
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What `--json` says of a file that was written.
#[derive(Serialize)]
struct Written<'a> {
    out: &'a Path,
    content_type: String,
    size: u64,
}

/// Gets the result.
pub fn result(args: &ResultArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    context.wait(async {
        match client.job_result(&args.id).await {
            Ok(Some(download)) => deliver(download, args.out.as_deref(), "plinth job result ID", context.output).await,
            Ok(None) => Err(not_yet(&args.id)),
            Err(error) => {
                let there = error.reason().is_some_and(|reason| !reason.is_empty() && reason != "job_not_found");
                let failure = advised(error);
                Err(if there && failure.next.is_empty() {
                    failure.next(format!("`plinth job show {}` says more", args.id))
                } else {
                    failure
                })
            }
        }
    })
}

/// Gets the input.
pub fn input(args: &InputArgs, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    context.wait(async {
        let download = client.job_input(&args.id).await.map_err(advised)?;
        deliver(download, args.out.as_deref(), "plinth job input ID", context.output).await
    })
}

/// What to say while there is no result.
pub fn not_yet(id: &str) -> Failure {
    Failure::new(Exit::TryLater, format!("the job {id} has not ended, so there is no result"))
        .next(format!("`plinth job wait {id}` waits for it"))
}

async fn deliver(download: Download, out: Option<&Path>, again: &str, output: Output) -> Result<(), Failure> {
    let Some(out) = out else { return show(download, again, output).await };
    let content_type = download.content_type();
    let size = save(download, out).await?;
    output.answer(&Written { out, content_type: content_type.clone(), size }, || {
        output.note(&format!("wrote {} of {} to {}", ByteSize(size), plain(&content_type), out.display()));
        String::new()
    })
}

/// Writes to standard output. `again` is the command that a reader could give with `--out`.
pub async fn show(mut download: Download, again: &str, output: Output) -> Result<(), Failure> {
    let kind = download.content_type();
    if std::io::stdout().is_terminal() {
        let shown = if is_text(&kind) { download.bytes(MAX_SHOWN).await? } else { None };
        let text = shown.and_then(|bytes| String::from_utf8(bytes.into()).ok());
        let text = text.ok_or_else(|| {
            Failure::new(Exit::Failed, format!("this is {}, or too much, for a terminal", plain(&kind)))
                .next(format!("`{again} --out FILE` writes it to a file"))
        })?;
        return output.print(&for_people(&kind, &text));
    }
    if output.is_json() && !is_json(&kind) {
        return Err(
            Failure::new(Exit::Failed, format!("this is {} and not JSON", plain(&kind))).next("leave `--json` out, or say `--out FILE`")
        );
    }
    while let Some(chunk) = download.chunk().await? {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(&chunk).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            other => other.map_err(|e| Failure::new(Exit::Failed, format!("standard output cannot be written: {e}")))?,
        }
    }
    Ok(())
}

/// Its length in bytes.
async fn save(mut download: Download, out: &Path) -> Result<u64, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("'{}' cannot be written: {e}", out.display()));
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let permissions = std::fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix(".plinth-").permissions(permissions).tempfile_in(parent).map_err(|e| failed(&e))?;
    let mut size = 0;
    while let Some(chunk) = download.chunk().await? {
        file.write_all(&chunk).map_err(|e| failed(&e))?;
        size += chunk.len() as u64;
    }
    file.as_file().sync_all().map_err(|e| failed(&e))?;
    file.persist(out).map_err(|e| failed(&e.error))?;
    Ok(size)
}

/// Whether a content type is JSON.
pub fn is_json(kind: &str) -> bool {
    kind == "application/json" || kind.ends_with("+json")
}

fn is_text(kind: &str) -> bool {
    is_json(kind) || kind.starts_with("text/") || matches!(kind, "application/xml" | "application/yaml" | "application/x-ndjson")
}

/// JSON with line breaks; no line steers the terminal.
fn for_people(kind: &str, text: &str) -> String {
    let value = is_json(kind).then(|| serde_json::from_str::<Value>(text).ok()).flatten();
    let pretty = value.map(|value| {
        let mut pretty = String::new();
        write_pretty(&value, 0, &mut pretty);
        pretty
    });
    pretty.as_deref().unwrap_or(text).lines().map(|line| plain(line).into_owned()).collect::<Vec<_>>().join("\n")
}

/// As usual, except that a list of numbers or texts stays in one line: tensors have many.
fn write_pretty(value: &Value, depth: usize, text: &mut String) {
    let nested = |value: &Value| matches!(value, Value::Array(_) | Value::Object(_));
    let (open, close, parts): (_, _, Vec<(Option<&String>, &Value)>) = match value {
        Value::Array(items) if items.iter().any(nested) => ('[', ']', items.iter().map(|item| (None, item)).collect()),
        Value::Object(fields) if !fields.is_empty() => ('{', '}', fields.iter().map(|(name, value)| (Some(name), value)).collect()),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(Value::to_string).collect();
            text.push_str(&format!("[{}]", items.join(", ")));
            return;
        }
        other => {
            text.push_str(&other.to_string());
            return;
        }
    };
    text.push(open);
    for (at, (name, value)) in parts.into_iter().enumerate() {
        text.push_str(if at == 0 { "\n" } else { ",\n" });
        text.push_str(&"  ".repeat(depth + 1));
        if let Some(name) = name {
            text.push_str(&format!("{}: ", Value::from(name.as_str())));
        }
        write_pretty(value, depth + 1, text);
    }
    text.push_str(&format!("\n{}{close}", "  ".repeat(depth)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_text_that_cannot_steer_it() {
        assert_eq!(for_people("application/json", "{\"a\":[\"\u{202e}\"]}"), "{\n  \"a\": [\"\u{fffd}\"]\n}");
        let nested = r#"{"o":[{"data":[1,2.5],"n\"":null},[]],"e":{}}"#;
        let wanted = "{\n  \"e\": {},\n  \"o\": [\n    {\n      \"data\": [1, 2.5],\n      \"n\\\"\": null\n    },\n    []\n  ]\n}";
        assert_eq!(for_people("application/json", nested), wanted);
        assert_eq!(for_people("text/plain", "a\u{1b}[2J\nb"), "a\u{fffd}[2J\nb");
        assert_eq!(for_people("application/json", "not JSON"), "not JSON");
    }

    #[test]
    fn kinds_of_content_are_told_apart() {
        assert!(is_json("application/json") && is_json("application/problem+json") && !is_json("text/json-lines"));
        assert!(is_text("text/csv") && is_text("application/json") && !is_text("image/png") && !is_text("application/octet-stream"));
    }
}
