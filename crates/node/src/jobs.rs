//! The jobs of a node: its ledger, its kinds, its worker.
//!
//! A node on SQLite has a file of its own for jobs; one on PostgreSQL keeps them in the database of the ledger. As with that, a database that is away does
//! not hold the start.

mod late;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use plinth_api::Services;
use plinth_api::bulk::batches::{self, BatchKind};
use plinth_api::bulk::{self, BulkKind};
use plinth_api::files;
use plinth_api::jobs::infer_kind::{self, InferKind};
use plinth_bus::Bus;
use plinth_config::{BusUrl, Config, MetadataUrl};
use plinth_gateway::Overload;
use plinth_jobs::http_kind::HttpKind;
use plinth_jobs::webhook_kind::WebhookKind;
use plinth_jobs::webhooks::{Sender, SenderParts};
use plinth_jobs::{Blobs, Handler, JobService, Kinds, ServiceParts, Worker, WorkerParts};
use plinth_net::outbound::{Guard, Outbound, OutboundMetrics, OutboundOptions, Resolver, ResolverOptions, SystemLookup, TlsRoots};
use plinth_policy::overload::Level;
use plinth_queue::jobs::WEBHOOK_KIND;
use plinth_queue::jobs::postgres::PostgresOptions;
use plinth_runtime::{TaskGroup, World};
use plinth_store::objects;
use plinth_telemetry::Catalogue;

use self::late::{LateJobs, Place};
use crate::options;

/// The jobs of a node, before anybody works.
pub struct Jobs {
    pub service: JobService,
    /// Tells this data directory from all others; see [`identity`].
    id: String,
    infer: Arc<InferKind>,
    bulk: Arc<BulkKind>,
    batches: Arc<BatchKind>,
}

impl Jobs {
    /// Opens the ledger and puts the kinds together.
    ///
    /// # Errors
    /// When the ledger must not be opened, or the machine's certificates cannot be used.
    pub async fn open(config: &Config, data: &Path, catalogue: &Arc<Catalogue>, world: &World, tasks: &TaskGroup) -> Result<Self> {
        let place = match &config.metadata.url {
            MetadataUrl::Sqlite(_) => Place::Sqlite(data.join("jobs.sqlite")),
            MetadataUrl::Postgres(url) => Place::Postgres(PostgresOptions::new(url.expose())),
        };
        let ledger: Arc<dyn plinth_queue::Jobs> = LateJobs::open(place, world, tasks).await?;
        let stored =
            objects::open(&options::job_objects(config, data)?, world).await.context("the object store of jobs cannot be opened")?;
        let blobs = Blobs::new(stored, config.jobs.inline, world.crash.clone()).spool_in(data.join("job-spool"));

        let guard = Guard::new(options::job_networks(config)?);
        let resolver = Resolver::new(ResolverOptions::default(), SystemLookup);
        let parts = SenderParts {
            guard: guard.clone(),
            resolver: resolver.clone(),
            tls: Some(TlsRoots::System),
            metrics: OutboundMetrics::default(),
            clock: world.clock.clone(),
        };
        let sender = Sender::new(parts, tasks).context("the machine's certificates")?;
        let outbound = OutboundOptions {
            connect_timeout: std::time::Duration::from_secs(3),
            tls: Some(TlsRoots::System),
            ..OutboundOptions::default()
        };
        let outbound =
            Outbound::new(outbound, guard.clone(), resolver, OutboundMetrics::default(), tasks).context("the machine's certificates")?;

        let bus = match &config.bus.url {
            BusUrl::Local => Bus::local(),
            BusUrl::Nats(url) => Bus::nats(url.expose(), "plinth.jobs", tasks).context("bus.url")?,
        };
        let (infer, bulk, batches) = (InferKind::new(), BulkKind::new(), BatchKind::new());
        let kinds: [(&str, Arc<dyn Handler>); 6] = [
            (infer_kind::KIND, infer.clone()),
            (bulk::KIND, bulk.clone()),
            (batches::KIND, batches.clone()),
            (files::KIND, files::kind()),
            ("http", Arc::new(HttpKind::new(outbound, guard.clone(), config.jobs.max_result))),
            (WEBHOOK_KIND, Arc::new(WebhookKind::new(ledger.clone(), sender, guard.clone(), world.clone()))),
        ];
        let service = JobService::new(ServiceParts {
            ledger,
            blobs,
            kinds: Kinds::new(kinds.map(|(name, handler)| (name.to_owned(), handler))),
            limits: options::job_limits(config),
            guard,
            bus,
            metrics: catalogue.clone(),
            world: world.clone(),
        });
        Ok(Self { service, id: identity(data, world), infer, bulk, batches })
    }

    /// Begins to work. What is under load lets background jobs wait, then all that is not urgent.
    pub fn start(self, services: &Services, overload: Arc<Overload>, config: &Config, tasks: &TaskGroup) -> Worker {
        self.infer.attach(services);
        self.bulk.attach(services);
        self.batches.attach(services);
        let lowest_class = Arc::new(move || match overload.level() {
            Level::Normal => 3,
            Level::L1 => 2,
            Level::L2 | Level::L3 => 1,
            Level::L4 | Level::L5 => 0,
        });
        Worker::start(WorkerParts { service: self.service, options: options::worker(config, &self.id), lowest_class }, tasks)
    }
}

/// A word that is drawn when a data directory is first used and stays with it. By it a node that starts again knows which jobs its former process held:
/// names are chosen by people, and two nodes that share one (both left at the default, say) must not take each other's. A directory is one
/// process's at a time. Where it cannot be kept it is drawn anew, and what the former process held waits for the end of its lease.
fn identity(data: &Path, world: &World) -> String {
    let path = data.join("node_id");
    let known = std::fs::read_to_string(&path).ok().map(|text| text.trim().to_owned());
    if let Some(known) = known.filter(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        return known;
    }
    let id = format!("{:016x}", world.random.next_u64());
    let kept = std::fs::write(&path, &id).and_then(|()| std::fs::File::open(&path)?.sync_all());
    if let Err(error) = kept {
        tracing::warn!(%error, "node_id cannot be kept in the data directory; after a restart this node's jobs wait for the end of their leases");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_word_and_no_two_have_the_same() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let id = |directory: &tempfile::TempDir| identity(directory.path(), &World::real());
        let first = id(&one);
        assert_eq!((id(&one), first.len()), (first.clone(), 16));
        assert_ne!(id(&two), first);
        std::fs::write(one.path().join("node_id"), "half").unwrap();
        assert_ne!(id(&one), first, "what is no word is drawn anew");
    }
}
