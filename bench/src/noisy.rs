//! Does one tenant that asks for a hundred times its quota slow down another one that stays within its own?
//!
//! A quiet tenant sends at a steady rate (open loop) in windows: alone, and beside a noisy one whose requests are a hundred times what its plan
//! allows, in the order A B B A, several times. The node has a processor to itself, the generator and the upstream the other.

use std::time::Duration;

use anyhow::{Context, Result};
use plinth_client::wire;
use serde::Serialize;
use serde_json::json;

use crate::body;
use crate::exchange::Target;
use crate::line::{Line, Verdict};
use crate::open::{self, Kind, Step, Window};
use crate::plinth::{self, Home, Node};
use crate::setup::{Part, Setup};
use crate::surge::{Limited, NODE, OTHERS, apply};

/// Requests per second of the quiet tenant, and of the noisy one: its plan and what it sends.
const QUIET: f64 = 400.0;
const QUOTA: f64 = 20.0;
const NOISY: f64 = 100.0 * QUOTA;
const CONNECTIONS: usize = 256;
const ROUNDS: usize = 3;
const GOAL: f64 = 1.05;
const SERVICE: Duration = Duration::from_millis(20);

/// A key of a tenant.
async fn key(node: &Node, tenant: &str) -> Result<String> {
    let client = node.client()?.for_tenant(Some(tenant.to_owned()));
    let new = wire::NewKey { role: wire::Role::Developer, description: "bench".to_owned(), expires_at: None, models: Vec::new() };
    Ok(client.create_key(&new).await.with_context(|| format!("a key for '{tenant}'"))?.secret)
}

/// The same number of windows alone and beside the noisy one.
#[derive(Serialize)]
struct Found {
    subject: &'static str,
    alone: Vec<Window>,
    beside: Vec<Window>,
    noisy: Vec<Window>,
}

impl Found {
    fn median(windows: &[Window], of: fn(&Window) -> f64) -> f64 {
        let mut all: Vec<f64> = windows.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        match all.len() {
            0 => 0.0,
            n if n % 2 == 1 => all[n / 2],
            n => f64::midpoint(all[n / 2 - 1], all[n / 2]),
        }
    }

    fn lines(&self) -> Vec<Line> {
        let errors: usize = self.alone.iter().chain(&self.beside).map(|window| window.offered - window.good).sum();
        let trouble = self.alone.iter().chain(&self.beside).find_map(Window::trouble);
        let ratio = Self::median(&self.beside, |window| window.p99_us) / Self::median(&self.alone, |window| window.p99_us);
        let what = format!("{}: p99 of a tenant within its quota beside one at 100 × its own, over alone", self.subject);
        let errors_of = format!("{}: its requests that were not answered well", self.subject);
        let let_in: f64 = self.noisy.iter().map(|window| window.goodput).sum::<f64>() / self.noisy.len().max(1) as f64;
        vec![
            Line::at_most(what, GOAL, trouble.is_none().then_some(ratio), trouble.as_deref().unwrap_or_default()),
            Line::judged(errors_of, "0", errors.to_string(), errors == 0),
            Line::plain(format!("{}: requests/s of the noisy one that were let in, of {NOISY:.0}", self.subject), format!("{let_in:.1}")),
        ]
    }

    fn rows(&self) -> String {
        let row = |side: &str, windows: &[Window]| {
            let of = |of| Self::median(windows, of);
            format!(
                "| {} | {side} | {:.0} | {:.0} | {:.0} | {:.0} |\n",
                self.subject,
                of(|window| window.offered as f64 / window.seconds),
                of(|window| window.p50_us),
                of(|window| window.p99_us),
                of(|window| window.late_p99_us)
            )
        };
        row("alone", &self.alone) + &row("beside the noisy one", &self.beside)
    }
}

/// The windows of the quiet tenant, and those of the noisy one.
async fn windows(subject: &'static str, ask: impl Fn(&str) -> Result<Target>, keys: &[String; 2], seconds: f64) -> Result<Found> {
    let mut found = Found { subject, alone: Vec::new(), beside: Vec::new(), noisy: Vec::new() };
    let kind = |tenant: usize, rate| Ok::<_, anyhow::Error>(Kind { target: ask(&keys[tenant])?, share: rate });
    for round in 0..ROUNDS {
        for (at, noisy) in [false, true, true, false].into_iter().enumerate() {
            let (kinds, rate) =
                if noisy { (vec![kind(0, QUIET)?, kind(1, NOISY)?], QUIET + NOISY) } else { (vec![kind(0, QUIET)?], QUIET) };
            let step = Step { seconds: seconds + 0.5, rate };
            let record = open::offer(kinds, &[step], CONNECTIONS, (round * 4 + at) as u64 + 11).await?;
            let of = |kind: u8| {
                let answers = record.answers.iter().filter(|answer| answer.kind == kind).copied().collect();
                record.only(answers).window(0.5, seconds + 0.5)
            };
            if noisy {
                found.beside.push(of(0));
                found.noisy.push(of(1));
            } else {
                found.alone.push(of(0));
            }
        }
    }
    Ok(found)
}

/// Measures and writes `noisy`.
pub async fn measure(setup: &Setup, seconds: f64) -> Result<Verdict> {
    let stay = open::Stay::on(OTHERS)?;
    let limited = Limited::start(OTHERS, 256, SERVICE)?;
    let directory = tempfile::tempdir()?;
    plinth::digits(setup, "2", "digits", directory.path())?;
    let mut home = Home::with(setup, &[("limits.ban_requests", "0")])?;
    let node = home.start_on(NODE)?;
    let limit = |rate: f64| json!({"limits": [{"name": "requests", "rate": format!("{rate:.0}/s"), "burst": (2.0 * rate) as u64}], "concurrency": 512});
    let route = json!({"matches": {"path": {"prefix": "/service"}}, "targets": [{"to": {"upstream": "service"}}]});
    let service = json!({"endpoints": [{"url": format!("http://{}", limited.address)}], "allow_networks": ["127.0.0.0/8"]});
    let mut resources = vec![
        json!({"kind": "plan", "name": "quiet", "spec": limit(QUIET * 4.0)}),
        json!({"kind": "plan", "name": "noisy", "spec": limit(QUOTA)}),
        json!({"kind": "upstream", "name": "service", "spec": service}),
    ];
    resources.extend(["quiet", "noisy"].map(|tenant| json!({"kind": "tenant", "name": tenant, "spec": {"plan": tenant}})));
    apply(&node, json!(resources)).await?;
    let mut keys = [String::new(), String::new()];
    for (at, tenant) in ["quiet", "noisy"].into_iter().enumerate() {
        keys[at] = key(&node, tenant).await?;
        node.push_for(Some(tenant), "digits", directory.path(), true)?;
        let path = format!("{}/v1/apply", node.http);
        let spec = json!({"resources": [{"kind": "route", "name": "service", "spec": route}]}).to_string();
        let target = Target::post_with(&path, spec.as_bytes(), None, Some(&node.key), &[("X-Plinth-Tenant", tenant)])?;
        let answer = crate::exchange::Connection::open(&target.address).await?.exchange(&target).await.map(|answer| answer.status)?;
        anyhow::ensure!(answer == 200, "the route of '{tenant}' was refused with {answer}");
    }
    let service_url = format!("{}/service", node.http);
    let upstream = windows("upstream", |key| Target::post(&service_url, &[b'x'; 128], None, Some(key)), &keys, seconds).await?;
    let (url, body) = (node.infer_url("digits"), body::binary("image", &[1, 64]));
    let digits = windows("digits", |key| Target::post(&url, &body.bytes, body.header_length, Some(key)), &keys, seconds).await?;
    drop(stay);
    let mut lines = upstream.lines();
    lines.extend(digits.lines());
    let text = format!(
        "| subject | window | requests/s | p50 µs | p99 µs | the generator's own p99 lateness µs |\n|---|---|---:|---:|---:|---:|\n{}{}",
        upstream.rows(),
        digits.rows()
    );
    setup.finish(&Part {
        name: "noisy",
        title: "A noisy neighbour: 100 × its quota",
        how: &format!("{} windows of {seconds:.1} s on each side, open loop, Poisson arrivals", ROUNDS * 2),
        about: &format!(
            "The quiet tenant sends {QUIET:.0} requests/s and may send four times that; the noisy one may send {QUOTA:.0} and sends {NOISY:.0}. Upstream: a service that takes {} ms. Digits: \
             the model on the node, one for each tenant, in binary. Medians over the windows. The requests of both tenants share the generator's connections.",
            SERVICE.as_millis()
        ),
        lines: &lines,
        text: &text,
        figures: json!({ "upstream": upstream, "digits": digits }),
    })
}
