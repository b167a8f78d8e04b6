//! Every part after the other, unattended: one that fails does not keep the others from being measured, and leaves no
//! results behind that could be taken for its own.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::line::Verdict;
use crate::setup::Setup;
use crate::{
    cache, conv, digits, endpoints, events, footprint, isolation, jobs, metrics, neighbour, noisy, outage, perf_analyzer, proxy, reloads,
    replay, sizes, slow_clients, surge, table, tenants,
};

pub const PARTS: [&str; 25] = [
    "table",
    "digits",
    "sizes",
    "cache",
    "conv",
    "metrics",
    "neighbour",
    "isolation",
    "perf_analyzer",
    "proxy",
    "surge",
    "noisy",
    "tenants",
    "replay",
    "reloads",
    "events",
    "jobs_submit",
    "jobs_flow",
    "jobs_waiting",
    "jobs_recovery",
    "jobs_chaos",
    "outage",
    "endpoints",
    "slow_clients",
    "footprint",
];

/// How much of everything.
#[derive(clap::Args)]
// That of `footprint` has the group's name already.
#[group(skip)]
pub struct Amount {
    /// Measures these parts only.
    #[arg(long, value_delimiter = ',', value_parser = PARTS)]
    only: Vec<String>,
    /// Scales every duration; 0.1 is a quick look that says nothing.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    #[command(flatten)]
    footprint: footprint::Amount,
}

/// Measures and writes everything.
///
/// # Errors
/// At the end, when a part failed or missed a bar.
pub async fn measure(setup: &Setup, amount: &Amount) -> Result<()> {
    let mut troubles = Vec::new();
    for part in PARTS.into_iter().filter(|part| amount.only.is_empty() || amount.only.iter().any(|only| only == part)) {
        println!("\n## {part}\n");
        for ending in ["md", "json"] {
            // It may not be there.
            let _ = std::fs::remove_file(setup.out.join(part).with_extension(ending));
        }
        let start = Instant::now();
        match one(setup, amount, part).await {
            Ok(Verdict { missed: 0, unmeasured: 0 }) => {}
            Ok(Verdict { missed, unmeasured }) => troubles.push(format!("{part}: {missed} missed, {unmeasured} not measured")),
            Err(error) => {
                eprintln!("{part} failed: {error:#}");
                troubles.push(format!("{part} failed: {error:#}"));
            }
        }
        println!("{part}: {:.0} s", start.elapsed().as_secs_f64());
    }
    if troubles.is_empty() { Ok(()) } else { bail!("not everything is as it should be:\n  {}", troubles.join("\n  ")) }
}

async fn one(setup: &Setup, amount: &Amount, part: &str) -> Result<Verdict> {
    let scale = amount.scale;
    if let Some(part) = jobs::Part::scaled(part, setup, scale) {
        return tokio::task::spawn_blocking(move || part.measure()).await?;
    }
    match part {
        "table" => table::measure(setup, std::time::Duration::from_secs_f64(1.6 * scale)).await.map(|()| Verdict::default()),
        "digits" => digits::measure(setup, 3.0 * scale).await,
        "sizes" => sizes::measure(setup, 1.6 * scale).await,
        "cache" => cache::measure(setup, 5.0 * scale).await,
        "conv" => conv::measure(setup, 6.0 * scale).await,
        "metrics" => metrics::measure(setup, 1.5 * scale).await,
        "neighbour" => neighbour::measure(setup, 5.0 * scale, 2, 1_000.0).await,
        "isolation" => isolation::measure(setup),
        "events" => events::measure(setup, scale).await,
        "proxy" => proxy::measure(setup, 4.0 * scale).await,
        "surge" => surge::measure(setup, 6.0 * scale).await,
        "noisy" => noisy::measure(setup, 4.0 * scale).await,
        "tenants" => tenants::measure(setup, 8.0 * scale, tenants::Amount::default()).await,
        "replay" => replay::measure(setup, 120.0 * scale, false).await,
        "reloads" => reloads::measure(setup, reloads::Amount::default()).await,
        // An outage and ejections last as long as they last.
        "outage" => outage::measure(setup, (60.0 * scale).max(6.0)).await,
        "endpoints" => endpoints::measure(setup, (10.0 * scale).max(5.0)).await,
        "slow_clients" => slow_clients::measure(setup, (45.0 * scale).max(15.0)).await,
        "perf_analyzer" => perf_analyzer::measure(setup, (1, 16), 300).await,
        _ => footprint::measure(setup, &amount.footprint).await,
    }
}
