//! Both adapters against the conformance suite; Redis lost, stopped and back.

use std::sync::Arc;
use std::time::Duration;

use plinth_policy::limits::Rate;
use plinth_policy::limits::lease::LeaseRequest;
use plinth_policy::limits::lease::central::CentralRate;
use plinth_runtime::{Clock, ManualClock, TaskGroup, World};
use plinth_types::Timestamp;

use super::*;
use crate::cache::tests::server::{Server, shared};
use crate::conformance;

fn noon() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_millis(20_000 * 86_400_000 + 43_200_000).unwrap()))
}

fn options(port: u16, prefix: &str, clock: Option<Arc<ManualClock>>) -> RedisLeasesOptions {
    let clock = clock.map(|clock| clock as Arc<dyn Clock>);
    let url = format!("redis://127.0.0.1:{port}");
    RedisLeasesOptions { prefix: prefix.to_owned(), clock, ..RedisLeasesOptions::new(url, Duration::from_millis(500)) }
}

fn one(want: u64) -> LeaseRequest {
    LeaseRequest { want, unused: 0, window: 0, lost_for: Duration::ZERO, spent: 0, sent: Duration::ZERO }
}

#[tokio::test]
async fn memory_keeps_the_rule() {
    conformance::leases(async |clock| Arc::new(MemoryLeases::new(clock)) as Arc<dyn LeaseStore>).await;
}

#[tokio::test]
async fn redis_keeps_the_rule() {
    let Some(prefixes) = shared() else { return };
    let tasks = TaskGroup::new("test");
    conformance::leases(async |clock| {
        let options = RedisLeasesOptions { clock: Some(clock), ..options(6379, &prefixes.next(), None) };
        let leases = RedisLeases::open(options, &World::real(), &tasks).unwrap();
        leases.until(true).await;
        leases as Arc<dyn LeaseStore>
    })
    .await;
    tasks.close(Duration::from_secs(1)).await;
    prefixes.remove().await;
}

#[tokio::test]
async fn the_servers_own_clock_counts() {
    let Some(prefixes) = shared() else { return };
    let tasks = TaskGroup::new("test");
    let leases = RedisLeases::open(options(6379, &prefixes.next(), None), &World::real(), &tasks).unwrap();
    leases.until(true).await;
    let rule = Central::Rate(CentralRate::new(&Rate::parse("100/s", Some(10)).unwrap(), Duration::from_secs(5)));
    assert_eq!(leases.lease("a", &rule, &one(10)).await.unwrap().granted, 10);
    tokio::time::sleep(Duration::from_millis(60)).await;
    let later = leases.lease("a", &rule, &one(10)).await.unwrap();
    assert!((5..=10).contains(&later.granted), "{later:?}");
    tasks.close(Duration::from_secs(1)).await;
    prefixes.remove().await;
}

#[tokio::test]
async fn a_lost_server_fails_at_once_and_is_found_again() {
    let Some(server) = Server::start().await else { return };
    let (tasks, clock, port) = (TaskGroup::new("test"), noon(), server.port);
    let leases = RedisLeases::open(options(port, "t:", Some(clock)), &World::real(), &tasks).unwrap();
    leases.until(true).await;
    let rule = Central::Rate(CentralRate::new(&Rate::parse("10/s", Some(20)).unwrap(), Duration::from_secs(5)));
    assert_eq!(leases.lease("a", &rule, &one(5)).await.unwrap().left, 15);

    server.pause(true);
    assert_eq!(leases.lease("a", &rule, &one(5)).await, Err(NoAnswer));
    assert!(!leases.is_up(), "nothing came back within the time-out");
    assert_eq!(leases.lease("a", &rule, &one(5)).await, Err(NoAnswer));
    server.pause(false);
    tokio::time::timeout(Duration::from_secs(5), leases.until(true)).await.expect("it is found again");
    assert!(leases.lease("a", &rule, &one(0)).await.unwrap().left <= 15, "and remembers");

    server.kill();
    tokio::time::timeout(Duration::from_secs(5), leases.until(false)).await.expect("a closed connection is seen without asking");
    let Some(server) = Server::start_on(port).await else { return };
    tokio::time::timeout(Duration::from_secs(5), leases.until(true)).await.expect("it is found again");
    assert_eq!(leases.lease("a", &rule, &one(0)).await.unwrap().left, 20, "a new server remembers nothing");
    drop(server);
    tasks.close(Duration::from_secs(1)).await;
}
