//! Changes of everything that a node may be told while it works, and the time until both nodes act on each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::balancer::Balancer;
use super::pair::Pair;
use super::wire::connect;
use crate::setup::Setup;

const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);

/// What is changed, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Plan,
    Route,
    Certificate,
    Upstream,
    Key,
    File,
}

pub const ALL: [What; 6] = [What::Plan, What::Route, What::Certificate, What::Upstream, What::Key, What::File];

impl What {
    pub const fn text(self) -> &'static str {
        match self {
            Self::Plan => "a plan",
            Self::Route => "a route",
            Self::Certificate => "certificate and key, by files and SIGHUP",
            Self::Upstream => "an upstream's endpoints",
            Self::Key => "a new key for the callers, the old one deleted",
            Self::File => "plan and route, by `plinth apply -f`",
        }
    }
}

/// Who makes the changes.
pub struct Changes<'a> {
    pub setup: &'a Setup,
    pub pair: &'a Pair,
    pub balancer: &'a Balancer,
    /// The services that stand behind the routes, with their names.
    pub upstreams: [(&'static str, String); 2],
    pub made: u32,
    /// Keys of callers that are not used any longer, the last one in use at the end.
    pub keys: Vec<Value>,
}

impl Changes<'_> {
    /// Everything as it is in the beginning.
    pub async fn first(&self) -> Result<()> {
        let resources = json!([
            plan(0), { "kind": "tenant", "name": "default", "spec": { "plan": "load" } },
            self.upstream(0), route("shop", "/shop", 0), route("long", "/long", 0),
        ]);
        let (status, said) = self.pair.apply(0, &resources).await?;
        ensure!(status == 200, "the resources were refused with {status}: {said}");
        self.seen("x-generation", "0").await
    }

    /// Makes the next change, and waits until both nodes act on it; how long that took in milliseconds.
    pub async fn next(&mut self, what: What) -> Result<f64> {
        self.made += 1;
        let (number, start) = (self.made, Instant::now());
        // Each round the other node is told of the same.
        let round = number / ALL.len() as u32;
        let node = (number + round) as usize;
        match what {
            What::Plan => {
                self.apply(node, json!([plan(number)])).await?;
                self.seen("ratelimit-policy", &format!("q={}", quota(number))).await?;
            }
            What::Route => {
                self.apply(node, json!([route("shop", "/shop", number)])).await?;
                self.seen("x-generation", &number.to_string()).await?;
            }
            What::Upstream => {
                self.apply(node, json!([self.upstream(round + 1)])).await?;
                self.seen("x-upstream", self.upstreams[(round + 1) as usize % 2].0).await?;
            }
            What::File => {
                let text = serde_json::to_string(&json!({ "resources": [plan(number), route("shop", "/shop", number)] }))?;
                self.pair.apply_file(self.setup, node, &text).await?;
                self.seen("x-generation", &number.to_string()).await?;
            }
            What::Certificate => self.certificates().await?,
            What::Key => self.key(node).await?,
        }
        let took = start.elapsed().as_secs_f64() * 1e3;
        if number.is_multiple_of(10) {
            self.bad(node).await?;
        }
        Ok(took)
    }

    async fn apply(&self, node: usize, resources: Value) -> Result<()> {
        let (status, said) = self.pair.apply(node, &resources).await?;
        ensure!(status == 200, "a change was refused with {status}: {said}");
        Ok(())
    }

    /// A file of which a part is wrong: it is refused whole, and what was in force stays.
    async fn bad(&self, node: usize) -> Result<()> {
        let nowhere = json!({ "matches": { "path": { "prefix": "/shop" } }, "targets": [{ "to": { "upstream": "nowhere" } }] });
        let resources = json!([plan(1_000_000), { "kind": "route", "name": "shop", "spec": nowhere }]);
        let (status, said) = self.pair.apply(node, &resources).await?;
        ensure!(matches!(status, 404 | 422), "a bad file was answered with {status}: {said}");
        Ok(())
    }

    /// Waits until answers of both nodes have a header with this in it.
    async fn seen(&self, header: &str, wanted: &str) -> Result<()> {
        for node in 0..self.pair.members.len() {
            let end = Instant::now() + PATIENCE;
            loop {
                // A node that is being started does not answer.
                if let Ok(answer) = self.pair.ask(node, "/shop", &self.pair.keys[node]).await
                    && answer.headers().get(header).and_then(|value| value.to_str().ok()).is_some_and(|value| has(value, wanted))
                {
                    break;
                }
                ensure!(
                    Instant::now() < end,
                    "node {node} does not act on {header}: {wanted}; it said:\n{}",
                    self.pair.members[node].log()
                );
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    async fn certificates(&self) -> Result<()> {
        let tls = self.pair.authority.client(b"http/1.1")?;
        for member in &self.pair.members {
            let wanted = self.pair.authority.write(member.path())?;
            member.signal(Signal::HUP)?;
            let end = Instant::now() + PATIENCE;
            while connect(member.address, &tls).await?.1 != wanted {
                ensure!(Instant::now() < end, "the node does not show its new certificate; it said:\n{}", member.log());
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// A new key for the callers; when both nodes know it, callers show it, and the one before the last is deleted.
    async fn key(&mut self, node: usize) -> Result<()> {
        if !self.pair.shared {
            // Each node makes keys of its own; callers would have to hold two.
            return self.apply(node, json!([plan(self.made)])).await;
        }
        let node = node % self.pair.members.len();
        let (status, made) = self.pair.call(node, Method::POST, "/v1/keys", &json!({ "role": "developer" })).await?;
        ensure!(status == 201, "a key was refused with {status}: {made}");
        let secret = made["secret"].as_str().context("no key in the answer")?;
        for other in 0..self.pair.members.len() {
            let end = Instant::now() + PATIENCE;
            while self.pair.ask(other, "/shop", secret).await?.status() != 200 {
                ensure!(Instant::now() < end, "node {other} does not know the new key");
                tokio::time::sleep(LOOK).await;
            }
        }
        self.balancer.backends.iter().for_each(|backend| backend.show(secret));
        self.keys.push(made);
        // What was sent with the key before has been answered long since when the next change comes.
        if self.keys.len() > 2 {
            let old = self.keys.remove(0);
            let id = old["id"].as_str().context("a key has no id")?;
            let (status, said) = self.pair.call(node, Method::DELETE, &format!("/v1/keys/{id}"), &Value::Null).await?;
            ensure!(matches!(status, 200 | 204), "a key was not deleted: {status} {said}");
        }
        Ok(())
    }

    fn upstream(&self, number: u32) -> Value {
        let (_, address) = &self.upstreams[number as usize % 2];
        json!({ "kind": "upstream", "name": "service", "spec": { "endpoints": [{ "url": format!("http://{address}") }], "allow_networks": ["127.0.0.0/8"] } })
    }
}

/// Whether a header says this: all of it, or a parameter of it.
fn has(value: &str, wanted: &str) -> bool {
    value == wanted || value.split([';', ',']).any(|part| part.trim() == wanted)
}

const fn quota(number: u32) -> u32 {
    1_000_000 + number
}

fn plan(number: u32) -> Value {
    let limit = json!({ "name": "requests", "rate": format!("{}/s", quota(number)), "burst": quota(number) });
    json!({ "kind": "plan", "name": "load", "spec": { "limits": [limit], "concurrency": 10_000, "weight": 1 + number % 10 } })
}

fn route(name: &str, path: &str, number: u32) -> Value {
    json!({ "kind": "route", "name": name, "spec": {
        "matches": { "path": { "prefix": path } }, "targets": [{ "to": { "upstream": "service" } }],
        "response_headers": { "set": { "x-generation": number.to_string() } },
    }})
}
