//! From an upstream's record to the numbers that its parts run on.
//!
//! What the record does not say has the defaults of the algorithms, with three differences that only a gateway knows: limits begin high
//! enough not to be felt by a service that was fast all the time, a probe may take as long as an answer, and a breaker that is switched off is one that
//! never opens. Invariant: an endpoint that cannot be used is left out with a warning; a record without one that can is refused.

use std::net::IpAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use ipnet::IpNet;
use plinth_net::outbound::{Address, Deadlines, Guard, OutboundOptions};
use plinth_policy::balance::hash;
use plinth_policy::resilience::{breaker, ejection, gradient, hedge, retry};
use plinth_store::resources::gateway::{BreakerSpec, UpstreamRecord};

use super::UpstreamsOptions;

/// How often checks are made, by default.
const CHECK: Duration = Duration::from_secs(10);

/// The numbers of the algorithms, where no record says others.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// How much may be sent again.
    pub budget: retry::BudgetSettings,
    /// How long to wait before that.
    pub backoff: retry::Backoff,
    /// Whom to leave out for a while.
    pub ejection: ejection::Settings,
    /// When a second copy is sent.
    pub hedge: hedge::Settings,
    /// How many requests an endpoint may have at a time.
    pub limit: gradient::Settings,
    /// When a breaker opens.
    pub breaker: breaker::Settings,
    /// What a new endpoint is believed to take when nothing is known of its neighbours.
    pub first_latency: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            budget: retry::BudgetSettings::default(),
            backoff: retry::Backoff::default(),
            ejection: ejection::Settings::default(),
            hedge: hedge::Settings::default(),
            limit: gradient::Settings { initial: 128, least: 32, most: 1024, ..gradient::Settings::default() },
            breaker: breaker::Settings::default(),
            first_latency: Duration::from_millis(50),
        }
    }
}

/// What an upstream runs on.
#[derive(Debug)]
pub(super) struct Settings {
    /// The first included.
    pub attempts: u32,
    pub hedge: bool,
    /// Whether all requests may be carried out twice.
    pub idempotent: bool,
    /// Whether requests at a time are limited.
    pub adaptive: bool,
    pub deadlines: Deadlines,
    pub breaker: breaker::Settings,
    pub health: Option<Health>,
    pub dialling: Dialling,
}

/// A request that says whether an endpoint is well.
#[derive(Debug, Clone)]
pub(super) struct Health {
    pub path: PathAndQuery,
    pub every: Duration,
}

/// What a client is made with. Connections can be kept while this is the same.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dialling {
    connect_timeout: Duration,
    pub max_connections: usize,
    allowed: Vec<IpNet>,
}

/// One endpoint of the record.
#[derive(Debug)]
pub(super) struct Spec {
    /// Its place in the record.
    pub index: usize,
    pub address: Address,
    pub weight: u32,
    /// The same on every gateway.
    pub id: u64,
}

impl Settings {
    /// What a record says.
    ///
    /// # Errors
    /// Why nothing can be made of it.
    pub(super) fn compile(record: &UpstreamRecord, options: &UpstreamsOptions) -> Result<(Self, Vec<Spec>), &'static str> {
        let specs = specs(record);
        if specs.is_empty() {
            return Err("it has no endpoint that can be used");
        }
        let usual = Deadlines::default();
        let first_byte = record.response_timeout_ms.map_or(usual.first_byte, millis);
        let health = record.health.as_ref().map(|health| {
            let path = health.path.parse().map_err(|_| "the path of its checks is not valid")?;
            Ok::<_, &'static str>(Health { path, every: health.interval_seconds.map_or(CHECK, |n| Duration::from_secs(n.max(1).into())) })
        });
        let settings = Self {
            attempts: record.attempts.unwrap_or(2).max(1),
            hedge: record.hedge,
            idempotent: record.idempotent,
            adaptive: record.adaptive_concurrency,
            deadlines: Deadlines { first_byte, idle: record.idle_timeout_ms.map_or(usual.idle, millis), total: None },
            breaker: breaker(record.breaker.as_ref(), first_byte, &options.tuning.breaker),
            health: health.transpose()?,
            dialling: Dialling::new(record, options)?,
        };
        Ok((settings, specs))
    }
}

impl Dialling {
    fn new(record: &UpstreamRecord, options: &UpstreamsOptions) -> Result<Self, &'static str> {
        let own = record.allow_networks.iter().map(|text| network(text).ok_or("one of its networks is not one"));
        Ok(Self {
            connect_timeout: record.connect_timeout_ms.map_or(options.outbound.connect_timeout, millis),
            max_connections: record.max_connections.map_or(options.outbound.max_connections, |most| most.max(1) as usize),
            allowed: own.chain(options.allow_networks.iter().copied().map(Ok)).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn guard(&self) -> Guard {
        Guard::new(self.allowed.iter().copied())
    }

    pub(super) fn options(&self, usual: &OutboundOptions) -> OutboundOptions {
        let max_idle = usual.max_idle.min(self.max_connections);
        OutboundOptions { connect_timeout: self.connect_timeout, max_connections: self.max_connections, max_idle, ..usual.clone() }
    }
}

fn millis(number: u32) -> Duration {
    Duration::from_millis(number.max(1).into())
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// The endpoints that can be used. One whose weight is 0 gets no requests.
fn specs(record: &UpstreamRecord) -> Vec<Spec> {
    let endpoints = record.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.weight > 0);
    let spec = |(index, endpoint): (usize, &plinth_store::resources::gateway::EndpointSpec)| match endpoint.url.parse::<Address>() {
        Ok(address) => Some(Spec { index, address, weight: endpoint.weight, id: hash::key(endpoint.url.as_bytes()) }),
        Err(error) => {
            tracing::warn!(endpoint = index, %error, "an endpoint of an upstream is left out");
            None
        }
    };
    endpoints.filter_map(spec).collect()
}

fn breaker(spec: Option<&BreakerSpec>, first_byte: Duration, usual: &breaker::Settings) -> breaker::Settings {
    let patience = usual.patience.max(first_byte);
    let Some(spec) = spec else { return breaker::Settings { patience, ..usual.clone() } };
    if !spec.enabled {
        const NEVER: u32 = 101;
        return breaker::Settings { slow: None, open_percent: NEVER, degraded_percent: NEVER, patience, ..usual.clone() };
    }
    let open_percent = spec.failure_percent.map_or(usual.open_percent, u32::from);
    let first_open = spec.open_ms.map_or(usual.first_open, millis);
    breaker::Settings {
        open_percent,
        degraded_percent: usual.degraded_percent.min(open_percent),
        slow: spec.slow_ms.map(millis).or(usual.slow),
        first_open,
        longest_open: usual.longest_open.max(first_open),
        patience,
        ..usual.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plinth_policy::resilience::Outcome;

    #[test]
    fn a_breaker_that_is_off_never_opens() {
        let spec = BreakerSpec { enabled: false, failure_percent: Some(1), slow_ms: Some(1), open_ms: None };
        let breaker = breaker::Breaker::new(breaker(Some(&spec), Duration::from_secs(1), &Tuning::default().breaker), 1);
        let now = Duration::from_secs(1);
        for _ in 0..100 {
            breaker.record(now, breaker.permit(now), Outcome::ServerError, Duration::from_secs(100));
        }
        assert_eq!(breaker.state(now), breaker::State::Closed);
    }

    #[test]
    fn networks_are_prefixes_or_addresses() {
        assert_eq!(network("10.1.2.3").unwrap().prefix_len(), 32);
        assert_eq!(network("fd00::/8").unwrap().prefix_len(), 8);
        assert!(network("ten").is_none());
    }
}
