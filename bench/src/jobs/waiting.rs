//! Does it matter to a claim how many jobs wait?
//!
//! Claims of 32 beside 0, 10,000, 100,000 and 1,000,000 jobs that wait, of the same 1,000 tenants each time, and the memory of the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use plinth_queue::jobs::{Body, ClaimWish, Claimed, End, Finish, Finished, Jobs, KindWish, Payload, WorkerId};
use plinth_runtime::World;
use plinth_types::TenantName;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::ledgers::{self, Fresh, Server};
use super::make::{KIND, Maker};
use super::times::{Times, since};
use crate::line::{Line, Verdict};
use crate::process;
use crate::setup::{Part, Setup};

/// Jobs of one claim.
const MOST: u32 = 32;
const BYTES: usize = 200;
/// A claim beside the most jobs over one beside a hundredth of them.
const GOAL: f64 = 1.5;
/// Milliseconds of a claim beside the most jobs.
const SOON: f64 = 10.0;
/// MiB by which the process may grow.
const GROWTH: f64 = 32.0;
/// Submissions that are under way while the ledger is filled.
const WRITERS: usize = 4;
/// For one submission of a thousand jobs while others wait too.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of it.
#[derive(clap::Args, Clone)]
pub struct Amount {
    /// The most jobs that wait; the steps before are a tenth and a hundredth.
    #[arg(long, default_value_t = 1_000_000)]
    jobs: usize,
    /// Tenants whose they are.
    #[arg(long, default_value_t = 1_000)]
    tenants: usize,
    /// Claims at each step.
    #[arg(long, default_value_t = 100)]
    claims: usize,
    #[command(flatten)]
    server: Server,
}

impl Amount {
    pub fn scaled(scale: f64) -> Self {
        Self { jobs: ((1_000_000.0 * scale) as usize).max(1_000), tenants: 1_000, claims: 100, server: Server::default() }
    }

    fn steps(&self) -> [usize; 4] {
        [0, self.jobs / 100, self.jobs / 10, self.jobs]
    }
}

struct Bench {
    ledger: Arc<dyn Jobs>,
    maker: Arc<Maker>,
    tenants: Arc<Vec<TenantName>>,
}

struct Found {
    about: String,
    claims: Vec<Times>,
    /// Claims that gave fewer jobs than there were.
    short: usize,
    /// MiB after the first step and after the last one.
    memory: [f64; 2],
    /// Seconds that filling took.
    filling: f64,
}

impl Bench {
    /// Adds so many jobs, the same number for each tenant, at most 1,000 in a submission.
    async fn fill(&self, jobs: usize) -> Result<()> {
        let tenants = self.tenants.len();
        let of = move |tenant: usize| jobs / tenants + usize::from(tenant < jobs % tenants);
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (ledger, maker, names) = (self.ledger.clone(), self.maker.clone(), self.tenants.clone());
            writers.spawn(async move {
                for tenant in (writer..names.len()).step_by(WRITERS) {
                    let mut left = of(tenant);
                    while left > 0 {
                        let some = left.min(1_000);
                        ledger.submit(maker.submission(&names[tenant], some, false)).await?;
                        left -= some;
                    }
                }
                anyhow::Ok(())
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer??;
        }
        Ok(())
    }

    async fn claim(&self) -> Result<Vec<Claimed>> {
        let kinds = vec![KindWish { kind: KIND.to_owned(), most: MOST }];
        let wish = ClaimWish { worker: WorkerId("bench/1".to_owned()), kinds, most: MOST, lowest_class: 3, lease_millis: 600_000 };
        Ok(self.ledger.claim(wish).await?)
    }

    async fn end(&self, claimed: Vec<Claimed>) -> Result<()> {
        let mut ends = JoinSet::new();
        for job in claimed {
            let ledger = self.ledger.clone();
            let end = End::Succeeded(Payload { meta: "{}".into(), body: Body::Inline(b"{}".to_vec()) });
            ends.spawn(async move { ledger.finish(Finish { id: job.id, epoch: job.epoch, end }).await });
        }
        while let Some(end) = ends.join_next().await {
            ensure!(end?? == Finished::Done, "the end of a job was refused");
        }
        Ok(())
    }

    /// Claims beside what waits, and how many gave fewer than they asked for: those are not timed. What is claimed is ended, and as many
    /// come in its place.
    async fn claims(&self, count: usize) -> Result<(Times, usize)> {
        let (mut took, mut short) = (Vec::new(), 0);
        while took.len() < count {
            let tenant = &self.tenants[((took.len() + short) * 37) % self.tenants.len()];
            self.ledger.submit(self.maker.submission(tenant, MOST as usize, false)).await?;
            let start = Instant::now();
            let claimed = self.claim().await?;
            if claimed.len() == MOST as usize {
                took.push(since(start));
            } else {
                short += 1;
                ensure!(short <= count, "{short} claims gave fewer than {MOST} jobs, the last one {}", claimed.len());
            }
            self.end(claimed).await?;
        }
        Ok((Times::new(took), short))
    }
}

async fn one(fresh: &Fresh, amount: &Amount) -> Result<Found> {
    let world = World::real();
    let ledger = fresh.place.open(&world, PATIENCE).await?;
    let tenants = (0..amount.tenants).map(|number| Ok(format!("tenant-{number:04}").parse()?)).collect::<Result<_>>()?;
    let bench = Bench { ledger, maker: Arc::new(Maker::new(&world, BYTES)), tenants: Arc::new(tenants) };
    let resident = || process::resident_kib(std::process::id()).map(|kib| kib as f64 / 1024.0);
    // Statements are prepared, pages are cached.
    bench.claims(amount.claims.div_ceil(4)).await?;
    let (mut claims, mut before, mut filling, mut waiting, mut short) = (Vec::new(), 0.0, 0.0, 0, 0);
    for step in amount.steps() {
        let start = Instant::now();
        bench.fill(step - waiting).await?;
        filling += start.elapsed().as_secs_f64();
        // What the kernel still has to write of it would be paid for by the next syncs.
        tokio::task::spawn_blocking(rustix::fs::sync).await?;
        waiting = step;
        let (times, few) = bench.claims(amount.claims).await?;
        claims.push(times);
        short += few;
        if step == 0 {
            before = resident()?;
        }
    }
    let memory = [before, resident()?];
    bench.ledger.close().await;
    Ok(Found { about: fresh.about().await?, claims, short, memory, filling })
}

fn lines(name: &str, found: &Result<Found>, amount: &Amount) -> Vec<Line> {
    let [_, few, _, many] = amount.steps();
    let ratio = format!("{name}: p50 of a claim of {MOST} beside {many} over beside {few}");
    let soon = format!("{name}: p50 of a claim of {MOST} beside {many}");
    let memory = format!("{name}: growth of the process's memory while {many} jobs came to wait");
    let (ratio_bar, soon_bar, memory_bar) = (format!("≤ {GOAL:.2} ×"), format!("≤ {SOON:.0} ms"), format!("≤ {GROWTH:.0} MiB"));
    match found {
        Ok(found) => {
            let (base, top) = (found.claims[1].at(0.5), found.claims[3].at(0.5));
            let grown = found.memory[1] - found.memory[0];
            vec![
                Line::judged(ratio, ratio_bar, format!("{:.2} ×", top / base), top <= GOAL * base),
                Line::judged(soon, soon_bar, format!("{top:.2} ms"), top <= SOON),
                Line::judged(memory, memory_bar, format!("{grown:.1} MiB"), grown <= GROWTH),
            ]
        }
        Err(error) => {
            let why = format!("{error:#}");
            [(ratio, ratio_bar), (soon, soon_bar), (memory, memory_bar)].map(|(what, bar)| Line::missing(what, bar, &why)).into()
        }
    }
}

/// Measures and writes `jobs_waiting`.
pub async fn measure(setup: &Setup, amount: &Amount) -> Result<Verdict> {
    let (mut all, mut about, mut figures) = (Vec::new(), Vec::new(), serde_json::Map::new());
    let mut rows = String::from("| ledger | jobs that wait | p50 ms | p99 ms | max ms |\n|---|---:|---:|---:|---:|\n");
    for (name, fresh) in ledgers::both(&amount.server).await {
        let found = match fresh {
            Ok(fresh) => {
                let found = one(&fresh, amount).await;
                fresh.remove().await?;
                found
            }
            Err(error) => Err(error),
        };
        all.extend(lines(name, &found, amount));
        let Ok(found) = found else { continue };
        for (step, times) in amount.steps().iter().zip(&found.claims) {
            rows.push_str(&format!("| {name} | {step} | {:.2} | {:.2} | {:.2} |\n", times.at(0.5), times.at(0.99), times.at(1.0)));
        }
        all.push(Line::plain(
            format!("{name}: jobs stored in a second, up to 1,000 in a submission, {WRITERS} submissions at a time"),
            format!("{:.0}/s", amount.jobs as f64 / found.filling),
        ));
        all.push(Line::plain(format!("{name}: claims that gave fewer than {MOST} jobs though more waited"), found.short.to_string()));
        let claims: Vec<Value> = found.claims.iter().map(Times::figures).collect();
        let value = json!({ "steps": amount.steps(), "claims": claims, "short": found.short, "memory_mib": found.memory, "filling_s": found.filling });
        figures.insert(name.to_lowercase(), value);
        about.push(found.about);
    }
    setup.finish(&Part {
        name: "jobs_waiting",
        title: "Claims beside a million jobs that wait",
        how: &format!("{} claims of {MOST} at each step, {} tenants", amount.claims, amount.tenants),
        about: &format!(
            "The ledger alone, in this process. Every step has jobs of all {} tenants, {BYTES} bytes each. Each claim is followed by the \
             ends of its jobs, and {MOST} others come in their place before the next. After filling, the machine's disks are synced. \
             Memory is what is resident of the process (for PostgreSQL: of the client), after the claims at no waiting jobs and after \
             those at the most. {}.",
            amount.tenants,
            about.join("; ")
        ),
        lines: &all,
        text: &rows,
        figures: Value::Object(figures),
    })
}
