//! The table of keys: every key once, with its type, its default, the release that brought it, and its meaning.
//!
//! Everything else comes from this table: the typed structs below, parsing, `config show` and the
//! reference page. To add a key, add a line here and, where it depends on another key, a rule to `check`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use plinth_types::ByteSize;

use crate::input::Resolver;
use crate::kinds::{AuthMode, Backend, BusUrl, CacheUrl, LimitsUrl, LogFormat, MetadataUrl, ObjectsUrl, Provider, Role, Secret, Share};
use crate::setting::Setting;
use crate::show::Shown;

/// What is known of a key without any value.
#[derive(Debug)]
pub struct Key {
    /// Its full name, such as `listen.http`.
    pub path: &'static str,
    /// The form of its values, with the unit.
    pub form: &'static str,
    /// The default, as it would stand in the environment.
    pub default: &'static str,
    /// The default as TOML.
    pub shown_default: fn() -> String,
    /// The release that brought it.
    pub since: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Whether its value must not be shown.
    pub secret: bool,
}

/// A section of the file.
#[derive(Debug)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// What it is about.
    pub doc: &'static str,
    /// Its keys, in the order of the reference.
    pub keys: &'static [Key],
}

fn shown_default<T: Setting>(default: &'static str) -> String {
    T::from_text(default).map_or_else(|_| "?".to_owned(), |value| value.show())
}

macro_rules! keys {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Struct:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $ty:ty = $default:literal, $since:literal; )*
        }
    )*) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $Struct { $( $(#[doc = $doc])+ pub $key: $ty, )* }
        )*

        /// A whole, validated configuration.
        #[derive(Debug, Clone)]
        pub struct Config {
            $( $(#[doc = $section_doc])+ pub $section: $Struct, )*
            pub(crate) shown: Vec<Shown>,
        }

        /// All sections, in the order of the reference.
        pub static SECTIONS: &[Section] = &[$(
            Section {
                name: stringify!($section),
                doc: concat!($($section_doc),+),
                keys: &[$(
                    Key {
                        path: concat!(stringify!($section), ".", stringify!($key)),
                        form: <$ty as Setting>::FORM,
                        default: $default,
                        shown_default: || shown_default::<$ty>($default),
                        since: $since,
                        doc: concat!($($doc),+),
                        secret: <$ty as Setting>::SECRET,
                    },
                )*],
            },
        )*];

        impl Config {
            /// Reads every key; what is wrong is noted in the resolver and the default stands in for it.
            pub(crate) fn resolve(resolver: &mut Resolver) -> Self {
                Self {
                    $( $section: $Struct {
                        $( $key: resolver.take::<$ty>(concat!(stringify!($section), ".", stringify!($key)), $default), )*
                    }, )*
                    shown: std::mem::take(&mut resolver.shown),
                }
            }
        }
    };
}

/// All keys.
pub fn all() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

keys! {
    /// The process itself.
    node: Node {
        /// The directory in which the node keeps everything: ledger, artifacts, snapshot, keys, sockets.
        data_dir: PathBuf = ".plinth", "0.1.0";
        /// The node's name in logs, in status and in the audit trail.
        name: String = "local", "0.1.0";
        /// What the node does.
        roles: Vec<Role> = "gateway,worker,controller", "0.1.0";
    }

    /// The addresses on which the node answers. An empty address turns that listener off.
    listen: Listen {
        /// The Open Inference Protocol, and the admin API unless `listen.admin` has its own address.
        http: SocketAddr = "127.0.0.1:8000", "0.1.0";
        /// The Open Inference Protocol over gRPC.
        grpc: Option<SocketAddr> = "127.0.0.1:8001", "0.1.0";
        /// Metrics for Prometheus.
        metrics: Option<SocketAddr> = "127.0.0.1:8002", "0.1.0";
        /// The admin API; empty: at `listen.http`.
        admin: Option<SocketAddr> = "", "0.1.0";
    }

    /// Encryption of the listeners `http`, `grpc` and `admin`. Files are read again when they change.
    tls: Tls {
        /// Files with certificate chains (PEM), one for each name; empty: no encryption.
        certificates: Vec<PathBuf> = "", "0.1.0";
        /// Files with their private keys (PEM), in the same order.
        keys: Vec<PathBuf> = "", "0.1.0";
        /// A file with the authorities (PEM) whose client certificates count; empty: none does.
        client_ca: Option<PathBuf> = "", "0.1.0";
        /// Whether clients without a certificate are refused.
        client_required: bool = "false", "0.1.0";
        /// How often the files are looked at.
        reload: Duration = "10s", "0.1.0";
    }

    /// Limits on connections and requests.
    http: Http {
        /// The most connections at a time on each listener; further ones are refused at once. Each needs a file descriptor.
        max_connections: u32 = "10000", "0.1.0";
        /// The most connections of one address, or of one IPv6 network of 64 bits.
        max_connections_per_client: u32 = "2048", "0.1.0";
        /// The bytes per second that a client must take at least of an answer that waits for it.
        write_min_rate: ByteSize = "1KiB", "0.1.0";
        /// How long the head of a request may take to arrive.
        header_timeout: Duration = "10s", "0.1.0";
        /// How long a connection may stay without a request.
        idle_timeout: Duration = "60s", "0.1.0";
        /// How long a client may take none of the bytes that wait for it.
        write_timeout: Duration = "30s", "0.1.0";
        /// The largest body of a request, also after decompression. Uploads of artifacts have no limit here.
        max_body: ByteSize = "64MiB", "0.1.0";
        /// The most memory for the bodies of all requests together.
        body_memory: ByteSize = "1GiB", "0.1.0";
        /// The largest head of a request.
        max_header_bytes: ByteSize = "16KiB", "0.1.0";
        /// The bytes per second below which a body counts as stuck, after ten seconds.
        body_min_rate: ByteSize = "1KiB", "0.1.0";
        /// How long a request may take when it sets no deadline of its own.
        request_timeout: Duration = "30s", "0.1.0";
        /// The name that the server metadata reports; clients that test for Triton want "triton".
        server_name: String = "plinth", "0.1.0";
        /// Further names that may stand in the Host header, besides the addresses themselves and localhost.
        allowed_hosts: Vec<String> = "", "0.1.0";
    }

    /// The gRPC listener; what is not here is as in `http`.
    grpc: Grpc {
        /// The largest message, also after decompression.
        max_message: ByteSize = "64MiB", "0.1.0";
        /// Whether clients may ask which services and messages there are.
        reflection: bool = "true", "0.1.0";
    }

    /// Tensors that clients on the same machine place in POSIX shared memory.
    shared_memory: SharedMemory {
        /// Whether clients may register regions. Whoever may register one reads and writes it with the node's rights.
        enabled: bool = "false", "0.1.0";
        /// What the name of a region must begin with, after the slash; empty: anything.
        prefix: String = "", "0.1.0";
        /// The most regions at a time.
        max_regions: u32 = "64", "0.1.0";
    }

    /// The ledger: models, versions, aliases, keys, audit.
    metadata: Metadata {
        /// A SQLite file (the default: `metadata.sqlite` in the data directory) or a PostgreSQL server.
        url: MetadataUrl = "sqlite:", "0.1.0";
    }

    /// The files of model versions.
    objects: Objects {
        /// A directory (the default: `objects` in the data directory) or an S3 bucket.
        url: ObjectsUrl = "file:", "0.1.0";
        /// The S3 service's address; empty: the one of the region.
        s3_endpoint: Option<String> = "", "0.1.0";
        /// The S3 region.
        s3_region: String = "us-east-1", "0.1.0";
        /// The S3 access key.
        s3_access_key: Option<Secret> = "", "0.1.0";
        /// The S3 secret key.
        s3_secret_key: Option<Secret> = "", "0.1.0";
        /// Whether the S3 service may be spoken to without TLS.
        s3_allow_http: bool = "false", "0.1.0";
    }

    /// Cached answers.
    cache: Cache {
        /// Where cached answers are kept: the node's own memory, or that and Redis behind it.
        url: CacheUrl = "memory:", "0.1.0";
        /// The most memory for cached answers in this node.
        memory: ByteSize = "256MiB", "0.1.0";
        /// How long an answer is kept when its deployment does not say.
        ttl: Duration = "5m", "0.1.0";
        /// How long Redis may take before the node goes on without it.
        timeout: Duration = "5ms", "0.1.0";
    }

    /// Limits on what callers may send; the limits themselves are plans.
    limits: Limits {
        /// Where nodes count together: each on its own, or in Redis. In Redis a tenant's limits hold for all nodes together.
        url: LimitsUrl = "local:", "0.1.0";
        /// How many nodes share the limits; while Redis is away each admits its share.
        nodes: u32 = "1", "0.1.0";
        /// How long Redis may take before the node lives on its share.
        timeout: Duration = "100ms", "0.1.0";
        /// The plan of tenants that name none; empty: they have no limits.
        default_plan: Option<String> = "", "0.1.0";
        /// Users and addresses whose own limits are counted at a time; the table of them grows to 22 bytes for each.
        users: u32 = "1000000", "0.1.0";
        /// Requests of one address that were refused within a second and begin a ban; 0: nobody is banned.
        ban_requests: u32 = "500", "0.1.0";
        /// How long the first ban of an address lasts; each further one twice as long.
        ban_time: Duration = "1m", "0.1.0";
        /// The longest ban.
        ban_longest: Duration = "1h", "0.1.0";
        /// Networks that are never banned, such as those of proxies and load generators.
        ban_exempt: Vec<String> = "127.0.0.0/8,::1", "0.1.0";
    }

    /// Forwarding to upstreams, and what the node does under load.
    gateway: Gateway {
        /// The largest body of a request that may be sent twice: to a fallback, to a shadow.
        replay_body: ByteSize = "1MiB", "0.1.0";
        /// The most memory for answers that are kept for fallbacks.
        answers: ByteSize = "64MiB", "0.1.0";
        /// No filter gets more processor time than this for one call, whatever it asks for.
        filter_time: Duration = "100ms", "0.1.0";
        /// No filter gets more memory than this for one call.
        filter_memory: ByteSize = "64MiB", "0.1.0";
        /// No filter is given a larger body than this.
        filter_body: ByteSize = "8MiB", "0.1.0";
        /// Whether overload switches things off, from background work to everything but critical requests.
        ladder: bool = "true", "0.1.0";
    }

    /// Work that outlives the request.
    jobs: Jobs {
        /// How many jobs run on this node at a time; 0: this node takes jobs and runs none.
        workers: u32 = "64", "0.1.0";
        /// How long a job is a worker's that is not heard of.
        lease: Duration = "15s", "0.1.0";
        /// How often a worker is heard of.
        heartbeat: Duration = "5s", "0.1.0";
        /// How often leases that ran out, schedules and retention are looked at.
        sweep: Duration = "2s", "0.1.0";
        /// How often the ledger is asked for jobs when nothing rings.
        poll: Duration = "1s", "0.1.0";
        /// How long one attempt may take that does not say.
        timeout: Duration = "10m", "0.1.0";
        /// The largest input of a job.
        max_input: ByteSize = "64MiB", "0.1.0";
        /// The largest result of a job.
        max_result: ByteSize = "256MiB", "0.1.0";
        /// What is larger is kept in the object store instead of the ledger.
        inline: ByteSize = "64KiB", "0.1.0";
        /// How long a job is kept after its end.
        keep: Duration = "72h", "0.1.0";
        /// How long an idempotency key is kept.
        keep_keys: Duration = "24h", "0.1.0";
        /// The most jobs of one tenant that wait.
        max_waiting: u32 = "2000000", "0.1.0";
        /// Networks that webhooks and HTTP kinds may reach besides public addresses, such as 10.0.0.0/8.
        allow: Vec<String> = "", "0.1.0";
    }

    /// How nodes hear of changes.
    bus: Bus {
        /// A NATS server whose rings wake other nodes at once; without one they look each `jobs.poll`. It keeps nothing.
        url: BusUrl = "local:", "0.1.0";
    }

    /// The file from which the node serves.
    snapshot: Snapshot {
        /// How often it is written even when nothing changed.
        interval: Duration = "5s", "0.1.0";
        /// How often the ledger is asked for changes.
        poll: Duration = "1s", "0.1.0";
    }

    /// How models are run.
    engine: Engine {
        /// The shared library of ONNX Runtime; empty: looked for in the usual places.
        onnxruntime: Option<PathBuf> = "", "0.1.0";
        /// The backends that may be started.
        backends: Vec<Backend> = "onnx,step", "0.1.0";
        /// Threads for one execution; 0: as many as the machine gives to this process.
        threads: u16 = "0", "0.1.0";
        /// The most memory for one runner on top of what it needs before it loads its model; empty: no limit.
        memory_limit: Option<ByteSize> = "4GiB", "0.1.0";
        /// The most requests that wait for one model.
        max_queue_requests: u32 = "1024", "0.1.0";
        /// The most bytes of requests that wait for one model.
        max_queue_bytes: ByteSize = "256MiB", "0.1.0";
        /// The address space for tensors that a runner shares with the node; memory is taken as it is used, and given back.
        shared_memory: ByteSize = "1GiB", "0.1.0";
        /// The most memory for all loaded models together, as measured; what is used least goes first. Empty: no limit.
        memory_budget: Option<ByteSize> = "", "0.1.0";
        /// What executes ONNX models unless their configuration says: "cpu", "cuda" or "tensorrt".
        provider: Provider = "cpu", "0.1.0";
        /// The programs that versions with a `process.toml` may start; empty: none.
        process_commands: Vec<PathBuf> = "", "0.1.0";
        /// How long loading and warming a model may take.
        load_timeout: Duration = "120s", "0.1.0";
        /// How long one execution may take; past it the runner is killed.
        execution_timeout: Duration = "30s", "0.1.0";
    }

    /// Which versions may be served.
    signing: Signing {
        /// Whether a version without a good signature is refused.
        require_signature: bool = "false", "0.1.0";
        /// Files with the public keys (PEM, NIST curves) whose signatures count.
        trusted_keys: Vec<PathBuf> = "", "0.1.0";
        /// Whether a signature counts that does not name the model and version, such as one made by other tools.
        accept_unbound: bool = "false", "0.1.0";
    }

    /// Who may call.
    auth: Auth {
        /// "keys": every request needs one. "open": none does; only on loopback addresses.
        mode: AuthMode = "keys", "0.1.0";
    }

    /// What is written to standard error.
    log: Log {
        /// error, warn, info, debug or trace; also for parts, such as "info,plinth_net=debug".
        level: String = "info", "0.1.0";
        /// How lines look.
        format: LogFormat = "auto", "0.1.0";
    }

    /// One line for each request that failed or was refused, and for a share of the others.
    access_log: AccessLog {
        /// Whether there are such lines.
        enabled: bool = "true", "0.1.0";
        /// How many of the requests that were answered well have a line.
        successes: Share = "1%", "0.1.0";
        /// The most lines of a second, for requests that were answered well and for the others each; what has no line is counted.
        lines: u32 = "200", "0.1.0";
        /// Whether lines name paths (without the query), or routes alone.
        paths: bool = "true", "0.1.0";
        /// A file for lines of JSON; empty: they stand in the node's log, as `plinth::access`.
        file: Option<PathBuf> = "", "0.1.0";
        /// How large the file becomes before it is put aside.
        file_size: ByteSize = "64MiB", "0.1.0";
        /// How many files that were put aside are kept.
        files: u32 = "4", "0.1.0";
    }

    /// Where requests stand in distributed traces (W3C Trace Context).
    trace: Trace {
        /// Whether callers' traces are continued; else each request begins one.
        accept: bool = "true", "0.1.0";
        /// How many requests are recorded, where no caller that has shown a key says whether.
        sample: Share = "1%", "0.1.0";
        /// The most requests of a second that are recorded because their callers say so.
        wishes: u32 = "100", "0.1.0";
    }

    /// How the node ends.
    shutdown: Shutdown {
        /// How long it goes on serving after it reported itself not ready; 5s behind a load balancer.
        lame_duck: Duration = "0s", "0.1.0";
        /// How long requests in flight may take after that.
        drain: Duration = "25s", "0.1.0";
    }

    /// Removal of files that no version needs.
    gc: Gc {
        /// How long a file stays after the last version that needed it is gone, or after it was uploaded for none.
        grace: Duration = "24h", "0.1.0";
    }

    /// For the project's own tests and measurements; never set these on a node that matters.
    testing: Testing {
        /// The crash point at which the process dies; empty: none.
        crash_point: Option<String> = "", "0.1.0";
        /// At which pass of the crash point it dies; 1 is the first.
        crash_pass: u32 = "1", "0.1.0";
        /// Counts and times requests; false only to measure what that costs.
        metrics: bool = "true", "0.1.0";
        /// The level of the ladder of degradation, 1 to 5, whatever the load is; 0: as measured.
        overload_level: u16 = "0", "0.1.0";
    }
}
