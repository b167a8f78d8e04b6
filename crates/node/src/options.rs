//! From the configuration to what each part is built from.

use std::path::Path;

use anyhow::{Context, Result};
use plinth_api::{GrpcSettings, Settings};
use plinth_config::{AuthMode, Backend, Config};
use plinth_engine::{BackendKind, Provider};
use plinth_gateway::{AccessLogOptions, LimitOptions, Networks, TraceOptions};
use plinth_jobs::{JobLimits, WorkerOptions};
use plinth_net::tls::{CertificateFiles, TlsOptions};
use plinth_net::{BodyLimits, BodyMemory, ConnectionLimits, HostRules, Http2Limits, UploadLimits};
use plinth_policy::limits::BanSettings;
use plinth_registry::{PublicKey, TrustPolicy};
use plinth_serving::{ProcessOptions, RegionOptions, ServingOptions};
use plinth_store::cache::{CacheOptions, RedisOptions};
use plinth_store::metadata::{MetadataOptions, MetadataUrl};
use plinth_store::objects::{ObjectsOptions, ObjectsUrl, S3Credentials};
use plinth_types::ByteSize;

use crate::filters::Ceilings;
use crate::library::find_onnxruntime;

/// The time over which the rate of a body is judged.
const RATE_WINDOW: std::time::Duration = std::time::Duration::from_secs(10);
/// The largest file of a version that is taken.
const MAX_UPLOAD: ByteSize = ByteSize(1 << 40);

pub fn metadata(config: &Config, data_dir: &Path) -> Result<MetadataOptions> {
    let text = match &config.metadata.url {
        plinth_config::MetadataUrl::Sqlite(None) => "sqlite:".to_owned(),
        plinth_config::MetadataUrl::Sqlite(Some(path)) => format!("sqlite:{}", path.display()),
        plinth_config::MetadataUrl::Postgres(url) => url.expose().to_owned(),
    };
    Ok(MetadataOptions::new(MetadataUrl::parse(&text, data_dir).context("metadata.url")?))
}

pub fn objects(config: &Config, data_dir: &Path) -> Result<ObjectsOptions> {
    let settings = &config.objects;
    let text = match &settings.url {
        plinth_config::ObjectsUrl::File(None) => "file:".to_owned(),
        plinth_config::ObjectsUrl::File(Some(path)) => format!("file:{}", path.display()),
        plinth_config::ObjectsUrl::S3 { bucket, prefix } => format!("s3://{bucket}/{prefix}"),
    };
    let mut options = ObjectsOptions::new(ObjectsUrl::parse(&text, data_dir).context("objects.url")?);
    options.s3.endpoint.clone_from(&settings.s3_endpoint);
    options.s3.region.clone_from(&settings.s3_region);
    options.s3.allow_http = settings.s3_allow_http;
    options.s3.credentials = settings.s3_access_key.as_ref().zip(settings.s3_secret_key.as_ref()).map(|(id, secret)| S3Credentials {
        access_key_id: id.expose().to_owned(),
        secret_access_key: secret.expose().to_owned(),
        session_token: None,
    });
    Ok(options)
}

/// Where jobs keep what is too large for a row: beside the artifacts, in a place that the registry does not sweep.
pub fn job_objects(config: &Config, data_dir: &Path) -> Result<ObjectsOptions> {
    let mut options = objects(config, data_dir)?;
    options.url = match options.url {
        ObjectsUrl::File(_) => ObjectsUrl::File(data_dir.join("job-objects")),
        ObjectsUrl::S3 { bucket, prefix } if prefix.is_empty() => ObjectsUrl::S3 { bucket, prefix: "jobs".into() },
        ObjectsUrl::S3 { bucket, prefix } => ObjectsUrl::S3 { bucket, prefix: format!("{prefix}-jobs") },
    };
    Ok(options)
}

pub fn job_limits(config: &Config) -> JobLimits {
    let jobs = &config.jobs;
    JobLimits {
        max_input: jobs.max_input,
        max_result: jobs.max_result,
        inline: jobs.inline,
        keep: jobs.keep,
        keep_keys: jobs.keep_keys,
        timeout: jobs.timeout,
        max_waiting: jobs.max_waiting.into(),
    }
}

/// How long jobs may go on when the node ends: within the time of requests, and less than the leases last.
pub fn job_drain(config: &Config) -> std::time::Duration {
    config.shutdown.drain.min(std::time::Duration::from_secs(20))
}

pub fn worker(config: &Config, id: &str) -> WorkerOptions {
    let jobs = &config.jobs;
    let runs = config.node.roles.contains(&plinth_config::Role::Worker);
    WorkerOptions {
        node: format!("{}-{id}", config.node.name),
        workers: if runs { jobs.workers } else { 0 },
        lease: jobs.lease,
        heartbeat: jobs.heartbeat,
        poll: jobs.poll,
        sweep: jobs.sweep,
        drain: job_drain(config),
    }
}

/// What the clients for tenants' addresses may dial besides public ones.
pub fn job_networks(config: &Config) -> Result<Vec<ipnet::IpNet>> {
    let parse = |text: &String| text.parse().with_context(|| format!("jobs.allow: '{text}' is no network such as 10.0.0.0/8"));
    config.jobs.allow.iter().map(parse).collect()
}

/// Where requests come in: no upstream may lead back there.
pub fn own_addresses(config: &Config) -> Vec<std::net::SocketAddr> {
    let listen = &config.listen;
    [Some(listen.http), listen.grpc, listen.metrics, listen.admin].into_iter().flatten().collect()
}

/// How old another process's unfinished garbage collection must be before this node finishes it: a SQLite ledger has no
/// other process, on PostgreSQL one may just be slow.
pub fn takeover(config: &Config) -> std::time::Duration {
    match &config.metadata.url {
        plinth_config::MetadataUrl::Sqlite(_) => std::time::Duration::ZERO,
        plinth_config::MetadataUrl::Postgres(_) => std::time::Duration::from_secs(600),
    }
}

/// Reads the trusted keys. Blocking.
pub fn trust(config: &Config) -> Result<TrustPolicy> {
    let settings = &config.signing;
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).with_context(|| format!("signing.trusted_keys: {} cannot be read", path.display()))?;
        PublicKey::from_pem(&text).with_context(|| format!("signing.trusted_keys: {} is not a public key in PEM form", path.display()))
    };
    let trusted = settings.trusted_keys.iter().map(read).collect::<Result<Vec<_>>>()?;
    Ok(TrustPolicy { require_signature: settings.require_signature, trusted, accept_unbound: settings.accept_unbound })
}

pub fn serving(config: &Config, data_dir: &Path) -> Result<ServingOptions> {
    let engine = &config.engine;
    let onnxruntime = match find_onnxruntime(engine.onnxruntime.as_deref(), data_dir) {
        Ok(path) => Some(path),
        Err(error) => {
            tracing::warn!("{error}; ONNX models cannot be loaded until then");
            None
        }
    };
    Ok(ServingOptions {
        program: std::env::current_exe().context("the path of this binary")?,
        onnxruntime,
        backends: engine
            .backends
            .iter()
            .filter_map(|b| match b {
                Backend::Onnx => Some(BackendKind::Onnx),
                Backend::Villain => Some(BackendKind::Villain),
                Backend::Step => Some(BackendKind::Step),
                Backend::Process => None,
            })
            .collect(),
        threads: (engine.threads > 0).then_some(engine.threads),
        // What affinity and the cgroup's quota leave to this process.
        processors: u16::try_from(plinth_runtime::cpu_budget().threads()).unwrap_or(u16::MAX),
        provider: match engine.provider {
            plinth_config::Provider::Cpu => Provider::Cpu,
            plinth_config::Provider::Cuda => Provider::Cuda { device: 0 },
            plinth_config::Provider::TensorRt => Provider::TensorRt { device: 0 },
        },
        shared_memory: engine.shared_memory,
        cache_ttl: config.cache.ttl,
        process: processes(config, data_dir)?,
        memory: engine.memory_limit,
        max_queue_requests: engine.max_queue_requests as usize,
        max_queue_bytes: engine.max_queue_bytes,
        memory_budget: engine.memory_budget,
        load_timeout: engine.load_timeout,
        execution_timeout: engine.execution_timeout,
    })
}

/// What foreign servers may be, when the backend is allowed.
fn processes(config: &Config, data_dir: &Path) -> Result<Option<ProcessOptions>> {
    if !config.engine.backends.contains(&Backend::Process) {
        return Ok(None);
    }
    let scratch = data_dir.join("scratch");
    // What a node that was killed has left there.
    if let Err(error) = std::fs::remove_dir_all(&scratch)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).context("the directory for foreign servers cannot be emptied");
    }
    std::fs::create_dir_all(&scratch).context("the directory for foreign servers cannot be made")?;
    Ok(Some(ProcessOptions { commands: config.engine.process_commands.clone(), scratch, hidden: vec![data_dir.to_owned()] }))
}

pub fn cache(config: &Config) -> CacheOptions {
    let settings = &config.cache;
    let redis = match &settings.url {
        plinth_config::CacheUrl::Memory => None,
        plinth_config::CacheUrl::Redis(url) => Some(RedisOptions::new(url.expose(), settings.timeout)),
    };
    CacheOptions { memory: settings.memory, redis }
}

pub fn regions(config: &Config) -> RegionOptions {
    let settings = &config.shared_memory;
    RegionOptions {
        enabled: settings.enabled,
        prefix: settings.prefix.clone(),
        max_regions: settings.max_regions as usize,
        ..RegionOptions::default()
    }
}

pub fn api(config: &Config) -> Settings {
    let http = &config.http;
    let body = BodyLimits {
        max: http.max_body,
        min_rate: http.body_min_rate,
        window: RATE_WINDOW,
        timeout: http.request_timeout,
        memory: BodyMemory::new(http.body_memory),
    };
    Settings {
        server_name: http.server_name.clone(),
        grpc: GrpcSettings { message: BodyLimits { max: config.grpc.max_message, ..body.clone() }, reflection: config.grpc.reflection },
        body,
        upload: UploadLimits { max: MAX_UPLOAD, min_rate: http.body_min_rate, window: RATE_WINDOW },
        request_timeout: http.request_timeout,
        load_timeout: config.engine.load_timeout,
        gc_grace: config.gc.grace,
        open: config.auth.mode == AuthMode::Open,
        require_signature: config.signing.require_signature,
    }
}

pub fn connections(config: &Config) -> ConnectionLimits {
    let http = &config.http;
    ConnectionLimits {
        max_connections: http.max_connections as usize,
        header_timeout: http.header_timeout,
        idle_timeout: http.idle_timeout,
        write_timeout: http.write_timeout,
        max_header_bytes: http.max_header_bytes,
        max_per_client: http.max_connections_per_client as usize,
        min_write_rate: http.write_min_rate,
        ..ConnectionLimits::default()
    }
}

/// The same for the gRPC listener.
pub fn grpc_connections(config: &Config) -> ConnectionLimits {
    ConnectionLimits { http2: Http2Limits::grpc(), ..connections(config) }
}

pub fn hosts(config: &Config) -> HostRules {
    HostRules::new(&config.http.allowed_hosts)
}

/// The certificates of the listeners; `None` without encryption.
pub fn tls(config: &Config) -> Option<TlsOptions> {
    let tls = &config.tls;
    let pairs = tls.certificates.iter().zip(&tls.keys);
    let certificates: Vec<_> =
        pairs.map(|(certificates, key)| CertificateFiles { certificates: certificates.clone(), key: key.clone() }).collect();
    let first = certificates.first()?;
    let (client_ca, client_required) = (tls.client_ca.clone(), tls.client_required);
    let base = TlsOptions::new(&first.certificates, &first.key);
    Some(TlsOptions { certificates, client_ca, client_required, ..base })
}

/// Which requests have a line; `None`: none has.
pub fn access_log(config: &Config) -> Option<AccessLogOptions> {
    let log = &config.access_log;
    let options = AccessLogOptions {
        share: log.successes.of_u32(),
        lines: log.lines,
        paths: log.paths,
        file: log.file.clone(),
        file_size: log.file_size,
        files: log.files,
    };
    log.enabled.then_some(options)
}

/// Which requests are traced.
pub fn tracing(config: &Config) -> TraceOptions {
    let trace = &config.trace;
    TraceOptions { accept: trace.accept, share: trace.sample.of_u32(), wishes: trace.wishes }
}

/// What of a body is read so that it can be sent twice.
pub fn replay(config: &Config) -> BodyLimits {
    let http = &config.http;
    BodyLimits {
        max: config.gateway.replay_body,
        min_rate: http.body_min_rate,
        window: RATE_WINDOW,
        timeout: http.request_timeout,
        memory: BodyMemory::new(http.body_memory),
    }
}

/// What no filter gets more of.
pub fn filters(config: &Config) -> Ceilings {
    let gateway = &config.gateway;
    Ceilings { time: gateway.filter_time, memory: gateway.filter_memory, body: gateway.filter_body }
}

/// Bans, and how many users are counted at a time.
///
/// # Errors
/// When `limits.ban_exempt` holds something else than networks.
pub fn limits(config: &Config) -> Result<LimitOptions> {
    let limits = &config.limits;
    let bans =
        BanSettings { threshold: limits.ban_requests, first: limits.ban_time, longest: limits.ban_longest, ..BanSettings::default() };
    Ok(LimitOptions {
        users: limits.users as usize,
        bans: (limits.ban_requests > 0).then_some(bans),
        ban_exempt: Networks::parse(&limits.ban_exempt).context("limits.ban_exempt")?,
    })
}
