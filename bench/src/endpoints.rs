//! What becomes of an upstream with eight endpoints of which k fail?
//!
//! For each k from 0 to 8 an upstream of its own, with clients that come at a fixed rate, all behind one node and at the same time: well at first, then the
//! first k answer 500 to everything, then all are well again. Once without health checks, once with a check each second. Each service knows when it
//! was asked, so that when it was left out and when it was back are its own word.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::exchange::Target;
use crate::faulty::{Capacity, Faulty, Mode};
use crate::line::{Line, Verdict};
use crate::plinth::{Home, Node};
use crate::scrape;
use crate::setup::{Part, Setup};
use crate::steady::{self, Manner, Sample, Steady};

const ENDPOINTS: usize = 8;
const CAPACITY: Capacity = Capacity { slots: 16, service: Duration::from_millis(5) };
const MANNER: Manner = Manner { rate: 100.0, patience: Duration::ZERO, wait: Duration::ZERO };
const WELL: Duration = Duration::from_secs(5);
/// Until then those that fail are to be left out.
const SETTLED: Duration = Duration::from_secs(3);
/// So long without a request is being left out.
const QUIET: Duration = Duration::from_secs(2);
/// An ejection lasts 30 s the first time, an open breaker 5 s where too few are well.
const BACK: [(bool, Duration); 2] = [(false, Duration::from_secs(35)), (true, Duration::from_secs(10))];
/// How long the return is waited for.
const PATIENCE: Duration = Duration::from_secs(45);
/// Up to half of a pool may be ejected, and then …
const HALF: usize = 4;
/// … of so many requests nearly all are served.
const SUCCESS: f64 = 0.999;

struct Case {
    k: usize,
    upstream: String,
    services: Vec<Faulty>,
    clients: Steady,
    most_ejected: f64,
    /// From the fault on.
    first_ejected: Option<Duration>,
}

struct Outcome {
    k: usize,
    checks: bool,
    most_ejected: f64,
    first_ejected: Option<Duration>,
    /// When the last of those that fail was left out, from the fault on.
    left_out: Option<Duration>,
    /// Requests in the fault, and after it had settled.
    during: Sample,
    settled: Sample,
    /// When the last of those that had failed was asked again, from the repair on.
    back: Option<Duration>,
    after: Sample,
}

/// Moments of a run.
#[derive(Clone, Copy)]
struct Times {
    broken: Instant,
    repaired: Instant,
    end: Instant,
}

impl Case {
    async fn start(node: &Node, k: usize, checks: bool) -> Result<Self> {
        let mut services = Vec::new();
        for _ in 0..ENDPOINTS {
            services.push(Faulty::start(CAPACITY).await?);
        }
        let upstream = format!("{}-{k}", if checks { "checked" } else { "plain" });
        let endpoints: Vec<Value> = services.iter().map(|service| json!({"url": format!("http://{}", service.address)})).collect();
        let health = if checks { json!({"path": "/health", "interval_seconds": 1}) } else { Value::Null };
        let resources = json!([
            {"kind": "upstream", "name": upstream, "spec": {"endpoints": endpoints, "allow_networks": ["127.0.0.0/8"], "health": health}},
            {"kind": "route", "name": upstream, "spec": {
                "matches": {"path": {"prefix": format!("/{upstream}")}}, "targets": [{"to": {"upstream": upstream}}],
            }},
        ]);
        node.apply(&resources).await?;
        let target = Target::get_with(&format!("{}/{upstream}", node.http), Some(&node.key))?;
        Ok(Self { k, upstream, services, clients: Steady::start(target, MANNER), most_ejected: 0.0, first_ejected: None })
    }

    async fn set(&mut self, mode: Mode) -> Result<()> {
        for service in &mut self.services[..self.k] {
            service.set(mode).await?;
        }
        Ok(())
    }

    fn look(&mut self, scrape: &scrape::Scrape, since: Duration) {
        let ejected = scrape.sum("plinth_upstream_ejected", &[&format!("upstream=\"{}\"", self.upstream)]);
        self.most_ejected = self.most_ejected.max(ejected);
        if ejected > 0.0 {
            self.first_ejected.get_or_insert(since);
        }
    }

    fn outcome(&self, checks: bool, times: Times) -> Outcome {
        let Times { broken, repaired, end } = times;
        let failing: Vec<Vec<Instant>> = self.services[..self.k].iter().map(Faulty::times).collect();
        let left_out = failing.iter().map(|asked| quiet(asked, broken, repaired)).collect::<Option<Vec<_>>>();
        let back = failing.iter().map(|asked| asked.iter().find(|at| **at > repaired).map(|at| *at - repaired)).collect::<Option<Vec<_>>>();
        Outcome {
            k: self.k,
            checks,
            most_ejected: self.most_ejected,
            first_ejected: self.first_ejected,
            left_out: left_out.and_then(|all| all.into_iter().max()),
            during: steady::sum(&self.clients.between(broken, repaired)),
            settled: steady::sum(&self.clients.between(broken + SETTLED, repaired)),
            back: back.map(|all| all.into_iter().max().unwrap_or_default()),
            after: steady::sum(&self.clients.between(repaired, end)),
        }
    }
}

/// From `begin` to the first long time without a request.
fn quiet(asked: &[Instant], begin: Instant, end: Instant) -> Option<Duration> {
    let mut last = begin;
    for at in asked.iter().filter(|at| **at >= begin && **at < end) {
        if *at - last >= QUIET {
            break;
        }
        last = *at;
    }
    (end.saturating_duration_since(last) >= QUIET).then(|| last - begin)
}

impl Outcome {
    fn row(&self) -> String {
        let seconds = |time: Option<Duration>| time.map_or_else(|| "–".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
        let checks = if self.checks { "each second" } else { "none" };
        format!(
            "| {checks} | {} | {:.2} | {:.2} | {} / {} / {} | {:.0} | {} | {} | {} | {:.2} |\n",
            self.k,
            share(&self.during) * 100.0,
            share(&self.settled) * 100.0,
            self.during.failed,
            self.during.refused,
            self.during.broken,
            self.most_ejected,
            seconds(self.first_ejected),
            seconds(self.left_out),
            if self.k == 0 { "–".to_owned() } else { seconds(self.back) },
            share(&self.after) * 100.0
        )
    }

    fn figures(&self) -> Value {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        json!({
            "k": self.k, "checks": self.checks, "most_ejected": self.most_ejected, "first_ejected_s": seconds(self.first_ejected),
            "left_out_s": seconds(self.left_out), "during": self.during, "settled": self.settled, "back_s": seconds(self.back), "after": self.after,
        })
    }
}

fn share(sample: &Sample) -> f64 {
    f64::from(sample.served) / f64::from(sample.requests.max(1))
}

async fn run(node: &Node, metrics: &str, fault: Duration) -> Result<Vec<Outcome>> {
    let mut cases = Vec::new();
    for (checks, _) in BACK {
        for k in 0..=ENDPOINTS {
            cases.push((checks, Case::start(node, k, checks).await?));
        }
    }
    tokio::time::sleep(WELL).await;
    let broken = Instant::now();
    for (_, case) in &mut cases {
        case.set(Mode::Fails).await?;
    }
    while broken.elapsed() < fault {
        let scrape = scrape::read(metrics).await?;
        cases.iter_mut().for_each(|(_, case)| case.look(&scrape, broken.elapsed()));
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let repaired = Instant::now();
    for (_, case) in &mut cases {
        case.set(Mode::Well).await?;
    }
    tokio::time::sleep(PATIENCE).await;
    let times = Times { broken, repaired, end: Instant::now() };
    Ok(cases.iter().map(|(checks, case)| case.outcome(*checks, times)).collect())
}

fn lines(outcomes: &[Outcome]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (checks, soon) in BACK {
        let name = if checks { "checks each second" } else { "no checks" };
        let of = || outcomes.iter().filter(move |outcome| outcome.checks == checks);
        let refused: u32 = of().filter(|outcome| outcome.k < ENDPOINTS).map(|outcome| outcome.during.refused + outcome.after.refused).sum();
        let what = format!("{name}: answers that nobody may be asked, while somebody is well");
        lines.push(Line::judged(what, "0", refused.to_string(), refused == 0));
        let broken: u32 = of().map(|outcome| outcome.during.broken + outcome.after.broken).sum();
        let what = format!("{name}: requests without a clear answer (500, 502, 503, 504 or good), all k");
        lines.push(Line::judged(what, "0", broken.to_string(), broken == 0));
        let least = of().filter(|outcome| outcome.k <= HALF).map(|outcome| share(&outcome.settled)).fold(1.0, f64::min);
        let what = format!("{name}: success from {} s after the fault on, up to k = {HALF}, the worst", SETTLED.as_secs());
        lines.push(Line::judged(what, format!("≥ {:.1} %", SUCCESS * 100.0), format!("{:.2} %", least * 100.0), least >= SUCCESS));
        let most = of().map(|outcome| outcome.most_ejected).fold(0.0, f64::max);
        lines.push(Line::judged(format!("{name}: most ejected at a time"), format!("≤ {HALF}"), format!("{most:.0}"), most <= HALF as f64));
        let back: Option<Vec<_>> = of().map(|outcome| outcome.back).collect();
        let back = back.and_then(|all| all.into_iter().max());
        let what = format!("{name}: all are asked again after the repair, the slowest k");
        let measured = back.map_or_else(|| format!("not within {} s", PATIENCE.as_secs()), |back| format!("{:.1} s", back.as_secs_f64()));
        lines.push(Line::judged(what, format!("≤ {} s", soon.as_secs()), measured, back.is_some_and(|back| back <= soon)));
    }
    lines
}

/// Measures and writes `endpoints`. `seconds` is the length of the fault.
pub async fn measure(setup: &Setup, seconds: f64) -> Result<Verdict> {
    let fault = Duration::from_secs_f64(seconds);
    ensure!(fault >= SETTLED + QUIET, "the fault lasts five seconds at least");
    let mut home = Home::with(setup, &[("gateway.ladder", "false")])?;
    let node = home.start()?;
    let metrics = home.metrics(&node)?;
    let outcomes = run(&node, &metrics, fault).await?;
    let mut text = "| checks | k | success % | settled % | 500, 502, 504 / 503 / none | most ejected | first ejected s | left out s | all back s | afterwards % |\n\
                    |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    outcomes.iter().for_each(|outcome| text.push_str(&outcome.row()));
    setup.finish(&Part {
        name: "endpoints",
        title: "k of eight endpoints fail",
        how: &format!("{seconds:.0} s of faults, all k at the same time, {:.0} clients a second for each", MANNER.rate),
        about: &format!(
            "One node as `plinth up` starts it, but for the ladder, which switches retries off on a busy machine, and {} upstreams of eight endpoints ({} ms for a request). The first k answer 500. Clients ask once, by GET, which may be sent again within the budget of a tenth. \
             \"Settled\" is from {} s after the fault on; \"first ejected\" is read from `plinth_upstream_ejected`, which is written each second; \"left out\" is when the last of the k had its last \
             request before {} s without one. An endpoint that failed once is avoided by its cost before anything ejects it. The bars: up to half of a pool is ejected and never more; \
             an ejection lasts 30 s the first time and ends with a passed check; a breaker is open for 5 s at most where too few are well. With k = 8 there is nobody to be asked, and 503 with `Retry-After` is right.",
            2 * (ENDPOINTS + 1),
            CAPACITY.service.as_millis(),
            SETTLED.as_secs(),
            QUIET.as_secs()
        ),
        lines: &lines(&outcomes),
        text: &text,
        figures: json!(outcomes.iter().map(Outcome::figures).collect::<Vec<_>>()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn left_out_is_before_the_first_long_silence() {
        let begin = Instant::now();
        let at = |ms: &[u64]| ms.iter().map(|ms| begin + Duration::from_millis(*ms)).collect::<Vec<_>>();
        let end = begin + Duration::from_secs(10);
        assert_eq!(quiet(&at(&[100, 900, 5_000]), begin, end), Some(Duration::from_millis(900)));
        assert_eq!(quiet(&at(&[]), begin, end), Some(Duration::ZERO));
        assert_eq!(quiet(&at(&(0..100).map(|n| n * 100).collect::<Vec<_>>()), begin, end), None);
    }
}
