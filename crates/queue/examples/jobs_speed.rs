//! How fast is the ledger of jobs? Submissions in a second by 64 clients that each wait for the answer (committed and synced), jobs that
//! are claimed and ended in a second in batches of 32, and the milliseconds of a claim beside 0, 10,000 and 200,000 jobs that wait.
//!
//! `cargo run --release -p plinth-queue --example jobs_speed -- sqlite <path of a new file>` or `-- postgres <address>`, where a schema
//! `plinth_jobs_speed` is made and left behind: drop it before and after.
#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use plinth_policy::jobs::RetryPolicy;
use plinth_queue::jobs::postgres::{PostgresJobs, PostgresOptions};
use plinth_queue::jobs::sqlite::SqliteJobs;
use plinth_queue::jobs::{Body, ClaimWish, Claimed, End, Finish, JobIds, Jobs, KindWish, NewJob, OnFailure, Payload, Submission, WorkerId};
use plinth_runtime::World;

const CLIENTS: usize = 64;
const BATCH: u32 = 32;
const LASTS: Duration = Duration::from_secs(5);
const CLAIMS: u32 = 50;

struct Bench {
    ledger: Box<dyn Jobs>,
    ids: JobIds,
    world: World,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let world = World::real();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ledger: Box<dyn Jobs> = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sqlite", path] => Box::new(SqliteJobs::open(Path::new(path), &world).await?),
        ["postgres", url] => {
            let options = PostgresOptions { schema: Some("plinth_jobs_speed".into()), ..PostgresOptions::new(url) };
            Box::new(PostgresJobs::open(&options, &world).await?)
        }
        _ => return Err("want: sqlite <path> or postgres <address>".into()),
    };
    println!("{}", ledger.describe().await?);
    let bench = Bench { ledger, ids: JobIds::new(world.clone()), world };
    bench.submissions().await?;
    bench.ends().await?;
    for waiting in [0, 10_000, 200_000] {
        bench.claims_beside(waiting).await?;
    }
    bench.ledger.close().await;
    Ok(())
}

impl Bench {
    fn jobs(&self, count: usize) -> Result<Submission, Box<dyn Error>> {
        let payload = Payload { meta: "{\"type\":\"application/json\"}".into(), body: Body::Inline(vec![b'x'; 256]) };
        let job = || NewJob {
            id: self.ids.next(),
            kind: "k".into(),
            class: 1,
            priority: 0,
            run_at: None,
            expires_at: None,
            timeout_millis: 60_000,
            retry: RetryPolicy::default(),
            keep_millis: 3_600_000,
            actor: "bench".into(),
            parent: None,
            waits_for: Vec::new(),
            on_failure: OnFailure::Fail,
            webhook: None,
            labels: String::new(),
            payload: payload.clone(),
        };
        Ok(Submission { tenant: "acme".parse()?, key: None, jobs: (0..count).map(|_| job()).collect() })
    }

    fn seconds_since(&self, start: Duration) -> f64 {
        self.world.clock.monotonic().saturating_sub(start).as_secs_f64()
    }

    async fn submissions(&self) -> Result<(), Box<dyn Error>> {
        let start = self.world.clock.monotonic();
        let client = async || {
            let mut took = Vec::new();
            while self.seconds_since(start) < LASTS.as_secs_f64() {
                let begin = self.world.clock.monotonic();
                self.ledger.submit(self.jobs(1)?).await?;
                took.push(self.seconds_since(begin));
            }
            Ok::<_, Box<dyn Error>>(took)
        };
        let mut took: Vec<f64> = try_join_all((0..CLIENTS).map(|_| client())).await?.concat();
        let rate = took.len() as f64 / self.seconds_since(start);
        took.sort_by(f64::total_cmp);
        let at = |share: f64| took.get((took.len() as f64 * share) as usize).map_or(0.0, |seconds| seconds * 1e3);
        println!("submissions by {CLIENTS} clients: {rate:.0} in a second, p50 {:.1} ms, p99 {:.1} ms", at(0.5), at(0.99));
        Ok(())
    }

    async fn claim(&self, worker: usize, most: u32) -> Result<Vec<Claimed>, Box<dyn Error>> {
        let kinds = vec![KindWish { kind: "k".into(), most }];
        let worker = WorkerId(format!("bench/{worker}"));
        Ok(self.ledger.claim(ClaimWish { worker, kinds, most, lowest_class: 3, lease_millis: 600_000 }).await?)
    }

    async fn end(&self, claimed: Vec<Claimed>) -> Result<(), Box<dyn Error>> {
        let end = |job: Claimed| {
            let result = Payload { meta: "{}".into(), body: Body::Inline(vec![b'y'; 256]) };
            self.ledger.finish(Finish { id: job.id, epoch: job.epoch, end: End::Succeeded(result) })
        };
        join_all(claimed.into_iter().map(end)).await.into_iter().try_for_each(|ended| ended.map(|_| ()))?;
        Ok(())
    }

    /// Four workers end what there is, or as much as they can for a while.
    async fn ends(&self) -> Result<(), Box<dyn Error>> {
        let start = self.world.clock.monotonic();
        let worker = async |number: usize| {
            let mut done = 0;
            while self.seconds_since(start) < LASTS.as_secs_f64() {
                let claimed = self.claim(number, BATCH).await?;
                if claimed.is_empty() {
                    break;
                }
                done += claimed.len();
                self.end(claimed).await?;
            }
            Ok::<_, Box<dyn Error>>(done)
        };
        let done: usize = try_join_all((0..4).map(worker)).await?.into_iter().sum();
        println!("claimed and ended by 4 workers, {BATCH} at a time: {:.0} in a second", done as f64 / self.seconds_since(start));
        self.drain().await
    }

    async fn drain(&self) -> Result<(), Box<dyn Error>> {
        loop {
            let claimed = self.claim(0, 500).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            self.end(claimed).await?;
        }
    }

    async fn claims_beside(&self, waiting: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..waiting / 1000 {
            self.ledger.submit(self.jobs(1000)?).await?;
        }
        let mut took = Vec::new();
        for _ in 0..CLAIMS {
            if waiting == 0 {
                self.ledger.submit(self.jobs(1)?).await?;
            }
            let begin = self.world.clock.monotonic();
            let claimed = self.claim(0, 1).await?;
            took.push(self.seconds_since(begin) * 1e3);
            if claimed.len() != 1 {
                return Err("nothing was ready".into());
            }
            self.end(claimed).await?;
        }
        took.sort_by(f64::total_cmp);
        let most = took.last().copied().unwrap_or_default();
        println!("a claim of one beside {waiting} that wait: {:.2} ms, at most {most:.2} ms", took[took.len() / 2]);
        Ok(())
    }
}
