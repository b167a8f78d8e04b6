//! `plinth status`: how a node is and what it serves.

use plinth_client::wire;
use plinth_types::ByteSize;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::table::{Cell, Table, Tone};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  plinth status
  plinth status --check && echo ready            for scripts: exit code 8 while it is not ready")]
pub struct Args {
    /// End with exit code 8 when the node is not ready
    #[arg(long)]
    check: bool,
}

/// Asks the node.
pub fn run(args: &Args, context: &Context) -> Result<(), Failure> {
    let client = context.client()?;
    let status = context.wait(async { Ok(client.status().await?) })?;
    context.output.answer(&status, || render(context.server(), &status, context.output.verbose()))?;
    if args.check && !status.ready { Err(Failure::silent(Exit::TryLater)) } else { Ok(()) }
}

fn render(server: &str, status: &wire::Status, verbose: bool) -> String {
    let mut facts = Table::facts();
    facts.fact("node", format!("{server} · plinth {}", status.version));
    facts.fact("state", if status.ready { Cell::new("ready", Tone::Good) } else { Cell::new("not ready", Tone::Warning) });
    facts.fact("up for", duration(status.uptime_seconds));
    facts.fact("memory", ByteSize(status.memory_bytes).to_string());
    for device in &status.model_memory.devices {
        facts.fact(&format!("models on {}", device.device), memory(device, &status.model_memory));
    }
    facts.fact("ledger", status.metadata.as_str());
    facts.fact("files", status.objects.as_str());
    let snapshot = &status.snapshot;
    let text = format!("revision {}, checked {}", snapshot.revision, snapshot.checked_at);
    let stale = Cell::new(format!("{text}; the ledger cannot be reached, serving goes on"), Tone::Warning);
    facts.fact("snapshot", if snapshot.fresh { text.into() } else { stale });
    facts.fact("signatures", if status.require_signature { "required" } else { "not required" });
    if status.dev {
        facts.fact("access", Cell::new("open: everybody on this machine may do everything (--dev)", Tone::Warning));
    }
    if status.models.is_empty() {
        return facts.render() + "\n\nno models are served; push one with `plinth model push DIR --name NAME --promote`";
    }
    let mut text = format!("{}\n\n{}", facts.render(), served(&status.models).render());
    for model in status.models.iter().filter(|m| verbose && !m.sandbox_missing.is_empty()) {
        text.push_str(&format!("\n\n{}@{} runs without: {}", model.model, model.version, model.sandbox_missing.join("; ")));
    }
    text
}

fn memory(device: &wire::DeviceMemory, all: &wire::ModelMemory) -> Cell {
    let mut text = ByteSize(device.used).to_string();
    if let Some(budget) = device.budget {
        text.push_str(&format!(" of {}", ByteSize(budget)));
    }
    let counts = [
        ("evicted", all.evictions),
        ("unloaded idle", all.idle_unloads),
        ("loaded on demand", all.loads_on_demand),
        ("requests waiting", all.parked),
    ];
    for (what, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        text.push_str(&format!(", {count} {what}"));
    }
    let over = device.budget.is_some_and(|budget| device.used > budget);
    Cell::new(text, if over { Tone::Warning } else { Tone::Normal })
}

/// What is served, as a table; also shown by `plinth model show`.
pub fn served(models: &[wire::ServedVersion]) -> Table {
    let mut table = Table::new(&["MODEL", "VERSION#", "STATE", "ENGINE", "MEMORY#", "RESTARTS#", "PID#", "REASON"]);
    for model in models {
        let state = if model.default { format!("{} (default)", model.state) } else { model.state.clone() };
        let tone = match model.state.as_str() {
            "ready" => Tone::Good,
            "failed" | "quarantined" => Tone::Bad,
            "unloaded" => Tone::Faint,
            _ => Tone::Warning,
        };
        table.row([
            model.model.as_str().into(),
            model.version.to_string().into(),
            Cell::new(state, tone),
            model.engine.as_deref().unwrap_or("-").into(),
            if model.memory_bytes == 0 { "-".to_owned() } else { ByteSize(model.memory_bytes >> 20 << 20).to_string() }.into(),
            Cell::new(model.restarts.to_string(), if model.restarts > 0 { Tone::Warning } else { Tone::Normal }),
            model.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()).into(),
            model.reason.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}

/// The two largest units.
fn duration(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let mut rest = seconds;
    let mut words = Vec::new();
    for (unit, length) in units {
        if rest >= length || (unit == "s" && words.is_empty()) {
            words.push(format!("{} {unit}", rest / length));
        }
        rest %= length;
    }
    words.truncate(2);
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_types::{Timestamp, VersionNumber};

    fn served_version(state: &str, default: bool) -> wire::ServedVersion {
        wire::ServedVersion {
            model: "digits".parse().unwrap(),
            version: VersionNumber::FIRST,
            state: state.into(),
            default,
            reason: (state == "failed").then(|| "the graph is truncated".into()),
            pid: (state == "ready").then_some(4711),
            engine: Some("onnxruntime 1.24.4".into()),
            memory_bytes: if state == "ready" { (28 << 20) + 4096 } else { 0 },
            pinned: false,
            restarts: 2,
            sandbox: vec!["landlock".into()],
            sandbox_missing: vec!["network namespace: not permitted".into()],
        }
    }

    #[test]
    fn a_status_is_shown() {
        let status = wire::Status {
            version: "0.1.0".into(),
            ready: true,
            dev: true,
            uptime_seconds: 7384,
            metadata: "sqlite 3.51.3".into(),
            objects: "files".into(),
            snapshot: wire::SnapshotStatus { revision: 7, checked_at: Timestamp::from_millis(0).unwrap(), fresh: false },
            require_signature: false,
            memory_bytes: 50 << 20,
            model_memory: wire::ModelMemory {
                devices: vec![wire::DeviceMemory { device: "cpu".into(), budget: Some(64 << 20), used: 28 << 20, loading: 0, leaving: 0 }],
                evictions: 3,
                ..wire::ModelMemory::default()
            },
            models: vec![served_version("ready", true), served_version("failed", false)],
        };
        let text = anstream::adapter::strip_str(&render("http://127.0.0.1:8000", &status, true)).to_string();
        insta::assert_snapshot!(text, @r"
        node           http://127.0.0.1:8000 · plinth 0.1.0
        state          ready
        up for         2 h 3 min
        memory         50MiB
        models on cpu  28MiB of 64MiB, 3 evicted
        ledger         sqlite 3.51.3
        files          files
        snapshot       revision 7, checked 1970-01-01T00:00:00.000Z; the ledger cannot be reac…
        signatures     not required
        access         open: everybody on this machine may do everything (--dev)

        MODEL   VERSION  STATE            ENGINE              MEMORY  RESTARTS   PID  REASON
        digits        1  ready (default)  onnxruntime 1.24.4   28MiB         2  4711
        digits        1  failed           onnxruntime 1.24.4       -         2     -  the graph is truncated

        digits@1 runs without: network namespace: not permitted

        digits@1 runs without: network namespace: not permitted
        ");
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90_000, "1 d 1 h")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
