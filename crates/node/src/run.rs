//! The whole life of a node, in order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use plinth_api::oip::trace::Traces;
use plinth_api::{Parts, Services};
use plinth_cluster::{Keeper, KeeperOptions, KeeperParts, SnapshotFile, View};
use plinth_config::{AuthMode, Config};
use plinth_gateway::Authentication;
use plinth_identity::token::{KeyFiles, Tokens, TokensParts};
use plinth_identity::{Credentials, KeyRing, Refusals};
use plinth_net::Server;
use plinth_registry::{FloorBook, Registry};
use plinth_runtime::{CancellationToken, CrashPoints, OnEnd, ShutdownList, TaskGroup, World};
use plinth_serving::{Regions, ResponseCache, Serving, State};
use plinth_store::{Metadata, Objects, objects};
use plinth_telemetry::{BuildInfo, Catalogue, LogControl};
use plinth_types::Digest;
use tokio::sync::watch;

use crate::announce::{Announce, Announcement};
use crate::artifacts::Artifacts;
use crate::data_dir::{Addresses, DataDir};
use crate::edge::{self, Door, Shared};
use crate::filters::FilterFiles;
use crate::issuers::Providers;
use crate::jobs::Jobs;
use crate::ledger::Ledger;
use crate::probe::Stores;
use crate::{bootstrap, events, options, wishes};

/// What the command line decides besides the configuration.
pub struct NodeOptions {
    /// Takes what the person at the terminal should know.
    pub announce: Announce,
    /// Moves the switches of the log.
    pub logs: LogControl,
}

/// How long the last steps of the end may take, each.
const LAST_STEP: Duration = Duration::from_secs(5);

/// Runs a node until a signal ends it.
///
/// # Errors
/// When it cannot start, with the cause and what to do next.
pub async fn run(config: Config, options: NodeOptions) -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let world = World { crash: armed(&config)?, ..World::real() };
    let started = world.clock.monotonic();
    let mut data = DataDir::open(&config.node.data_dir)?;
    if let plinth_config::MetadataUrl::Sqlite(Some(database)) = &config.metadata.url {
        data.hold_beside(database)?;
    }
    let groups = Groups { node: TaskGroup::new("node"), serving: TaskGroup::new("serving") };
    let node = match Node::start(&config, &data, &world, &groups, (started, options.logs)).await {
        Ok(node) => node,
        Err(error) => {
            // In order, so that what was started does not complain of an early end.
            groups.serving.close(LAST_STEP).await;
            groups.node.close(LAST_STEP).await;
            return Err(error);
        }
    };
    let announce = Arc::new(options.announce);
    node.first_start(&config, &world, &groups.node, &announce).await?;
    node.tell(&config, &data, &announce);
    let outcome = node.wait_for_end(&world, &groups.node, &announce, started).await;
    node.stop(&config, &data, &world, &groups.node).await;
    outcome
}

/// What ends together: runners before the node itself.
struct Groups {
    node: TaskGroup,
    serving: TaskGroup,
}

fn armed(config: &Config) -> Result<CrashPoints> {
    match &config.testing.crash_point {
        None => Ok(CrashPoints::none()),
        Some(name) => CrashPoints::arm(name, config.testing.crash_pass).map_err(anyhow::Error::msg).context("testing.crash_point"),
    }
}

/// What was started, in order.
struct Node {
    metadata: Arc<dyn Metadata>,
    services: Services,
    serving: TaskGroup,
    servers: Vec<Server>,
    worker: plinth_jobs::Worker,
}

impl Node {
    async fn start(
        config: &Config,
        data: &DataDir,
        world: &World,
        groups: &Groups,
        (started, logs): (Duration, LogControl),
    ) -> Result<Self> {
        let tasks = &groups.node;
        let build = BuildInfo { version: env!("CARGO_PKG_VERSION"), commit: option_env!("PLINTH_COMMIT").unwrap_or("unknown") };
        let catalogue = Arc::new(if config.testing.metrics { Catalogue::new(build) } else { Catalogue::silent(build) });
        let policy = options::trust(config)?;

        // Stores first; a ledger that is away does not hold the start.
        let metadata: Arc<dyn Metadata> =
            Ledger::open(options::metadata(config, data.path())?, world, tasks).await.context("the ledger cannot be opened")?;
        let objects: Arc<dyn Objects> =
            objects::open(&options::objects(config, data.path())?, world).await.context("the object store cannot be opened")?;
        let registry = Registry::new(metadata.clone(), objects.clone(), world.clone())
            .takeover_after(options::takeover(config))
            .own_addresses(options::own_addresses(config));
        let registry = Arc::new(registry);

        // The snapshot, and what lives from it alone.
        let file = SnapshotFile::new(data.path().to_owned(), world.crash.clone());
        let pace = KeeperOptions { poll: config.snapshot.poll, interval: config.snapshot.interval };
        let parts = KeeperParts { metadata: metadata.clone(), file, options: pace, metrics: catalogue.clone() };
        let keeper = Keeper::start(parts, world, tasks).await.context("the snapshot cannot be used")?;
        let floors = Arc::new(FloorBook::open(data.path().join("floors.json"))?);
        let cache = data.path().join("cache");
        let modules =
            FilterFiles::open(registry.clone(), policy.clone(), data.path().join("filters"), options::filters(config), world.clone());
        let modules = Arc::new(modules.context("the directory of filters cannot be used")?);
        let artifacts = Artifacts::open(registry.clone(), policy, floors.clone(), cache, world.clone())
            .context("the cache of versions cannot be opened")?;
        let artifacts = Arc::new(artifacts);
        let serving_options = options::serving(config, data.path())?;
        let answers = plinth_store::cache::open(&options::cache(config), &catalogue.cache(), world, tasks).context("cache.url")?;
        let answers = ResponseCache::new(answers, catalogue.cache(), world);
        let serving = Serving::start(serving_options, artifacts.clone(), answers, catalogue.clone(), world, &groups.serving);
        let keys = Arc::new(ArcSwap::<KeyRing>::default());
        let store = Arc::new(KeyFiles::new(data.path().join("issuers")));
        let asking = TokensParts { fetch: Arc::new(Providers::new(tasks)), store, world: world.clone() };
        let tokens = Tokens::start(asking, tasks);
        let refusals = Refusals::start(data.path().join("audit"), catalogue.audit_refusals_lost.clone(), world, tasks);
        let shared = Shared::new(config, &serving, modules.clone(), &catalogue, (world, tasks))?;
        let follower = Follower {
            shared: shared.clone(),
            keeper: keeper.clone(),
            serving: serving.clone(),
            keys: keys.clone(),
            tokens: tokens.clone(),
            artifacts: artifacts.clone(),
            modules,
            floors,
        };
        let applied = follower.start(tasks);
        ring(&registry, &keeper, tasks);

        let authentication = match config.auth.mode {
            AuthMode::Open => Authentication::Open(keys),
            AuthMode::Keys => Authentication::Closed(Arc::new(Credentials::keys(keys).with_tokens(tokens).with_certificates())),
        };

        let jobs = Jobs::open(config, data.path(), &catalogue, world, tasks).await.context("the queue of jobs cannot be opened")?;

        // The edge last: nobody is let in before there is something behind the door.
        let services = Services::new(Parts {
            jobs: Some(jobs.service.clone()),
            events: events::open(config, data.path(), world, tasks).await.context("the store of events cannot be opened")?,
            metrics: catalogue.clone(),
            registry,
            serving,
            snapshot: keeper,
            applied,
            verifier: artifacts,
            filters: shared.filters.clone(),
            probe: Arc::new(Stores { metadata: metadata.clone(), objects, refusals: data.path().join("audit") }),
            regions: Regions::new(options::regions(config)),
            traces: Traces::new(world.clone()),
            logs,
            world: world.clone(),
            settings: options::api(config),
            started,
            stopping: CancellationToken::new(),
            draining: CancellationToken::new(),
        });
        let worker = jobs.start(&services, shared.edge.overload.clone(), config, tasks);
        let door = Door { authentication, refusals, shared };
        let servers = edge::listen(config, &services, &door, &catalogue, world, tasks)?;
        Ok(Self { metadata, services, serving: groups.serving.clone(), servers, worker })
    }

    fn address(&self, listener: &str) -> Option<String> {
        self.servers.iter().find(|server| server.name() == listener).map(|server| server.local_addr().to_string())
    }

    /// Does what a node does once in its life, now or as soon as the ledger is there. Comes after everything that can
    /// fail: the key that it makes is told at once, or it would be lost.
    async fn first_start(&self, config: &Config, world: &World, tasks: &TaskGroup, announce: &Arc<Announce>) -> Result<()> {
        let (services, world, announce) = (self.services.clone(), world.clone(), announce.clone());
        let with_keys = config.auth.mode == AuthMode::Keys;
        let attempt = async move || -> plinth_types::Result<()> {
            services.must_be_writable()?;
            let key = bootstrap::prepare(&services.registry, &world, with_keys).await?;
            if let Some(key) = key {
                announce(Announcement::AdminKey(key));
                services.show_newest().await;
            }
            Ok(())
        };
        match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) if bootstrap::may_wait(error.reason()) => {}
            Err(error) => return Err(anyhow::Error::new(error).context("preparing the ledger")),
        }
        let stop = tasks.cancelled().clone();
        let later = async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                match attempt().await {
                    Ok(()) => return,
                    Err(error) if bootstrap::may_wait(error.reason()) => {}
                    Err(error) => return tracing::error!(%error, cause = error.log_text(), "the ledger cannot be prepared"),
                }
            }
        };
        tasks.spawn("first start", OnEnd::Ignore, async move {
            tokio::select! { () = stop.cancelled() => {}, () = later => {} }
        });
        Ok(())
    }

    /// Tells files and people where the node is.
    fn tell(&self, config: &Config, data: &DataDir, announce: &Announce) {
        let http = self.address("http").unwrap_or_default();
        let (grpc, metrics, admin) = (self.address("grpc"), self.address("metrics"), self.address("admin"));
        let open = config.auth.mode == AuthMode::Open;
        announce(Announcement::Listening { http: http.clone(), grpc: grpc.clone(), metrics: metrics.clone(), admin: admin.clone(), open });
        let addresses = Addresses {
            pid: std::process::id(),
            grpc: grpc.unwrap_or_default(),
            metrics: metrics.unwrap_or_default(),
            admin: admin.unwrap_or_else(|| http.clone()),
            http,
        };
        // A full or read-only disk is no reason not to serve.
        if let Err(error) = data.publish(&addresses) {
            tracing::warn!(error = format!("{error:#}"), "node.json cannot be written; tools on this machine will not find the node by it");
        }
    }

    /// Waits for a signal, or for the end of a part that must live.
    async fn wait_for_end(&self, world: &World, tasks: &TaskGroup, announce: &Arc<Announce>, started: Duration) -> Result<()> {
        let (serving, clock, teller) = (self.services.serving.clone(), world.clock.clone(), announce.clone());
        let stop = tasks.cancelled().clone();
        let tell_ready = async move {
            let settled = serving.wait_until(Duration::MAX, |table| table.settled.then(|| table.report())).await;
            let Some(report) = settled else { return };
            let ready = report.iter().filter(|r| r.state == State::Ready).count();
            let took_ms = u64::try_from(clock.monotonic().saturating_sub(started).as_millis()).unwrap_or(u64::MAX);
            // What is loaded on demand is neither.
            let failed = report.iter().filter(|r| matches!(r.state, State::Failed | State::Quarantined)).count();
            tracing::info!(ready, failed, took_ms, "ready");
            teller(Announcement::Ready { ready, failed, took_ms });
        };
        tasks.spawn("tell ready", OnEnd::Ignore, async move {
            tokio::select! { () = stop.cancelled() => {}, () = tell_ready => {} }
        });
        tokio::select! {
            signal = plinth_runtime::shutdown::stop_signal() => {
                let signal = signal.context("signals cannot be waited for")?;
                tracing::info!(signal, "stopping");
                announce(Announcement::Stopping { signal });
                Ok(())
            }
            () = tasks.cancelled().cancelled() => Err(anyhow::anyhow!("a part of the node ended by itself; the log says which")),
            () = self.serving.cancelled().cancelled() => Err(anyhow::anyhow!("serving ended by itself; the log says why")),
        }
    }

    /// Ends in order; a second signal ends at once.
    async fn stop(self, config: &Config, data: &DataDir, world: &World, tasks: &TaskGroup) {
        self.services.stopping.cancel();
        let mut list = ShutdownList::new();
        let (lame_duck, drain) = (config.shutdown.lame_duck, config.shutdown.drain);
        let servers = Arc::new(self.servers);
        let leaving = servers.clone();
        list.step("report not ready", lame_duck + LAST_STEP, async move {
            leaving.iter().for_each(Server::lame_duck);
            tokio::time::sleep(lame_duck).await;
        });
        let draining = self.services.draining.clone();
        list.step("finish requests", drain + LAST_STEP, async move {
            draining.cancel();
            // All at once: they share the deadline.
            futures_util::future::join_all(servers.iter().map(|server| server.drain(drain))).await;
        });
        let (worker, queue, small) = (self.worker, self.services.jobs.clone(), self.services.events.clone());
        list.step("finish jobs", options::job_drain(config) + LAST_STEP * 2, async move {
            worker.stop().await;
            if let Some(jobs) = queue {
                jobs.ledger().close().await;
            }
            if let Some(events) = small.get() {
                events.close().await;
            }
        });
        let serving = self.serving;
        list.step("end runners", LAST_STEP * 2, async move {
            serving.close(LAST_STEP).await;
        });
        let tasks = tasks.clone();
        list.step("end tasks", LAST_STEP * 2, async move {
            let late = tasks.close(LAST_STEP).await;
            if !late.is_empty() {
                tracing::warn!(?late, "tasks did not end in time");
            }
        });
        let metadata = self.metadata;
        list.step("close the ledger", LAST_STEP, async move { metadata.close().await });
        tokio::select! {
            _ = list.run(world.clock.clone()) => {}
            signal = plinth_runtime::shutdown::stop_signal() => {
                tracing::warn!(signal = signal.unwrap_or("unknown"), "second signal, ending at once");
            }
        }
        data.unpublish();
        tracing::info!("stopped");
    }
}

/// Pokes the snapshot when this process has committed something.
fn ring(registry: &Registry, keeper: &Arc<Keeper>, tasks: &TaskGroup) {
    let (mut changes, keeper, stop) = (registry.changes(), keeper.clone(), tasks.cancelled().clone());
    tasks.spawn("ring the snapshot", OnEnd::CancelGroup, async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => match changed {
                    Ok(()) => keeper.poke(),
                    // The registry lives as long as the node.
                    Err(_) => return stop.cancelled().await,
                },
            }
        }
    });
}

/// Takes each new snapshot to those who live from it.
struct Follower {
    shared: Shared,
    keeper: Arc<Keeper>,
    serving: Arc<Serving>,
    keys: Arc<ArcSwap<KeyRing>>,
    tokens: Tokens,
    artifacts: Arc<Artifacts>,
    modules: Arc<FilterFiles>,
    floors: Arc<FloorBook>,
}

impl Follower {
    fn start(self, tasks: &TaskGroup) -> watch::Receiver<u64> {
        let mut changes = self.keeper.changes();
        let first = self.take(&self.keeper.view());
        let (applied, shown) = watch::channel(first);
        let stop = tasks.cancelled().clone();
        tasks.spawn("follow the snapshot", OnEnd::CancelGroup, async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
                applied.send_replace(self.take(&self.keeper.view()));
                // In its own time: a large deletion must not hold up the next revocation of a key. What has not changed
                // meanwhile is what may go.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.prune() => {}
                    changed = changes.changed() => {
                        if changed.is_err() { return }
                        changes.mark_changed();
                    }
                }
            }
        });
        shown
    }

    fn take(&self, view: &View) -> u64 {
        // Before anything is known, nothing is wished, not even nothing.
        if view.known {
            let ring = Arc::new(self.keys.load().follow(&view.snapshot.tenants, &view.snapshot.keys));
            self.tokens.follow(&view.snapshot.issuers);
            // Limits before keys: nobody comes in before it is known what he may.
            self.shared.follow(&view.snapshot, &ring);
            self.keys.store(ring);
            self.serving.wish(wishes::models(&view.snapshot, &self.floors));
        }
        view.snapshot.revision.0
    }

    /// Forgets cached versions that nothing names; what is loaded stays, named or not.
    async fn prune(&self) {
        let (snapshot, loaded) = (self.keeper.view().snapshot.clone(), self.serving.table());
        let mut keep: BTreeSet<Digest> = loaded
            .models
            .values()
            .flat_map(|m| m.values())
            .flat_map(|row| row.versions.values())
            .filter_map(|v| v.instance.as_ref())
            .map(|i| *i.content())
            .collect();
        for (model, entry) in snapshot.models.iter().flat_map(|(tenant, models)| models.iter().map(move |(name, e)| ((tenant, name), e))) {
            keep.extend(self.floors.floor(model.0, model.1).answering.map(|known| known.content));
            let pinned = entry.deployment.iter().flat_map(|d| &d.versions);
            let named = entry.model.aliases.values().map(|t| &t.version).chain(pinned);
            keep.extend(named.filter_map(|v| entry.versions.get(v)).map(|r| r.content));
        }
        let (artifacts, modules) = (self.artifacts.clone(), self.modules.clone());
        let prune = move || {
            artifacts.prune(&keep);
            modules.prune(&snapshot);
        };
        let _ = tokio::task::spawn_blocking(prune).await;
    }
}
