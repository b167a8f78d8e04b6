//! How a node's announcements look: a few lines for people on standard error, or JSON lines with `--json`.
//!
//! The admin key is part of them; it goes nowhere else, above all not into the log.

use anstyle::Style;
use plinth_node::{Announce, Announcement};
use serde_json::json;

use crate::output::Output;
use crate::table::Tone;

/// Shows announcements.
pub fn to(output: Output) -> Announce {
    Box::new(move |announcement| {
        if output.is_json() {
            // A program that started the node waits for these lines.
            let _ = output.print(&as_json(&announcement).to_string());
        } else {
            output.raw_error(&for_people(&announcement));
        }
    })
}

fn as_json(announcement: &Announcement) -> serde_json::Value {
    match announcement {
        Announcement::AdminKey(key) => json!({ "event": "admin_key", "key": key }),
        Announcement::Listening { http, grpc, metrics, admin, open } => {
            json!({ "event": "listening", "http": http, "grpc": grpc, "metrics": metrics, "admin": admin, "open": open })
        }
        Announcement::Ready { ready, failed, took_ms } => json!({ "event": "ready", "ready": ready, "failed": failed, "took_ms": took_ms }),
        Announcement::Stopping { signal } => json!({ "event": "stopping", "signal": signal }),
    }
}

fn for_people(announcement: &Announcement) -> String {
    let (bold, faint, warning) = (Style::new().bold(), Tone::Faint.style(), Tone::Warning.style());
    match announcement {
        Announcement::AdminKey(key) => format!(
            "\n  {bold}admin key{bold:#}  {key}\n  {faint}shown this one time; keep it with{faint:#} plinth login {faint}or{faint:#} export PLINTH_KEY=…\n"
        ),
        Announcement::Listening { http, grpc, metrics, admin, open } => {
            let mut text = format!("  {bold}plinth{bold:#}     http://{http}");
            if let Some(grpc) = grpc {
                text.push_str(&format!("\n  gRPC       {grpc}"));
            }
            if let Some(admin) = admin {
                text.push_str(&format!("\n  admin      http://{admin}"));
            }
            if let Some(metrics) = metrics {
                text.push_str(&format!("\n  metrics    http://{metrics}/metrics"));
            }
            if *open {
                text.push_str(&format!("\n  {warning}open{warning:#}       everybody on this machine may do everything (--dev)"));
            }
            text
        }
        Announcement::Ready { ready, failed, took_ms } => {
            let models = match (ready, failed) {
                (0, 0) => "no models yet; `plinth model push DIR --name NAME --promote`".to_owned(),
                (ready, 0) => format!("{ready} serving"),
                (ready, failed) => format!("{ready} serving, {failed} failed; see `plinth status`"),
            };
            format!("  ready      {models} {faint}({took_ms} ms){faint:#}")
        }
        Announcement::Stopping { signal } => format!("  stopping   {signal}; a second signal ends it at once"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_for_people() {
        let shown = |a| anstream::adapter::strip_str(&for_people(&a)).to_string();
        let listening = Announcement::Listening {
            http: "127.0.0.1:8000".into(),
            grpc: Some("127.0.0.1:8001".into()),
            metrics: Some("127.0.0.1:8002".into()),
            admin: None,
            open: true,
        };
        insta::assert_snapshot!(shown(listening), @r"
        plinth     http://127.0.0.1:8000
        gRPC       127.0.0.1:8001
        metrics    http://127.0.0.1:8002/metrics
        open       everybody on this machine may do everything (--dev)
        ");
        assert!(shown(Announcement::Ready { ready: 2, failed: 1, took_ms: 5 }).contains("2 serving, 1 failed"));
        assert!(shown(Announcement::AdminKey("plinth_a_b".into())).contains("plinth_a_b"));
    }
}
