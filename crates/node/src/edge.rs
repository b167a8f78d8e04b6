//! The listeners, and what they share: limits, users' routes, upstreams, the ladder, certificates.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use plinth_api::{Dialect, Services};
use plinth_cluster::Snapshot;
use plinth_config::{Config, LimitsUrl};
use plinth_gateway::{
    AccessLog, Aliases, AnswersOptions, Authentication, Dispatch, Edge, FilterSource, Filters, Gateway, Limits, MetricsService, Overload,
    RouteTable, ShadowMetrics, SharedLimits, Tracing, Upstreams, UpstreamsOptions,
};
use plinth_identity::{KeyRing, Refusals, TenantRecords};
use plinth_net::outbound::{OutboundOptions, TlsRoots};
use plinth_net::tls::{self, TlsContext};
use plinth_net::{ConnectionLimits, ListenerConfig, Server};
use plinth_policy::overload::LadderSettings;
use plinth_runtime::{TaskGroup, World};
use plinth_serving::Serving;
use plinth_store::limits::{RedisLeases, RedisLeasesOptions};
use plinth_store::resources::gateway::PlanRecord;
use plinth_telemetry::Catalogue;
use plinth_types::{Label, ModelName, TenantName, VersionNumber};

use crate::load::Meter;
use crate::{hangup, options};

/// The most connections on the metrics and on the admin listener.
const SIDE_CONNECTIONS: usize = 64;

/// What all listeners share, and what follows each snapshot.
#[derive(Clone)]
pub struct Shared {
    pub edge: Arc<Edge>,
    upstreams: Arc<Upstreams>,
    pub filters: Arc<Filters>,
    limits: Arc<Limits>,
    default_plan: Option<Label>,
    /// The plans and tenants in force: most snapshots change neither.
    applied: Arc<Mutex<Option<Applied>>>,
}

/// The plans and the tenants of a snapshot.
type Applied = (Arc<BTreeMap<Label, Arc<PlanRecord>>>, Arc<TenantRecords>);

impl Shared {
    pub fn new(
        config: &Config,
        serving: &Arc<Serving>,
        modules: Arc<dyn FilterSource>,
        catalogue: &Arc<Catalogue>,
        (world, tasks): (&World, &TaskGroup),
    ) -> Result<Self> {
        let replay = options::replay(config);
        let outbound = OutboundOptions { tls: Some(TlsRoots::System), ..OutboundOptions::default() };
        let upstreams = UpstreamsOptions { outbound, ..UpstreamsOptions::new(replay.clone()) };
        let upstreams = Upstreams::new(upstreams, world, catalogue.clone(), tasks).context("the machine's certificates")?;
        let limits = Arc::new(Limits::new(world, catalogue.limits(), options::limits(config)?, shared_limits(config, world, tasks)?));
        let mut meter = Meter::new(Some(serving.clone()));
        let overload = if config.testing.overload_level > 0 {
            Overload::pinned(u8::try_from(config.testing.overload_level).unwrap_or(u8::MAX))
        } else if config.gateway.ladder {
            Overload::start(LadderSettings::default(), move || meter.measure(), catalogue.overload_level.clone(), world, tasks)
        } else {
            Arc::default()
        };
        let answers = AnswersOptions { memory: config.gateway.answers, ..AnswersOptions::default() };
        let shadows = TaskGroup::child_of(tasks, "shadows");
        let dispatch = Dispatch::new(upstreams.clone(), answers, ShadowMetrics::new(catalogue), replay, world.clone(), shadows);
        let filters = Filters::new(modules, catalogue.clone(), world.clone(), TaskGroup::child_of(tasks, "filters"));
        let default_plan = config.limits.default_plan.as_ref().map(|name| name.parse()).transpose().context("limits.default_plan")?;
        Ok(Self {
            edge: Arc::new(Edge::new(limits.clone(), overload, dispatch)),
            upstreams,
            filters,
            limits,
            default_plan,
            applied: Arc::default(),
        })
    }

    /// Takes a snapshot with its ring of keys, which says where each tenant stands. Upstreams first, so that no route leads to one that is not
    /// there yet.
    pub fn follow(&self, snapshot: &Snapshot, ring: &KeyRing) {
        let upstreams = snapshot.upstreams.iter().flat_map(|(tenant, all)| all.iter().map(move |(name, record)| (tenant, name, &**record)));
        self.upstreams.apply(upstreams);
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |(plans, tenants): &Applied| Arc::ptr_eq(plans, &snapshot.plans) && Arc::ptr_eq(tenants, &snapshot.tenants);
        if !applied.as_ref().is_some_and(same) {
            let tenants = snapshot.tenants.iter().filter_map(|(name, record)| Some((name, ring.tenant(name.as_str())?.0, &**record)));
            self.limits.apply(&snapshot.plans, tenants, self.default_plan.as_ref());
            *applied = Some((snapshot.plans.clone(), snapshot.tenants.clone()));
        }
        drop(applied);
        self.limits.addresses(Some(&snapshot.addresses));
        // Filters before the routes that name them.
        self.filters.follow(&snapshot.filters, &snapshot.routes);
        self.edge.follow(RouteTable::compile(&snapshot.routes, &Known(snapshot), &self.filters));
    }
}

/// The store that nodes share their limits by.
fn shared_limits(config: &Config, world: &World, tasks: &TaskGroup) -> Result<Option<SharedLimits>> {
    let LimitsUrl::Redis(url) = &config.limits.url else { return Ok(None) };
    let options = RedisLeasesOptions::new(url.expose(), config.limits.timeout);
    let store = RedisLeases::open(options, world, tasks).context("limits.url")?;
    let tasks = TaskGroup::child_of(tasks, "limits");
    Ok(Some(SharedLimits { store, nodes: config.limits.nodes, timeout: config.limits.timeout, tasks }))
}

/// The aliases of a snapshot.
struct Known<'s>(&'s Snapshot);

impl Aliases for Known<'_> {
    fn version(&self, tenant: &TenantName, model: &ModelName, alias: &str) -> Option<VersionNumber> {
        let entry = self.0.models.get(tenant)?.get(model)?;
        entry.model.aliases.get(alias).map(|target| target.version)
    }
}

/// Who may come in, and where refusals are noted.
pub struct Door {
    pub authentication: Authentication,
    pub refusals: Refusals,
    pub shared: Shared,
}

/// Starts the listeners: HTTP, gRPC, metrics, admin.
pub fn listen(
    config: &Config,
    services: &Services,
    door: &Door,
    catalogue: &Arc<Catalogue>,
    world: &World,
    tasks: &TaskGroup,
) -> Result<Vec<Server>> {
    let limits = options::connections(config);
    let tls = certificates(config, catalogue, world, tasks)?;
    hangup::follow(tls.clone(), services.snapshot.clone(), tasks);
    let requests = options::access_log(config).map(|options| AccessLog::start(options, catalogue.access_log_dropped.clone(), world, tasks));
    let tracing = Arc::new(Tracing::new(options::tracing(config)));
    let gateway = |routes| {
        let gateway = Gateway::new(routes, door.authentication.clone(), options::hosts(config), catalogue.clone(), world.clone());
        let gateway = gateway.context("the table of routes")?.noting(door.refusals.clone()).behind(door.shared.edge.clone());
        let gateway = gateway.tracing(tracing.clone());
        Ok::<_, anyhow::Error>(match &requests {
            Some(log) => gateway.logging(log),
            None => gateway,
        })
    };
    let plain = |name, address| ListenerConfig::new(name, address, limits, catalogue.listener(name));
    let listener = |name, address| ListenerConfig { tls: tls.clone(), ..plain(name, address) };
    // Scrapers and operators are few; the descriptors belong to the callers of models.
    let few = ConnectionLimits { max_connections: SIDE_CONNECTIONS, ..limits };
    let advice = "another program has the port; stop it, or choose another address in [listen]";

    let public = if config.listen.admin.is_some() { plinth_api::public_routes(services) } else { plinth_api::routes(services) };
    let mut servers = vec![Server::start(listener("http", config.listen.http), Arc::new(gateway(public)?), tasks).context(advice)?];
    if let Some(address) = config.listen.grpc {
        let gateway = gateway(plinth_api::oip::grpc::routes(services))?.speaking(Dialect::Grpc);
        let grpc = ListenerConfig { limits: options::grpc_connections(config), ..listener("grpc", address) };
        servers.push(Server::start(grpc, Arc::new(gateway), tasks).context(advice)?);
    }
    if let Some(address) = config.listen.metrics {
        let probe = services.clone();
        let service = MetricsService::new(catalogue.clone(), world.clone(), move || probe.ready());
        let side = ListenerConfig { limits: few, ..plain("metrics", address) };
        servers.push(Server::start(side, Arc::new(service), tasks).context(advice)?);
    }
    if let Some(address) = config.listen.admin {
        let side = ListenerConfig { limits: few, ..listener("admin", address) };
        servers.push(Server::start(side, Arc::new(gateway(plinth_api::admin_routes(services))?), tasks).context(advice)?);
    }
    Ok(servers)
}

/// The certificates, watched for changes.
fn certificates(config: &Config, catalogue: &Catalogue, world: &World, tasks: &TaskGroup) -> Result<Option<Arc<TlsContext>>> {
    let Some(options) = options::tls(config) else { return Ok(None) };
    let context = TlsContext::load(options, world.clock.clone()).context("[tls]")?;
    tls::watch(context.clone(), config.tls.reload, tasks);
    catalogue.tls_certificate_expiry.set_whole(context.earliest_expiry().millis() / 1000);
    Ok(Some(context))
}
