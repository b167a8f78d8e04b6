//! Times of single things, in milliseconds, and how many of them there were in a second.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Times in milliseconds, the shortest first.
#[derive(Default)]
pub struct Times(Vec<f64>);

impl Times {
    pub fn new(mut millis: Vec<f64>) -> Self {
        millis.sort_by(f64::total_cmp);
        Self(millis)
    }

    /// By nearest rank: so large a share is not above it.
    pub fn at(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// For the figures.
    pub fn figures(&self) -> Value {
        json!({ "count": self.len(), "p50_ms": self.at(0.5), "p99_ms": self.at(0.99), "max_ms": self.at(1.0) })
    }
}

/// Milliseconds since a moment.
pub fn since(start: Instant) -> f64 {
    millis(start.elapsed())
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What clients did that each waited for an answer before they asked again.
pub struct Rate {
    pub per_second: f64,
    pub times: Times,
}

impl Rate {
    /// Waits for the clients; each gives the milliseconds of its calls.
    pub async fn of(mut clients: JoinSet<Result<Vec<f64>>>, start: Instant) -> Result<Self> {
        let mut all = Vec::new();
        while let Some(took) = clients.join_next().await {
            all.extend(took??);
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok(Self { per_second: all.len() as f64 / seconds, times: Times::new(all) })
    }

    pub fn text(&self) -> String {
        format!("{:.0}/s, p50 {:.1} ms, p99 {:.1} ms", self.per_second, self.times.at(0.5), self.times.at(0.99))
    }

    /// For the figures.
    pub fn figures(&self) -> Value {
        json!({ "per_second": self.per_second, "calls": self.times.figures() })
    }
}
