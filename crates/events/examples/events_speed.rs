//! How many events per second are acknowledged as durable?
//!
//! Unit: acknowledged events per second of wall time, in a closed loop: each client appends, waits for the acknowledgement, appends
//! again. Ids are random and 32 characters long, keys are of 100,000 users, data is 100 bytes. The count is compared at the end.
//!
//! ```sh
//! cargo run --release -p plinth-events --example events_speed -- sqlite DIR --events 1000000 --clients 64 --list 1
//! cargo run --release -p plinth-events --example events_speed -- postgres URL --schema NAME
//! ```
//! Further: `--files N` (a new SQLite store), `--latest` (rows by key), `--retry` (appends all twice, so half are retries).
#![allow(clippy::print_stdout, reason = "it tells people")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plinth_events::{Appended, Event, Events, EventsError, PostgresEvents, PostgresOptions, Settings, SqliteEvents, SqliteOptions, Stream};
use plinth_runtime::{Clock, OnEnd, Random, SystemClock, SystemRandom, TaskGroup, World};

type Failure = Box<dyn Error + Send + Sync>;

struct Arguments {
    words: Vec<String>,
}

impl Arguments {
    fn number(&self, name: &str, usual: u64) -> Result<u64, Failure> {
        self.after(name).map_or(Ok(usual), |text| text.parse().map_err(Into::into))
    }

    fn after(&self, name: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == name)?;
        self.words.get(at + 1).map(String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.words.iter().any(|word| word == name)
    }
}

/// What all clients share.
struct Load {
    store: Arc<dyn Events>,
    stream: Stream,
    list: u64,
    events: u64,
    retry: bool,
    begun: AtomicU64,
    stored: AtomicU64,
    already: AtomicU64,
    busy: AtomicU64,
    slowest_micros: AtomicU64,
}

impl Load {
    fn events(&self, from: u64, number: u64, salt: u64) -> Result<Vec<Event>, Failure> {
        let event = |at: u64| {
            // Like a random UUID: no two are near each other (the finaliser of SplitMix64).
            let mut id = (at ^ salt).wrapping_add(0x9e37_79b9_7f4a_7c15);
            id = (id ^ (id >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            id = (id ^ (id >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            id ^= id >> 31;
            let key = format!("user-{}", id % 100_000);
            Ok(Event { id: format!("{id:016x}{at:016x}").parse()?, key: key.parse()?, at: None, data: Some(vec![b'x'; 100]) })
        };
        (from..from + number).map(event).collect()
    }

    async fn client(&self, salt: u64) -> Result<(), Failure> {
        loop {
            let from = self.begun.fetch_add(self.list, Ordering::Relaxed);
            if from >= self.events {
                return Ok(());
            }
            let events = self.events(from, self.list.min(self.events - from), salt)?;
            if self.retry {
                self.append(events.clone()).await?;
            }
            self.append(events).await?;
        }
    }

    async fn append(&self, events: Vec<Event>) -> Result<(), Failure> {
        let begun = SystemClock.monotonic();
        let answers = loop {
            match self.store.append(&self.stream, events.clone()).await {
                Err(EventsError::Busy) => {
                    self.busy.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                answers => break answers?,
            }
        };
        let took = u64::try_from(SystemClock.monotonic().saturating_sub(begun).as_micros())?;
        self.slowest_micros.fetch_max(took, Ordering::Relaxed);
        let new = answers.iter().filter(|answer| matches!(answer, Appended::New(_))).count() as u64;
        self.stored.fetch_add(new, Ordering::Relaxed);
        self.already.fetch_add(answers.len() as u64 - new, Ordering::Relaxed);
        Ok(())
    }
}

async fn open(arguments: &Arguments) -> Result<Arc<dyn Events>, Failure> {
    let world = World::real();
    let place = arguments.words.get(1).ok_or("want: sqlite DIR | postgres URL")?;
    match arguments.words.first().map(String::as_str) {
        Some("sqlite") => {
            let files = u16::try_from(arguments.number("--files", 1)?)?;
            let options = SqliteOptions { files, ..SqliteOptions::new(place) };
            Ok(Arc::new(SqliteEvents::open(&options, &world).await?))
        }
        Some("postgres") => {
            let mut options = PostgresOptions::new(place)?;
            options.writers = u16::try_from(arguments.number("--writers", 2)?)?;
            let options = options.in_schema(arguments.after("--schema").unwrap_or("events_speed"))?;
            Ok(Arc::new(PostgresEvents::open(&options, &world).await?))
        }
        _ => Err("want: sqlite DIR | postgres URL".into()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments { words: std::env::args().skip(1).collect() };
    let store = open(&arguments).await?;
    let salt = SystemRandom.next_u64();
    let stream = Stream { tenant: "speed".parse()?, name: format!("s{salt:x}").parse()? };
    let settings = if arguments.has("--latest") { Settings::latest() } else { Settings::log() };
    store.create(&stream, &settings).await?;
    let load = Arc::new(Load {
        store: store.clone(),
        stream: stream.clone(),
        list: arguments.number("--list", 1)?.clamp(1, 1000),
        events: arguments.number("--events", 1_000_000)?,
        retry: arguments.has("--retry"),
        begun: AtomicU64::new(0),
        stored: AtomicU64::new(0),
        already: AtomicU64::new(0),
        busy: AtomicU64::new(0),
        slowest_micros: AtomicU64::new(0),
    });
    let clients = TaskGroup::new("clients");
    let begun = SystemClock.monotonic();
    for _ in 0..arguments.number("--clients", 64)? {
        let load = load.clone();
        clients.spawn("client", OnEnd::Ignore, async move {
            if let Err(error) = load.client(salt).await {
                println!("a client failed: {error}");
            }
        });
    }
    clients.wait(Duration::from_secs(3600)).await;
    let seconds = SystemClock.monotonic().saturating_sub(begun).as_secs_f64();
    let (stored, already) = (load.stored.load(Ordering::Relaxed), load.already.load(Ordering::Relaxed));
    let (description, count) = (store.describe(), store.count(&stream).await?);
    let acknowledged = stored + already;
    println!(
        "{}: {acknowledged} acknowledged in {seconds:.2} s = {:.0} events/s; \
         {} groups (each one sync) of {:.0} on average; slowest {:.1} ms; busy {}",
        description.product,
        acknowledged as f64 / seconds,
        description.groups,
        acknowledged as f64 / description.groups.max(1) as f64,
        load.slowest_micros.load(Ordering::Relaxed) as f64 / 1000.0,
        load.busy.load(Ordering::Relaxed),
    );
    println!("count: {count}, new: {stored}, already there: {already}");
    store.close().await;
    if stored != load.events || (!arguments.has("--latest") && count != stored) {
        return Err("the count is wrong".into());
    }
    Ok(())
}
