//! The list of all metrics: each has its name, labels and meaning here and nowhere else.
//!
//! Names are `plinth_<part>_<what>_<unit>` in base units; counters end in `_total`. To add a metric,
//! add a line here; the snapshot test shows the new name for review.

use std::collections::BTreeSet;
use std::ops::Deref;

use plinth_types::Timestamp;

use crate::Histogram;
use crate::family::Family;
use crate::handles::BuildInfo;
use crate::metric::{Counter, Gauge, Metric, ResidentMemory, UpDownCounter};
use crate::process::ProcessSample;
use crate::text::{Labels, TextWriter};

/// The most label sets of a metric that counts by model.
const MODEL_LIMIT: usize = 1_000;

/// The most label sets of a metric that counts by model and outcome.
const OUTCOME_LIMIT: usize = 7 * MODEL_LIMIT;

/// The most label sets of a metric that counts by device.
const DEVICE_LIMIT: usize = 64;

/// The most label sets of a metric that counts by upstream.
const UPSTREAM_LIMIT: usize = 1_000;

/// The most label sets of a metric that counts by upstream and something else of which there are few.
const UPSTREAM_PART_LIMIT: usize = 10 * UPSTREAM_LIMIT;

/// The most label sets of a metric that counts by route or listener.
const ROUTE_LIMIT: usize = 1_000;

/// The most label sets of a metric that counts by kind of job.
const JOB_KIND_LIMIT: usize = 64;

/// A metric without labels.
#[derive(Default)]
pub struct Single<M>(M);

impl<M> Deref for Single<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M: Metric> Single<M> {
    fn silence(&mut self) {
        self.0 = M::off();
    }

    fn write(&self, out: &mut TextWriter, name: &str) {
        self.0.write(out, name, Labels::NONE);
    }
}

macro_rules! catalogue {
    ($( $(#[doc = $doc:literal])+ $field:ident: $ty:ty, $name:literal, $kind:expr, $make:expr; )*) => {
        /// Every metric of a node. One value for each process, shared by all.
        pub struct Catalogue {
            $( $(#[doc = $doc])+ pub $field: $ty, )*
            build: BuildInfo,
        }

        impl Catalogue {
            /// A catalogue in which everything is zero.
            #[must_use]
            pub fn new(build: BuildInfo) -> Self {
                let label_sets_refused = Single::<Counter>::default();
                let refused: &Counter = &label_sets_refused;
                Self { $( $field: ($make)(refused), )* build }.with_refused(label_sets_refused)
            }

            /// A catalogue that counts nothing and shows nothing of what it would have counted: to measure what counting costs.
            #[must_use]
            pub fn silent(build: BuildInfo) -> Self {
                let mut silent = Self::new(build);
                $( silent.$field.silence(); )*
                silent
            }

            fn write_declared(&self, out: &mut TextWriter) {
                $(
                    out.begin($name, $kind, concat!($($doc),+));
                    self.$field.write(out, $name);
                )*
            }
        }
    };
}

fn single<M: Default>(_: &Counter) -> Single<M> {
    Single::default()
}

fn family<M: Metric, const N: usize>(labels: [&'static str; N], limit: usize) -> impl FnOnce(&Counter) -> Family<M, N> {
    move |refused| Family::new(labels, limit, refused.clone())
}

const MODEL: [&str; 3] = ["tenant", "model", "version"];

const UPSTREAM: [&str; 2] = ["tenant", "upstream"];

/// The most label sets of a metric that counts by filter and outcome.
const FILTER_LIMIT: usize = 10 * ROUTE_LIMIT;

catalogue! {
    /// Requests answered, by route and class of status.
    http_requests: Family<Counter, 2>, "plinth_http_requests_total", Counter::KIND, family(["route", "status"], ROUTE_LIMIT);
    /// Time from a request's head to the last byte of its answer, by route.
    http_request_duration: Family<Histogram, 1>, "plinth_http_request_duration_seconds", Histogram::KIND, family(["route"], ROUTE_LIMIT);
    /// Requests in flight.
    http_requests_in_flight: Single<UpDownCounter>, "plinth_http_requests_in_flight", UpDownCounter::KIND, single;
    /// Handlers that panicked; each cost one request.
    http_panics: Single<Counter>, "plinth_http_panics_total", Counter::KIND, single;
    /// Connections taken, by listener.
    http_connections: Family<Counter, 1>, "plinth_http_connections_total", Counter::KIND, family(["listener"], ROUTE_LIMIT);
    /// Connections open, by listener.
    http_connections_open: Family<UpDownCounter, 1>, "plinth_http_connections_open", UpDownCounter::KIND, family(["listener"], ROUTE_LIMIT);
    /// Connections refused because there were too many, by listener.
    http_connections_refused: Family<Counter, 1>, "plinth_http_connections_refused_total", Counter::KIND, family(["listener"], ROUTE_LIMIT);
    /// Connections refused because their client had too many, by listener.
    http_connections_over_client_cap: Family<Counter, 1>, "plinth_http_connections_over_client_cap_total", Counter::KIND, family(["listener"], ROUTE_LIMIT);
    /// Connections without a whole request that were closed to make room for newer ones, by listener.
    http_connections_given_up: Family<Counter, 1>, "plinth_http_connections_given_up_total", Counter::KIND, family(["listener"], ROUTE_LIMIT);
    /// TLS handshakes that came to nothing, by listener.
    tls_handshake_failures: Family<Counter, 1>, "plinth_tls_handshake_failures_total", Counter::KIND, family(["listener"], ROUTE_LIMIT);
    /// Requests refused because their head was malformed or could be read in more than one way, by listener.
    http_malformed_heads: Family<Counter, 1>, "plinth_http_malformed_heads_total", Counter::KIND, family(["listener"], ROUTE_LIMIT);
    /// Connections closed because the peer was too slow or silent, by listener.
    http_connection_timeouts: Family<Counter, 1>, "plinth_http_connection_timeouts_total", Counter::KIND, family(["listener"], ROUTE_LIMIT);
    /// Failures of accept, such as too many open files, by listener.
    http_accept_errors: Family<Counter, 1>, "plinth_http_accept_errors_total", Counter::KIND, family(["listener"], ROUTE_LIMIT);
    /// Requests refused because their credentials were missing or bad.
    auth_refused: Single<Counter>, "plinth_auth_refused_total", Counter::KIND, single;
    /// Refusals that are missing in the log of refusals: too many at once, or it cannot be written.
    audit_refusals_lost: Single<Counter>, "plinth_audit_refusals_lost_total", Counter::KIND, single;
    /// Requests that should have a line in the access log and have none: too many in a second, or it cannot be written.
    access_log_dropped: Single<Counter>, "plinth_access_log_dropped_total", Counter::KIND, single;
    /// Requests refused by a limit or at the door, by reason.
    limits_refused: Family<Counter, 1>, "plinth_limits_refused_total", Counter::KIND, family(["reason"], 16);
    /// Bans of addresses that began.
    limits_bans: Single<Counter>, "plinth_limits_bans_total", Counter::KIND, single;
    /// Users and addresses that share a counter with another because the table of them is full.
    limits_shared_cells: Single<Counter>, "plinth_limits_shared_cells_total", Counter::KIND, single;
    /// Questions to the store that nodes share limits by, by outcome.
    limits_leases: Family<Counter, 1>, "plinth_limits_leases_total", Counter::KIND, family(["outcome"], 4);
    /// Whether that store is reached; 0 also where none is configured.
    limits_store_up: Single<Gauge>, "plinth_limits_store_up", Gauge::KIND, single;
    /// Inferences ended, by version and outcome.
    inference_requests: Family<Counter, 4>, "plinth_inference_requests_total", Counter::KIND, family(["tenant", "model", "version", "outcome"], OUTCOME_LIMIT);
    /// Time of an inference from its request read to its answer ready, by version.
    inference_duration: Family<Histogram, 3>, "plinth_inference_duration_seconds", Histogram::KIND, family(MODEL, MODEL_LIMIT);
    /// Inferences that wait or are executed, by version.
    inference_pending: Family<UpDownCounter, 3>, "plinth_inference_pending", UpDownCounter::KIND, family(MODEL, MODEL_LIMIT);
    /// Inferences refused because the queue of the version was full.
    inference_queue_full: Family<Counter, 3>, "plinth_inference_queue_full_total", Counter::KIND, family(MODEL, MODEL_LIMIT);
    /// Inferences answered from the response cache, by version.
    inference_cache_hits: Family<Counter, 3>, "plinth_inference_cache_hits_total", Counter::KIND, family(MODEL, MODEL_LIMIT);
    /// Inferences that were looked for in the response cache in vain, by version.
    inference_cache_misses: Family<Counter, 3>, "plinth_inference_cache_misses_total", Counter::KIND, family(MODEL, MODEL_LIMIT);
    /// Answers found in the response cache, by level.
    cache_hits: Family<Counter, 1>, "plinth_cache_hits_total", Counter::KIND, family(["level"], 2);
    /// Look-ups that no level of the response cache could answer.
    cache_misses: Single<Counter>, "plinth_cache_misses_total", Counter::KIND, single;
    /// Inferences that took the answer of the same inference in flight.
    cache_followers: Single<Counter>, "plinth_cache_followers_total", Counter::KIND, single;
    /// Answers in the memory of the response cache.
    cache_entries: Single<Gauge>, "plinth_cache_entries", Gauge::KIND, single;
    /// Memory that the response cache takes, keys and bookkeeping included.
    cache_memory: Single<Gauge>, "plinth_cache_memory_bytes", Gauge::KIND, single;
    /// Answers that left the memory of the response cache for want of room.
    cache_evictions: Single<Counter>, "plinth_cache_evictions_total", Counter::KIND, single;
    /// Whether the response cache reaches Redis; 0 also where none is configured.
    cache_redis_up: Single<Gauge>, "plinth_cache_redis_up", Gauge::KIND, single;
    /// What did not work with Redis, by cause.
    cache_redis_failures: Family<Counter, 1>, "plinth_cache_redis_failures_total", Counter::KIND, family(["cause"], 8);
    /// Model versions loaded.
    models_loaded: Single<Gauge>, "plinth_models_loaded", Gauge::KIND, single;
    /// The most memory for all loaded model versions together, by device; absent without a limit.
    memory_budget: Family<Gauge, 1>, "plinth_memory_budget_bytes", Gauge::KIND, family(["device"], DEVICE_LIMIT);
    /// Memory of all loaded model versions together, as measured, by device.
    memory_used: Family<Gauge, 1>, "plinth_memory_used_bytes", Gauge::KIND, family(["device"], DEVICE_LIMIT);
    /// Model versions unloaded by the node itself: for want of room, or because nobody asked for them.
    model_evictions: Family<Counter, 1>, "plinth_model_evictions_total", Counter::KIND, family(["why"], 2);
    /// Model versions loaded because a request came for them.
    model_loads_on_demand: Single<Counter>, "plinth_model_loads_on_demand_total", Counter::KIND, single;
    /// Requests that wait for a model version to be loaded.
    requests_parked: Single<UpDownCounter>, "plinth_requests_parked", UpDownCounter::KIND, single;
    /// Time from the start of a runner to the model being ready.
    model_load_duration: Single<Histogram>, "plinth_model_load_duration_seconds", Histogram::KIND, single;
    /// Model versions that could not be loaded.
    model_load_failures: Single<Counter>, "plinth_model_load_failures_total", Counter::KIND, single;
    /// Runners started again after one died, by version.
    runner_restarts: Family<Counter, 3>, "plinth_runner_restarts_total", Counter::KIND, family(MODEL, MODEL_LIMIT);
    /// Versions held back because their runners died too often.
    runner_quarantines: Single<Counter>, "plinth_runner_quarantines_total", Counter::KIND, single;
    /// Memory of a version's runner that is in RAM.
    runner_resident_memory: Family<ResidentMemory, 3>, "plinth_runner_resident_memory_bytes", ResidentMemory::KIND, family(MODEL, MODEL_LIMIT);
    /// Level of the ladder of degradation: 0 is normal, 5 refuses everything.
    overload_level: Single<Gauge>, "plinth_overload_level", Gauge::KIND, single;
    /// Copies of requests for shadows, by what became of them.
    shadow_requests: Family<Counter, 1>, "plinth_shadow_requests_total", Counter::KIND, family(["outcome"], 8);
    /// When the first of the node's certificates expires, in seconds since 1970; 0 without TLS.
    tls_certificate_expiry: Single<Gauge>, "plinth_tls_certificate_expiry_timestamp_seconds", Gauge::KIND, single;
    /// Requests for an upstream, by class of the status that its caller got.
    upstream_requests: Family<Counter, 3>, "plinth_upstream_requests_total", Counter::KIND, family(["tenant", "upstream", "status"], UPSTREAM_PART_LIMIT);
    /// Time from a request for an upstream to the head of the answer, all attempts included.
    upstream_duration: Family<Histogram, 2>, "plinth_upstream_duration_seconds", Histogram::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Attempts at an upstream, by how they ended.
    upstream_attempts: Family<Counter, 3>, "plinth_upstream_attempts_total", Counter::KIND, family(["tenant", "upstream", "outcome"], UPSTREAM_PART_LIMIT);
    /// Requests that were sent to an upstream once more after a failure.
    upstream_retries: Family<Counter, 2>, "plinth_upstream_retries_total", Counter::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Retries that the budget of an upstream did not allow.
    upstream_retries_refused: Family<Counter, 2>, "plinth_upstream_retries_refused_total", Counter::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Second copies that were sent to an upstream because the first was late.
    upstream_hedges: Family<Counter, 2>, "plinth_upstream_hedges_total", Counter::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Requests for an upstream that were not sent: no endpoint might be asked.
    upstream_refused: Family<Counter, 2>, "plinth_upstream_refused_total", Counter::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Ejections of endpoints of an upstream.
    upstream_ejections: Family<Counter, 2>, "plinth_upstream_ejections_total", Counter::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Endpoints of an upstream that are ejected now.
    upstream_ejected: Family<Gauge, 2>, "plinth_upstream_ejected", Gauge::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Endpoints of an upstream that are well: not ejected, breaker not open, checks not failing.
    upstream_ready: Family<Gauge, 2>, "plinth_upstream_ready", Gauge::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Breaker of an endpoint of an upstream: 0 closed, 1 degraded, 2 half-open, 3 open.
    upstream_breaker_state: Family<Gauge, 3>, "plinth_upstream_breaker_state", Gauge::KIND, family(["tenant", "upstream", "endpoint"], UPSTREAM_PART_LIMIT);
    /// Requests in flight at an upstream until their last byte, read each second.
    upstream_in_flight: Family<Gauge, 2>, "plinth_upstream_in_flight", Gauge::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Requests that wait for their turn at an upstream, read each second.
    upstream_waiting: Family<Gauge, 2>, "plinth_upstream_waiting", Gauge::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Requests that may be in flight at an upstream, as learned; 0 where that is off.
    upstream_limit: Family<Gauge, 2>, "plinth_upstream_limit", Gauge::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Connections to an upstream that are open.
    upstream_connections: Family<UpDownCounter, 2>, "plinth_upstream_connections", UpDownCounter::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Connections to an upstream that were made.
    upstream_connects: Family<Counter, 2>, "plinth_upstream_connects_total", Counter::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Attempts to connect to an upstream that failed.
    upstream_connect_failures: Family<Counter, 2>, "plinth_upstream_connect_failures_total", Counter::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Requests that went over a connection to an upstream that was there already.
    upstream_reused: Family<Counter, 2>, "plinth_upstream_reused_total", Counter::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Requests that were sent once more because the upstream had closed a kept connection.
    upstream_resent: Family<Counter, 2>, "plinth_upstream_resent_total", Counter::KIND, family(UPSTREAM, UPSTREAM_LIMIT);
    /// Calls of filters, by how they ended.
    filter_calls: Family<Counter, 3>, "plinth_filter_calls_total", Counter::KIND, family(["tenant", "filter", "outcome"], FILTER_LIMIT);
    /// Time of calls of filters.
    filter_duration: Family<Histogram, 2>, "plinth_filter_duration_seconds", Histogram::KIND, family(["tenant", "filter"], ROUTE_LIMIT);
    /// Versions of filters that are loaded.
    filters_loaded: Single<Gauge>, "plinth_filters_loaded", Gauge::KIND, single;
    /// Attempts to load a version of a filter that failed.
    filter_load_failures: Single<Counter>, "plinth_filter_load_failures_total", Counter::KIND, single;
    /// Jobs stored, by kind.
    jobs_submitted: Family<Counter, 1>, "plinth_jobs_submitted_total", Counter::KIND, family(["kind"], JOB_KIND_LIMIT);
    /// Attempts at jobs that ended on this node, by kind and outcome: succeeded, retried, dead, cancelled, released, fenced.
    jobs_attempts: Family<Counter, 2>, "plinth_jobs_attempts_total", Counter::KIND, family(["kind", "outcome"], 6 * JOB_KIND_LIMIT);
    /// Jobs that run on this node, by kind.
    jobs_running: Family<UpDownCounter, 1>, "plinth_jobs_running", UpDownCounter::KIND, family(["kind"], JOB_KIND_LIMIT);
    /// Time of an attempt at a job, by kind.
    jobs_run_duration: Family<Histogram, 1>, "plinth_jobs_run_duration_seconds", Histogram::KIND, family(["kind"], JOB_KIND_LIMIT);
    /// Time from a job's submission to its first start, by kind.
    jobs_wait_duration: Family<Histogram, 1>, "plinth_jobs_wait_duration_seconds", Histogram::KIND, family(["kind"], JOB_KIND_LIMIT);
    /// Jobs in the ledger that have not ended, by kind and state, as last counted.
    jobs_waiting: Family<Gauge, 2>, "plinth_jobs_waiting", Gauge::KIND, family(["kind", "state"], 4 * JOB_KIND_LIMIT);
    /// Dead letters in the ledger, by kind, as last counted.
    jobs_dead: Family<Gauge, 1>, "plinth_jobs_dead", Gauge::KIND, family(["kind"], JOB_KIND_LIMIT);
    /// Age of the oldest job that is ready and has not begun, by kind, as last counted.
    jobs_oldest_ready: Family<Gauge, 1>, "plinth_jobs_oldest_ready_seconds", Gauge::KIND, family(["kind"], JOB_KIND_LIMIT);
    /// Jobs that were taken back from a worker whose lease had run out.
    jobs_recovered: Single<Counter>, "plinth_jobs_recovered_total", Counter::KIND, single;
    /// Calls of the queue's database that failed.
    jobs_ledger_failures: Single<Counter>, "plinth_jobs_ledger_failures_total", Counter::KIND, single;
    /// Ticks of schedules that fired on this node.
    jobs_ticks: Single<Counter>, "plinth_jobs_schedule_ticks_total", Counter::KIND, single;
    /// Webhooks, by how an attempt ended: delivered, retried, gone.
    webhook_attempts: Family<Counter, 1>, "plinth_webhook_attempts_total", Counter::KIND, family(["outcome"], 4);
    /// Events acknowledged, by how: new, already, refused.
    events_appended: Family<Counter, 1>, "plinth_events_appended_total", Counter::KIND, family(["outcome"], 4);
    /// Revision of the ledger that the snapshot holds.
    snapshot_revision: Single<Gauge>, "plinth_snapshot_revision", Gauge::KIND, single;
    /// When the snapshot that is served was confirmed by the ledger, in seconds since 1970; 0: never.
    snapshot_time: Single<Gauge>, "plinth_snapshot_time_seconds", Gauge::KIND, single;
    /// Snapshots written.
    snapshot_written: Single<Counter>, "plinth_snapshot_written_total", Counter::KIND, single;
    /// Snapshots that could not be taken or written.
    snapshot_failures: Single<Counter>, "plinth_snapshot_failures_total", Counter::KIND, single;
    /// Look-ups of label sets over the limit, counted under "other" instead.
    label_sets_refused: Single<Counter>, "plinth_telemetry_label_sets_refused_total", Counter::KIND, single;
}

impl Catalogue {
    fn with_refused(self, label_sets_refused: Single<Counter>) -> Self {
        Self { label_sets_refused, ..self }
    }

    /// Everything in the text exposition format.
    ///
    /// Reads `/proc`; takes locks that only loading and unloading takes as well.
    #[must_use]
    pub fn render(&self, now: Timestamp) -> String {
        let mut out = TextWriter::default();
        self.write_declared(&mut out);
        self.write_snapshot_age(&mut out, now);
        out.begin("plinth_build_info", "gauge", "What this binary is; the value is always 1.");
        out.whole("plinth_build_info", Labels::new(&["version", "commit"], &[self.build.version, self.build.commit]), 1);
        ProcessSample::read().write(&mut out);
        out.finish()
    }

    #[allow(clippy::cast_precision_loss, reason = "samples are doubles in the exposition format")]
    fn write_snapshot_age(&self, out: &mut TextWriter, now: Timestamp) {
        let time = self.snapshot_time.value();
        out.begin("plinth_snapshot_age_seconds", "gauge", "Time since the snapshot that is served was confirmed by the ledger.");
        if time > 0.0 {
            out.real("plinth_snapshot_age_seconds", Labels::NONE, (now.millis() as f64 / 1000.0 - time).max(0.0));
        }
    }

    /// The names of all metrics, sorted.
    #[must_use]
    pub fn names(&self) -> BTreeSet<String> {
        let text = self.render(Timestamp::from(std::time::UNIX_EPOCH));
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exposition;
    use crate::handles::{ModelLabels, Outcome};
    use std::time::Duration;

    const BUILD: BuildInfo = BuildInfo { version: "0.1.0", commit: "unknown" };

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis).unwrap()
    }

    #[test]
    fn names_are_reviewed() {
        let names = Catalogue::new(BUILD).names();
        for line in &names {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(name.starts_with("plinth_"), "{name}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        }
        insta::assert_snapshot!(names.into_iter().collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn a_silent_catalogue_counts_nothing_and_works() {
        let catalogue = Catalogue::silent(BUILD);
        let model = catalogue.model(ModelLabels { tenant: "t", model: "digits", version: "2" });
        model.record(Outcome::Ok, Duration::from_millis(3));
        assert_eq!((model.count(Outcome::Ok), model.duration.count()), (0, 0));
        let route = catalogue.route("infer");
        route.record(200, Duration::from_millis(3));
        assert!(!route.is_on() && Catalogue::new(BUILD).route("infer").is_on());
        // What the node itself goes by is counted all the same.
        let held = model.pending.hold();
        model.memory.watch(std::process::id());
        assert!(model.pending.value() == 1 && model.memory.bytes() > 0);
        drop(held);
        let samples = exposition::parse(&catalogue.render(at(1))).unwrap();
        assert_eq!(samples.value("plinth_http_requests_total", &[("route", "infer"), ("status", "2xx")]), None);
    }

    #[test]
    fn the_text_is_well_formed_and_follows_what_was_counted() {
        let catalogue = Catalogue::new(BUILD);
        let labels = ModelLabels { tenant: "t\"1\\\n", model: "digits", version: "2" };
        let model = catalogue.model(labels);
        model.record(Outcome::Ok, Duration::from_millis(3));
        model.record(Outcome::Ok, Duration::from_secs(100));
        model.memory.watch(std::process::id());
        let pending = model.pending.hold();
        catalogue.route("infer").record(200, Duration::from_micros(50));
        catalogue.route("infer").record(799, Duration::from_micros(50));
        catalogue.listener("http").refused.inc();
        catalogue.snapshot_time.set(10.0);

        let samples = exposition::parse(&catalogue.render(at(12_500))).unwrap();
        let of = |name: &str, labels: &[(&str, &str)]| samples.value(name, labels);
        let by_model = [("tenant", "t\"1\\\n"), ("model", "digits"), ("version", "2")];
        assert_eq!(of("plinth_inference_requests_total", &[&by_model[..], &[("outcome", "ok")]].concat()), Some(2.0));
        assert_eq!(of("plinth_inference_duration_seconds_bucket", &[&by_model[..], &[("le", "0.005")]].concat()), Some(1.0));
        assert_eq!(of("plinth_inference_duration_seconds_sum", &by_model), Some(100.003));
        assert_eq!(of("plinth_inference_pending", &by_model), Some(1.0));
        assert!(of("plinth_runner_resident_memory_bytes", &by_model).unwrap() > 100_000.0);
        assert_eq!(of("plinth_http_requests_total", &[("route", "infer"), ("status", "2xx")]), Some(1.0));
        assert_eq!(of("plinth_http_requests_total", &[("route", "infer"), ("status", "5xx")]), Some(1.0));
        assert_eq!(of("plinth_http_connections_refused_total", &[("listener", "http")]), Some(1.0));
        assert_eq!(of("plinth_snapshot_age_seconds", &[]), Some(2.5));
        assert_eq!(of("plinth_build_info", &[("version", "0.1.0"), ("commit", "unknown")]), Some(1.0));

        drop(pending);
        catalogue.forget_model(labels);
        let samples = exposition::parse(&catalogue.render(at(0))).unwrap();
        assert!(!samples.iter().any(|sample| sample.labels.iter().any(|(_, value)| value == "digits")));
    }

    #[test]
    fn a_flood_of_models_is_bounded() {
        let catalogue = Catalogue::new(BUILD);
        for index in 0..MODEL_LIMIT + 50 {
            let name = format!("m{index}");
            catalogue.model(ModelLabels { tenant: "t", model: &name, version: "1" }).record(Outcome::Failed, Duration::ZERO);
        }
        assert_eq!(catalogue.inference_duration.len(), MODEL_LIMIT + 1);
        assert!(catalogue.label_sets_refused.value() >= 50);
        let samples = exposition::parse(&catalogue.render(at(0))).unwrap();
        let other = [("tenant", "other"), ("model", "other"), ("version", "other")];
        assert_eq!(samples.value("plinth_inference_duration_seconds_count", &other), Some(50.0));
    }
}
