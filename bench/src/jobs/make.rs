//! Makes jobs, and the service of a node without a node.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use plinth_bus::Bus;
use plinth_jobs::{Blobs, Handler, JobLimits, JobService, Kinds, ServiceParts};
use plinth_net::outbound::Guard;
use plinth_policy::jobs::RetryPolicy;
use plinth_queue::jobs::{Body, IdempotencyKey, JobIds, Jobs, NewJob, OnFailure, Payload, Submission};
use plinth_runtime::World;
use plinth_store::objects::{self, ObjectsOptions, ObjectsUrl};
use plinth_telemetry::{BuildInfo, Catalogue};
use plinth_types::{ByteSize, TenantName};

/// The kind of every job that is measured.
pub const KIND: &str = "work";

/// Makes submissions for a ledger without a service above it.
pub struct Maker {
    ids: JobIds,
    payload: Payload,
}

impl Maker {
    /// Jobs with so many bytes of input.
    pub fn new(world: &World, bytes: usize) -> Self {
        let payload = Payload { meta: "{\"type\":\"application/json\"}".into(), body: Body::Inline(vec![b'x'; bytes]) };
        Self { ids: JobIds::new(world.clone()), payload }
    }

    /// So many jobs of a tenant, with an idempotency key of their own or without one.
    pub fn submission(&self, tenant: &TenantName, count: usize, keyed: bool) -> Submission {
        let job = || NewJob {
            id: self.ids.next(),
            kind: KIND.into(),
            class: 1,
            priority: 0,
            run_at: None,
            expires_at: None,
            timeout_millis: 600_000,
            retry: RetryPolicy::default(),
            keep_millis: 86_400_000,
            actor: "bench".into(),
            parent: None,
            waits_for: Vec::new(),
            on_failure: OnFailure::Fail,
            webhook: None,
            labels: String::new(),
            payload: self.payload.clone(),
        };
        let jobs: Vec<NewJob> = (0..count).map(|_| job()).collect();
        let key = keyed.then(|| IdempotencyKey { key: self.ids.next().to_string(), fingerprint: [7; 32], keep_millis: 86_400_000 });
        Submission { tenant: tenant.clone(), key, jobs }
    }
}

/// The service of a node with one kind of jobs; what is longer than `inline` goes to `objects`.
pub async fn service(
    ledger: Arc<dyn Jobs>,
    handler: Arc<dyn Handler>,
    objects: &Path,
    inline: ByteSize,
    world: &World,
) -> Result<JobService> {
    let stored = objects::open(&ObjectsOptions::new(ObjectsUrl::File(objects.to_owned())), world).await?;
    Ok(JobService::new(ServiceParts {
        ledger,
        blobs: Blobs::new(stored, inline, world.crash.clone()),
        kinds: Kinds::new([(KIND.to_owned(), handler)]),
        limits: JobLimits { inline, ..JobLimits::default() },
        guard: Guard::new([]),
        bus: Bus::local(),
        metrics: Arc::new(Catalogue::new(BuildInfo { version: "0", commit: "bench" })),
        world: world.clone(),
    }))
}
