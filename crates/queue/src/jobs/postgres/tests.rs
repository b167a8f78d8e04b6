//! The ledger in PostgreSQL: the common suite, and what many nodes do at once.
//!
//! Uses the database on the loopback when there is one; says so when there is none. `PLINTH_TEST_REQUIRE=postgres` makes its absence a
//! failure. Each test has a schema of its own.

mod faults;
mod nodes;

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use plinth_policy::jobs::RetryPolicy;
use plinth_runtime::{Random, SystemRandom, World};
use plinth_types::TenantName;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};

use super::{PostgresJobs, PostgresOptions};
use crate::jobs::{Body, ClaimWish, Claimed, End, Finish, JobIds, Jobs, KindWish, NewJob, OnFailure, Payload, Submission, WorkerId};

/// Without TLS, which in a debug build takes longer than all else.
const ADDRESS: &str = "postgres://postgres@127.0.0.1:5432/test?sslmode=disable";

/// The schemas of one test.
struct Schemas {
    prefix: String,
    made: AtomicU32,
}

#[allow(clippy::disallowed_methods, reason = "tests are told by their caller what to require")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Schemas for a test, or `None` when there is no PostgreSQL and nobody requires it.
fn schemas() -> Option<Schemas> {
    let loopback: SocketAddr = "127.0.0.1:5432".parse().unwrap();
    if let Err(error) = TcpStream::connect_timeout(&loopback, Duration::from_secs(1)) {
        let required = variable("PLINTH_TEST_REQUIRE").is_some_and(|list| list.split(',').any(|name| name.trim() == "postgres"));
        assert!(!required, "PLINTH_TEST_REQUIRE asks for PostgreSQL, and nobody answers on {loopback}: {error}");
        println!("SKIPPED: no PostgreSQL answers on {loopback} ({error})");
        return None;
    }
    Some(Schemas { prefix: format!("plinth_queue_test_{:016x}", SystemRandom.next_u64()), made: AtomicU32::new(0) })
}

impl Schemas {
    fn next(&self) -> String {
        format!("{}_{}", self.prefix, self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// Removes them. A test that fails leaves its schemas behind to be looked at.
    async fn remove(self) {
        for number in 0..self.made.into_inner() {
            admin(&format!("DROP SCHEMA IF EXISTS {}_{number} CASCADE", self.prefix)).await;
        }
    }
}

fn options(schema: &str) -> PostgresOptions {
    PostgresOptions { schema: Some(schema.to_owned()), max_connections: 6, ..PostgresOptions::new(ADDRESS) }
}

async fn open(schema: &str) -> PostgresJobs {
    PostgresJobs::open(&options(schema), &World::real()).await.unwrap()
}

/// A connection behind the adapter's back, in no schema.
async fn connection() -> PgConnection {
    PostgresOptions::new(ADDRESS).connect().unwrap().connect().await.unwrap()
}

/// Runs something behind the adapter's back and gives the first column of the answer, which is text.
async fn admin(sql: &str) -> Vec<String> {
    let mut connection = connection().await;
    let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
    let texts = rows.iter().map(|row| row.try_get::<String, _>(0).unwrap_or_default()).collect();
    connection.close().await.unwrap();
    texts
}

/// Makes jobs and drives them.
struct Bench {
    ids: JobIds,
    tenant: TenantName,
}

impl Bench {
    fn new() -> Self {
        Self { ids: JobIds::new(World::real()), tenant: "acme".parse().unwrap() }
    }

    fn job(&self) -> NewJob {
        NewJob {
            id: self.ids.next(),
            kind: "k".into(),
            class: 1,
            priority: 0,
            run_at: None,
            expires_at: None,
            timeout_millis: 1000,
            retry: RetryPolicy::default(),
            keep_millis: 3_600_000,
            actor: "somebody".into(),
            parent: None,
            waits_for: Vec::new(),
            on_failure: OnFailure::Fail,
            webhook: None,
            labels: String::new(),
            payload: Payload { meta: "{}".into(), body: Body::Inline(b"x".to_vec()) },
        }
    }

    fn submission(&self, jobs: Vec<NewJob>) -> Submission {
        Submission { tenant: self.tenant.clone(), key: None, jobs }
    }
}

fn wish(worker: &str, most: u32) -> ClaimWish {
    let kinds = vec![KindWish { kind: "k".into(), most }];
    ClaimWish { worker: WorkerId(worker.to_owned()), kinds, most, lowest_class: 3, lease_millis: 60_000 }
}

fn well(job: &Claimed) -> Finish {
    let result = Payload { meta: "{}".into(), body: Body::Inline(b"done".to_vec()) };
    Finish { id: job.id, epoch: job.epoch, end: End::Succeeded(result) }
}

#[tokio::test]
async fn it_conforms() {
    let Some(schemas) = schemas() else { return };
    // A fresh schema for each case would take longer than the suite; emptied tables are as good.
    let schema = schemas.next();
    open(&schema).await.close().await;
    let tables =
        ["jobs", "payloads", "results", "keys", "dependencies", "attempts", "job_events", "flows", "kinds", "schedules", "secrets"];
    let empty: String = tables.iter().map(|table| format!("DELETE FROM {schema}.{table};")).collect();
    let empty = format!("{empty} UPDATE {schema}.turns SET pass = 0");
    crate::conformance::jobs(|| async {
        admin(&empty).await;
        Box::new(open(&schema).await) as Box<dyn Jobs>
    })
    .await;
    schemas.remove().await;
}
