//! What does a gateway add to an outage, and how soon is it over?
//!
//! Three services behind one node, each with a known capacity and three quarters of it asked for by clients that come at a fixed rate and ask
//! again without backoff until their patience is over. For a minute all three fail, each in its own way: 500 to everything, no process at the port,
//! requests taken and never answered. Then they are as they were. Judged are the attempts that the gateway made for each request that it got, and
//! how soon as many clients are served as before. The same ways to fail without a breaker, for a shorter time, so that the retry budget is seen alone.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::exchange::Target;
use crate::faulty::{Capacity, Faulty, Mode};
use crate::line::{Line, Verdict};
use crate::plinth::{Home, Node};
use crate::scrape;
use crate::setup::{Part, Setup};
use crate::steady::{self, Manner, SAMPLE, Sample, Steady};

const CAPACITY: Capacity = Capacity { slots: 3, service: Duration::from_millis(20) };
const MANNER: Manner = Manner { rate: 100.0, patience: Duration::from_secs(3), wait: Duration::from_millis(200) };
/// The time that an attempt has at the upstream.
const RESPONSE: Duration = Duration::from_secs(1);
const WARM_UP: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_secs(8);
const AFTER: Duration = Duration::from_secs(15);
/// So much of the goodput of before …
const GOAL: f64 = 0.9;
/// … must be back this soon …
const SOON: Duration = Duration::from_secs(10);
/// … and stay for so many samples.
const STAYS: usize = 8;
const ATTEMPTS: f64 = 1.1;

const WAYS: [(&str, Mode); 3] =
    [("500 to everything", Mode::Fails), ("connections refused", Mode::Gone), ("no answer in time", Mode::Hangs)];

/// A service behind the node, and its clients.
struct Case {
    way: &'static str,
    mode: Mode,
    upstream: String,
    service: Faulty,
    clients: Steady,
}

/// What came of an outage.
struct Outcome {
    way: &'static str,
    breaker: bool,
    before: f64,
    during: Sample,
    /// Requests and attempts as the node counts them, and requests as the service does.
    requests: f64,
    attempts: f64,
    retries: f64,
    asked: usize,
    /// From the repair on, when it is there.
    back: Option<Duration>,
    after: Vec<Sample>,
}

impl Case {
    async fn start(node: &Node, number: usize, breaker: bool) -> Result<Self> {
        let (way, mode) = WAYS[number % WAYS.len()];
        let service = Faulty::start(CAPACITY).await?;
        let upstream = format!("service-{number}{}", if breaker { "" } else { "-plain" });
        let resources = json!([
            {"kind": "upstream", "name": upstream, "spec": {
                "endpoints": [{"url": format!("http://{}", service.address)}], "allow_networks": ["127.0.0.0/8"],
                "response_timeout_ms": RESPONSE.as_millis(), "breaker": {"enabled": breaker},
            }},
            {"kind": "route", "name": upstream, "spec": {
                "matches": {"path": {"prefix": format!("/{upstream}")}}, "targets": [{"to": {"upstream": upstream}}],
            }},
        ]);
        node.apply(&resources).await?;
        let target = Target::get_with(&format!("{}/{upstream}", node.http), Some(&node.key))?;
        Ok(Self { way, mode, service, clients: Steady::start(target, MANNER), upstream })
    }

    /// Requests, attempts and retries so far.
    async fn counts(&self, metrics: &str) -> Result<[f64; 3]> {
        let scrape = scrape::read(metrics).await?;
        let label = format!("upstream=\"{}\"", self.upstream);
        let of = |name: &str| scrape.sum(name, &[&label]);
        Ok(["plinth_upstream_requests_total", "plinth_upstream_attempts_total", "plinth_upstream_retries_total"].map(of))
    }
}

/// All three ways at once, with a breaker or without.
async fn outage(node: &Node, metrics: &str, breaker: bool, length: Duration) -> Result<Vec<Outcome>> {
    let mut cases = Vec::new();
    for number in 0..WAYS.len() {
        cases.push(Case::start(node, number, breaker).await?);
    }
    tokio::time::sleep(WARM_UP).await;
    let warm = Instant::now();
    tokio::time::sleep(BEFORE).await;
    let (broken, mut counted) = (Instant::now(), Vec::new());
    for case in &mut cases {
        counted.push((case.counts(metrics).await?, case.service.asked()));
        case.service.set(case.mode).await?;
    }
    tokio::time::sleep(length).await;
    let repaired = Instant::now();
    let mut ends = Vec::new();
    for case in &mut cases {
        ends.push((case.counts(metrics).await?, case.service.asked()));
        case.service.set(Mode::Well).await?;
    }
    tokio::time::sleep(AFTER).await;
    let end = Instant::now();
    let outcome = |(case, (begin, end_of)): (&Case, (Counted, Counted))| {
        let before = steady::goodput(&case.clients.between(warm, broken));
        let after = case.clients.between(repaired, end);
        let back = back(&after, before);
        let [requests, attempts, retries] = std::array::from_fn(|place| end_of.0[place] - begin.0[place]);
        Outcome {
            way: case.way,
            breaker,
            before,
            during: steady::sum(&case.clients.between(broken, repaired)),
            requests,
            attempts,
            retries,
            asked: end_of.1 - begin.1,
            back,
            after,
        }
    };
    Ok(cases.iter().zip(counted.into_iter().zip(ends)).map(outcome).collect())
}

type Counted = ([f64; 3], usize);

/// When so many are served again and that stays.
fn back(after: &[Sample], before: f64) -> Option<Duration> {
    let place = after.windows(STAYS).position(|samples| steady::goodput(samples) >= before * GOAL && samples[0].served > 0)?;
    Some(SAMPLE * place as u32)
}

impl Outcome {
    fn factor(&self) -> f64 {
        self.attempts / self.requests.max(1.0)
    }

    fn row(&self) -> String {
        let breaker = if self.breaker { "on" } else { "off" };
        let back = self.back.map_or_else(|| "not".to_owned(), |back| format!("{:.2}", back.as_secs_f64()));
        format!(
            "| {} | {breaker} | {:.1} | {:.0} | {:.0} | {:.0} | {} | {:.3} | {} / {} / {} | {back} |\n",
            self.way,
            self.before,
            self.requests,
            self.attempts,
            self.retries,
            self.asked,
            self.factor(),
            self.during.failed,
            self.during.refused,
            self.during.broken
        )
    }

    fn figures(&self) -> Value {
        json!({
            "way": self.way, "breaker": self.breaker, "served_per_second_before": self.before, "requests": self.requests, "attempts": self.attempts, "retries": self.retries,
            "asked": self.asked, "during": self.during, "back_seconds": self.back.map(|back| back.as_secs_f64()), "after": self.after,
        })
    }
}

/// Measures and writes `outage`. `seconds` is the length of the outage; without a breaker it lasts a sixth of that.
pub async fn measure(setup: &Setup, seconds: f64) -> Result<Verdict> {
    ensure!(seconds >= 2.0, "an outage lasts two seconds at least");
    let mut home = Home::with(setup, &[("gateway.ladder", "false")])?;
    let node = home.start()?;
    let metrics = home.metrics(&node)?;
    let length = Duration::from_secs_f64(seconds);
    let mut outcomes = outage(&node, &metrics, true, length).await?;
    outcomes.extend(outage(&node, &metrics, false, length / 6).await?);

    let mut lines = Vec::new();
    for outcome in &outcomes {
        let breaker = if outcome.breaker { "" } else { ", breaker off" };
        let good = outcome.requests > 0.0 && outcome.before > MANNER.rate * 0.9;
        let why = format!("{:.1} of {:.0} clients a second were served before", outcome.before, MANNER.rate);
        let what = format!("{}{breaker}: attempts for each request", outcome.way);
        lines.push(Line::at_most(what, ATTEMPTS, good.then(|| outcome.factor()), &why));
        let what = format!("{}{breaker}: {:.0} % of the goodput of before, after the repair", outcome.way, GOAL * 100.0);
        let bar = format!("≤ {} s", SOON.as_secs());
        lines.push(match outcome.back.filter(|_| good) {
            Some(back) => Line::judged(what, bar, format!("{:.2} s", back.as_secs_f64()), back <= SOON),
            None if good => Line::judged(what, bar, format!("not within {} s", AFTER.as_secs()), false),
            None => Line::missing(what, bar, &why),
        });
    }
    let mut text = "| way to fail | breaker | served/s before | requests in the outage | attempts | retries among them | seen by the service | attempts ÷ requests | 500, 502, 504 / 503 / none | back after s |\n\
                    |---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    outcomes.iter().for_each(|outcome| text.push_str(&outcome.row()));
    text.push_str("\nClients served in each quarter of a second after the repair, from the first on:\n\n");
    for outcome in &outcomes {
        let served: Vec<String> = outcome.after.iter().take(48).map(|sample| sample.served.to_string()).collect();
        let breaker = if outcome.breaker { "on" } else { "off" };
        writeln!(text, "- {}, breaker {breaker}: {}", outcome.way, served.join(" "))?;
    }
    setup.finish(&Part {
        name: "outage",
        title: "An outage, and the end of it",
        how: &format!("{seconds:.0} s of outage with breakers, {:.0} s without, {:.0} clients a second for each service", seconds / 6.0, MANNER.rate),
        about: &format!(
            "One node as `plinth up` starts it, but for the ladder, which switches retries off on a busy machine, in front of three services of one endpoint each, without health checks: {} slots of {} ms, so about {:.0} requests a second at most. Clients ask by GET, which \
             may be sent again, and come again each {} ms, without backoff, for {} s. An attempt has {} s. Requests and attempts are the node's own counts (`plinth_upstream_requests_total`, \
             `plinth_upstream_attempts_total`); a request that is refused because the breaker is open is one without an attempt. The goodput is back from the sample on with which {} s begin in which {:.0} % \
             of the clients of before are served.",
            CAPACITY.slots,
            CAPACITY.service.as_millis(),
            CAPACITY.slots as f64 / CAPACITY.service.as_secs_f64(),
            MANNER.wait.as_millis(),
            MANNER.patience.as_secs(),
            RESPONSE.as_secs(),
            (SAMPLE * STAYS as u32).as_secs(),
            GOAL * 100.0
        ),
        lines: &lines,
        text: &text,
        figures: json!(outcomes.iter().map(Outcome::figures).collect::<Vec<_>>()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_is_when_it_stays() {
        let sample = |served| Sample { served, ..Sample::default() };
        let mut after = vec![sample(0); 6];
        after.push(sample(60));
        after.extend(vec![sample(0); 9]);
        after.extend(vec![sample(25); 20]);
        assert_eq!(back(&after, 100.0), Some(SAMPLE * 16));
        assert_eq!(back(&after[..20], 100.0), None);
    }
}
