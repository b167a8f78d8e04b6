//! Does anybody notice when the alias moves from one version to another under load?
//!
//! Every connection sends without pause. The next move waits until every connection has been answered by the version
//! that the last one named, so each move is a real one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use plinth_client::wire::MoveAlias;
use plinth_types::{AliasName, ModelName, VersionNumber};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Line, Part, Spread, image, ms};
use crate::exchange::{Connection, Target};
use crate::plinth::{self, Home, Node};
use crate::setup::Setup;

const CONNECTIONS: usize = 8;
/// Load before the first move, and after each one.
const PAUSE: Duration = Duration::from_millis(300);
/// How long a move may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the connections saw, for who moves the alias.
#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    failed: AtomicUsize,
    first_failure: std::sync::OnceLock<String>,
    versions: [AtomicU64; CONNECTIONS],
}

impl Seen {
    fn all(&self, version: u64) -> bool {
        self.versions.iter().all(|seen| seen.load(Ordering::Relaxed) == version)
    }
}

/// What one connection measured.
#[derive(Default)]
struct Own {
    answered: usize,
    gap: Duration,
}

pub async fn measure(setup: &Setup, swaps: usize) -> Result<Part> {
    let directory = tempfile::tempdir()?;
    let mut home = Home::new(setup)?;
    let node = home.start()?;
    for version in ["1", "2"] {
        let path = directory.path().join(version);
        plinth::digits(setup, version, "digits", &path)?;
        node.push("digits", &path, version == "1")?;
    }
    let quiet = hammer(&node, 0).await?;
    let moved = hammer(&node, swaps).await?;
    let took = Spread::of(moved.moves)?;
    Ok(Part {
        name: "swap",
        lines: vec![
            Line::judged(
                format!("failed requests while the alias moves {swaps} times, {CONNECTIONS} connections"),
                "0",
                format!("{} of {}", moved.failed, moved.answered + moved.failed),
                moved.failed == 0,
            ),
            Line::plain(
                "longest time without an answer on one connection",
                format!("{:.1} ms ({:.1} ms in as long without a move)", moved.gap_ms, quiet.gap_ms),
            ),
            Line::plain("from the move to every connection answered by the new version", took.show("ms")),
        ],
        figures: json!({
            "swaps": swaps, "failed": moved.failed, "first_failure": moved.first_failure, "answered": moved.answered,
            "gap_ms": moved.gap_ms, "gap_without_ms": quiet.gap_ms, "move_ms": took,
        }),
    })
}

struct Outcome {
    answered: usize,
    failed: usize,
    first_failure: Option<String>,
    gap_ms: f64,
    moves: Vec<f64>,
}

/// Load while the alias moves so many times; with 0, as long as ten moves take.
async fn hammer(node: &Node, swaps: usize) -> Result<Outcome> {
    let seen = Arc::new(Seen::default());
    let target = image(node, "digits")?;
    let mut workers = JoinSet::new();
    for number in 0..CONNECTIONS {
        let (target, seen) = (target.clone(), seen.clone());
        workers.spawn(async move { send(&target, &seen, number).await });
    }
    let moves = if swaps == 0 {
        tokio::time::sleep(PAUSE * 10).await;
        Ok(Vec::new())
    } else {
        move_about(node, &seen, swaps).await
    };
    seen.stop.store(true, Ordering::Relaxed);
    let (mut answered, mut gap) = (0, Duration::ZERO);
    while let Some(own) = workers.join_next().await {
        let own = own?;
        answered += own.answered;
        gap = gap.max(own.gap);
    }
    let failed = seen.failed.load(Ordering::Relaxed);
    Ok(Outcome { answered, failed, first_failure: seen.first_failure.get().cloned(), gap_ms: ms(gap), moves: moves? })
}

async fn move_about(node: &Node, seen: &Seen, swaps: usize) -> Result<Vec<f64>> {
    let client = node.client()?;
    let (model, alias) = ("digits".parse::<ModelName>()?, AliasName::champion());
    let mut moves = Vec::new();
    for swap in 0..swaps {
        tokio::time::sleep(PAUSE).await;
        let version = if swap % 2 == 0 { 2 } else { 1 };
        let to = MoveAlias { version: VersionNumber::try_from(version)?, expect: None, permission: None, comment: String::new() };
        let start = Instant::now();
        client.move_alias(&model, &alias, &to).await?;
        while !seen.all(version) {
            if start.elapsed() > PATIENCE {
                bail!("version {version} does not answer {} s after the alias moved", PATIENCE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        moves.push(ms(start.elapsed()));
    }
    tokio::time::sleep(PAUSE).await;
    Ok(moves)
}

async fn send(target: &Target, seen: &Seen, number: usize) -> Own {
    let mut own = Own::default();
    let mut last = None::<Instant>;
    let mut connection = None;
    while !seen.stop.load(Ordering::Relaxed) {
        match one(&mut connection, target).await {
            Ok(version) => {
                let now = Instant::now();
                own.gap = own.gap.max(last.map_or(Duration::ZERO, |last| now - last));
                last = Some(now);
                own.answered += 1;
                seen.versions[number].store(version, Ordering::Relaxed);
            }
            Err(error) => {
                connection = None;
                seen.failed.fetch_add(1, Ordering::Relaxed);
                let _ = seen.first_failure.set(format!("{error:#}"));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    own
}

/// One request; the version that answered it.
async fn one(connection: &mut Option<Connection>, target: &Target) -> Result<u64> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(Connection::open(&target.address).await?),
    };
    let answer = connection.exchange(target).await?;
    let text = || String::from_utf8_lossy(answer.body);
    if answer.status != 200 {
        bail!("{}: {}", answer.status, text());
    }
    // The JSON header stands first; what follows it is binary.
    let header = serde_json::Deserializer::from_slice(answer.body).into_iter::<Value>().next().context("an empty answer")??;
    header["model_version"].as_str().and_then(|version| version.parse().ok()).with_context(|| format!("no version in {}", text()))
}
