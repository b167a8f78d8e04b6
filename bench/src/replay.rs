//! Do limits hold for an hour with two nodes on one Redis that is killed in the middle?
//!
//! The hour is replayed twice: in simulated time by the code of the limits itself, with every limit there is, and by two processes with
//! a real clock that runs some thirty times as fast (`--hour`: as fast as clocks do). Both count every request that was admitted, over
//! every span of time, and set it beside what is promised; and beside what one limiter that knows of all would have admitted, because a
//! limit that lets in too little is no good either.

mod count;
mod real;
mod redis;
mod simulated;
mod traffic;

use anyhow::{Context, Result};
use serde_json::json;

use crate::line::{Line, Verdict};
use crate::setup::{Part, Setup};

const SEED: u64 = 2026;
/// Of what one limiter for all would admit, at least so much while Redis is there.
const USED: f64 = 0.90;

/// The sum of what was admitted over the sum of what one limiter would have.
fn used(pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (ours, ideal) = pairs.fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    ours / ideal
}

fn within(what: &str, holds: bool, nearest: f64) -> Line {
    Line::judged(what, "≤ 100 %", format!("{:.0} % at most", nearest * 100.0), holds)
}

/// Measures and writes `replay`.
pub async fn measure(setup: &Setup, seconds: f64, hour: bool) -> Result<Verdict> {
    let simulated = tokio::task::spawn_blocking(|| {
        // One thread, so that simulated time never waits for a processor.
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(simulated::hour(SEED))
    });
    let simulated = simulated.await?.context("the hour in simulated time")?;
    let seconds = if hour { 3600.0 } else { seconds };
    let real = real::hour(setup, SEED, seconds).await.context("the hour by processes")?;

    let nearest = |excess: f64, bound: f64| excess / bound;
    let first = simulated.iter().map(|one| nearest(one.excess.0, one.bound.0 as f64)).fold(0.0, f64::max);
    let second = simulated.iter().map(|one| nearest(one.excess.1, one.bound.1 as f64)).fold(0.0, f64::max);
    let live = real.limits.iter().map(|one| nearest(one.excess, one.bound)).fold(0.0, f64::max);
    let there = used(simulated.iter().map(|one| (one.there.0 as f64, one.there.1 as f64)));
    let whole = used(simulated.iter().map(|one| (one.admitted as f64, one.ideal as f64)));
    let least = simulated.iter().map(|one| one.there.0 as f64 / one.there.1 as f64).fold(f64::MAX, f64::min);
    let live_there = used(real.limits.iter().map(|one| (one.there.0 as f64, one.there.1 as f64)));
    let live_whole = used(real.limits.iter().map(|one| (one.admitted as f64, one.ideal as f64)));
    let share = |what: &str, value: f64| Line::judged(what, format!("≥ {USED:.2} ×"), format!("{value:.3} ×"), value >= USED);
    let lines = [
        within(
            "simulated hour: admitted beyond rate × time over what is promised, every span until Redis has forgotten",
            simulated.iter().all(simulated::Outcome::holds),
            first,
        ),
        within("the same over the whole hour, Redis came back empty once", second <= 1.0, second),
        within("processes: the same, over every span", live <= 1.0, live),
        share("simulated hour, while Redis is there: admitted over what one limiter for all would", there),
        share("processes: the same", live_there),
        Line::plain("the least of any limit, simulated, while Redis is there", format!("{least:.3} ×")),
        Line::plain(
            "with the time without Redis, in which each node has its share: simulated / processes",
            format!("{whole:.3} × / {live_whole:.3} ×"),
        ),
        Line::judged("processes: requests that were neither admitted nor refused", "0", real.errors.to_string(), real.errors == 0),
    ];
    let mut text = "Simulated, one hour (from minute 20 to 30 without Redis, which remembers; from 40 to 45, and it comes back empty):\n\n\
        | limit | burst | lease | asked | admitted | one limiter | beyond rate × time (allowed) | whole hour (allowed) | fullest window (allowed) |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for one in &simulated {
        text.push_str(&format!(
            "| {} {} | {} | {} | {} | {} | {} | {:.1} ({}) | {:.1} ({}) | {} ({}) |\n",
            one.tenant,
            one.limit,
            one.burst,
            one.lease,
            one.asked,
            one.admitted,
            one.ideal,
            one.excess.0,
            one.bound.0,
            one.excess.1,
            one.bound.1,
            one.fullest.0,
            one.fullest.1
        ));
    }
    text.push_str(&format!(
        "\nTwo processes, {seconds:.0} s, {} requests, the slowest answer after {:.0} ms; the nodes saw Redis differently for {:.2} s, which is in what is allowed:\n\n\
         | limit | asked | admitted | one limiter | beyond rate × time (allowed) | fullest window (allowed) |\n|---|---:|---:|---:|---:|---:|\n",
        real.requests, real.slowest_ms, real.apart
    ));
    for one in &real.limits {
        text.push_str(&format!(
            "| {} {} | {} | {} | {} | {:.1} ({:.1}) | {} ({}) |\n",
            one.tenant, one.limit, one.asked, one.admitted, one.ideal, one.excess, one.bound, one.fullest.0, one.fullest.1
        ));
    }
    setup.finish(&Part {
        name: "replay",
        title: "An hour of limits with two nodes on one Redis",
        how: &format!("one simulated hour, and {seconds:.0} s of processes"),
        about: "A tenant's limit may be exceeded by one lease of each node: over every span of time, burst + rate × time + 2 leases. A Redis that lost its memory hands out one burst again, and believes a lease \
                that each node brings back. A user's limit is asked for request by request: while Redis is there nothing beyond the burst, and two bursts more for each time that Redis is lost. A cap for the day is \
                its units and 2 leases. Both nodes get the same traffic in both runs, drawn once: within the limits, over them, in waves, in bursts, evenly and on one node only.",
        lines: &lines,
        text: &text,
        figures: json!({ "simulated": simulated, "processes": real }),
    })
}
