//! The records of the gateway: plans, routes, upstreams, issuers of tokens, filters.
//!
//! They say what users wish, in the words of their files: texts and numbers, not yet compiled. `registry` refuses what
//! makes no sense before it is stored; `gateway` compiles what it reads into its tables, and leaves out with a warning
//! what it cannot. Every field but a record's purpose has a default, so that a short file says enough.
//!
//! Whose they are: a tenant's own, but for plans and issuers, which the operator of the whole keeps in the default tenant.

mod builtin;
pub mod filter;

use std::collections::BTreeMap;

use plinth_types::{AliasName, Label, ModelName, TenantName, VersionNumber};
use serde::{Deserialize, Serialize};

pub use builtin::{BUILTIN_PLANS, builtin_plan, builtin_plans};
pub use filter::{FilterRecord, FilterRef, FilterSettings, FilterVersion, OnFilterError};

/// How urgent a request is. Overload refuses from the bottom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum CriticalityWord {
    /// Prefetches and replays: first to go.
    Background,
    /// Batches and free use.
    Sheddable,
    /// What says nothing else.
    #[default]
    Default,
    /// Somebody waits and pays for it: last to go.
    Critical,
}

/// What the requests of a tenant may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRecord {
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// Its rates and caps; all of them hold.
    #[serde(default)]
    pub limits: Vec<LimitSpec>,
    /// The most requests of the tenant at a time.
    #[serde(default)]
    pub concurrency: Option<u32>,
    /// The urgency of requests that do not say theirs.
    #[serde(default)]
    pub criticality: CriticalityWord,
    /// The most that a request may say; `criticality` when `None`.
    #[serde(default)]
    pub max_criticality: Option<CriticalityWord>,
    /// The tenant's share against others under overload.
    #[serde(default = "one")]
    pub weight: u32,
}

const fn one() -> u32 {
    1
}

impl Default for PlanRecord {
    fn default() -> Self {
        Self {
            description: String::new(),
            limits: Vec::new(),
            concurrency: None,
            criticality: CriticalityWord::Default,
            max_criticality: None,
            weight: 1,
        }
    }
}

/// One limit of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSpec {
    /// Its name in answers and metrics.
    pub name: Label,
    /// Who has one of his own.
    #[serde(default)]
    pub scope: LimitScope,
    /// What is counted.
    #[serde(default)]
    pub counts: Counted,
    /// Only requests of this operation (`infer`, `generate`, `admin`, or a route's own word); all when `None`.
    #[serde(default)]
    pub operation: Option<Label>,
    /// How much: `10/s`, `10/minute`, `5000/day`.
    pub rate: String,
    /// How much at once; twice a second's worth, at least 1, when `None`.
    #[serde(default)]
    pub burst: Option<u64>,
}

/// Who has a limit of his own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// The tenant as a whole.
    #[default]
    Tenant,
    /// Each key, or each user of a token.
    User,
    /// Each address.
    Address,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// Requests.
    #[default]
    Requests,
    /// Cost units: reserved on the way in, settled at the end.
    Cost,
}

/// A service outside of Plinth to which requests are forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamRecord {
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// Where it is.
    pub endpoints: Vec<EndpointSpec>,
    /// How one of them is chosen.
    #[serde(default)]
    pub balance: BalanceWord,
    /// Networks in CIDR notation that its names may resolve to although they are private.
    #[serde(default)]
    pub allow_networks: Vec<String>,
    /// For connecting to it, in milliseconds.
    #[serde(default)]
    pub connect_timeout_ms: Option<u32>,
    /// Until the head of its answer, in milliseconds.
    #[serde(default)]
    pub response_timeout_ms: Option<u32>,
    /// Between two pieces of its answer, in milliseconds.
    #[serde(default)]
    pub idle_timeout_ms: Option<u32>,
    /// The most connections to one endpoint.
    #[serde(default)]
    pub max_connections: Option<u32>,
    /// The breaker of each endpoint; on with its defaults when `None`.
    #[serde(default)]
    pub breaker: Option<BreakerSpec>,
    /// The most attempts of one request, the first included; 2 when `None`, 1 for none after the first.
    #[serde(default)]
    pub attempts: Option<u32>,
    /// Whether a second copy of an idempotent request may be sent when the first is late.
    #[serde(default)]
    pub hedge: bool,
    /// Whether every request may be carried out twice, as inference may; else those whose method says so and those with an `Idempotency-Key`.
    #[serde(default)]
    pub idempotent: bool,
    /// Whether the requests at a time are limited by what is learned of its speed.
    #[serde(default = "yes")]
    pub adaptive_concurrency: bool,
    /// A request that says whether an endpoint is well.
    #[serde(default)]
    pub health: Option<HealthSpec>,
}

const fn yes() -> bool {
    true
}

/// One place of an upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// `http://host:port`, `https://…`, and `h2c://…` for HTTP/2 (also gRPC) without TLS; a path comes before each request's.
    pub url: String,
    /// Its share.
    #[serde(default = "one")]
    pub weight: u32,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BalanceWord {
    /// The better of two random ones, by peak latency and requests in flight.
    #[default]
    LeastLoaded,
    /// The same key goes to the same endpoint while that has room.
    Sticky(StickyKey),
}

/// What a request is recognised by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StickyKey {
    /// The value of a header.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The tenant.
    Tenant,
    /// The key or the user of a token.
    User,
    /// The address.
    Address,
}

/// When an endpoint is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerSpec {
    /// Whether it is on.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The share of failures, in percent, from which on it is open; 50 when `None`.
    #[serde(default)]
    pub failure_percent: Option<u8>,
    /// An answer that takes longer counts as slow, in milliseconds.
    #[serde(default)]
    pub slow_ms: Option<u32>,
    /// For how long it is open at first, in milliseconds; 5000 when `None`.
    #[serde(default)]
    pub open_ms: Option<u32>,
}

/// How endpoints are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthSpec {
    /// The path of the request.
    pub path: String,
    /// How often, in seconds; 10 when `None`.
    #[serde(default)]
    pub interval_seconds: Option<u32>,
}

/// How requests find what answers them. All parts of `matches` must hold; of several routes the one with the highest
/// `priority` is taken, then the one with the longest path, then the first by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteRecord {
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// Before others with a lower one.
    #[serde(default)]
    pub priority: i32,
    /// Which requests.
    #[serde(default)]
    pub matches: MatchSpec,
    /// Who may use it.
    #[serde(default)]
    pub access: RouteAccess,
    /// What answers, by weight.
    pub targets: Vec<TargetSpec>,
    /// Rules that send some requests to one of `targets` by its name, before weights are looked at.
    #[serde(default)]
    pub pins: Vec<PinSpec>,
    /// By what the same caller gets the same target; chance when `None`.
    #[serde(default)]
    pub sticky: Option<StickyKey>,
    /// Where copies of requests go whose answers nobody gets.
    #[serde(default)]
    pub shadow: Option<ShadowSpec>,
    /// How the path is changed on its way to an upstream.
    #[serde(default)]
    pub rewrite: Option<RewriteSpec>,
    /// Changes of the request's headers.
    #[serde(default)]
    pub request_headers: HeaderChanges,
    /// Changes of the answer's headers.
    #[serde(default)]
    pub response_headers: HeaderChanges,
    /// For the whole of a request, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u32>,
    /// Whether its requests may be carried out twice whatever their method, so that an upstream may be asked again; when `None`: yes where a
    /// model is among the targets, else as the upstream says.
    #[serde(default)]
    pub idempotent: Option<bool>,
    /// What answers when the target cannot, in this order.
    #[serde(default)]
    pub fallbacks: Vec<FallbackSpec>,
    /// What is done instead when the node is under load.
    #[serde(default)]
    pub degrade: Vec<DegradeSpec>,
    /// Filters that its requests pass in this order, and its answers in the reverse one.
    #[serde(default)]
    pub filters: Vec<FilterRef>,
    /// The word by which limits know its requests; `proxy` for upstreams and `infer` for models when `None`.
    #[serde(default)]
    pub operation: Option<Label>,
    /// What one request costs.
    #[serde(default)]
    pub cost: CostSpec,
    /// The urgency of its requests, where neither they nor their tenant's plan say less.
    #[serde(default)]
    pub criticality: Option<CriticalityWord>,
    /// Which pages of other origins may use it.
    #[serde(default)]
    pub cors: Option<CorsSpec>,
    /// Which answers are compressed: all that get smaller by it, none, or those of the content types; when `None`: yes where only models answer.
    #[serde(default)]
    pub compression: Option<CompressionSpec>,
}

/// Which answers are compressed for callers that take it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CompressionSpec {
    /// Those of the usual types, or none.
    Switch(bool),
    /// Those of these content types, `application/json` or `text/*`.
    Types(Vec<String>),
}

/// Which requests a route is for. An empty list is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchSpec {
    /// Hosts without port, or `*.` and a domain.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The path; any when `None`.
    #[serde(default)]
    pub path: Option<TextMatch>,
    /// Methods.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Headers; all must hold.
    #[serde(default)]
    pub headers: Vec<HeaderMatch>,
    /// Tenants.
    #[serde(default)]
    pub tenants: Vec<TenantName>,
    /// Models, for requests of the Open Inference Protocol.
    #[serde(default)]
    pub models: Vec<ModelName>,
}

/// How a text is compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TextMatch {
    /// It is this.
    Exact(String),
    /// It begins with this; of a path, whole segments.
    Prefix(String),
    /// It matches this regular expression as a whole.
    Regex(String),
}

/// A condition on a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// Its name.
    pub name: String,
    /// What it says; being there is enough when `None`.
    #[serde(default)]
    pub value: Option<TextMatch>,
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum RouteAccess {
    /// Keys of its tenant that may use models.
    #[default]
    Infer,
    /// Everybody, without a key. Only routes of the default tenant.
    Public,
}

/// One of the answerers of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// Its name in metrics, headers and pins; what it is when `None`.
    #[serde(default)]
    pub name: Option<Label>,
    /// Its share.
    #[serde(default = "one")]
    pub weight: u32,
    /// What it is.
    pub to: Target,
}

/// What can answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    /// A model of the same tenant on this node.
    Model(ModelTarget),
    /// An upstream of the same tenant, or of the default tenant.
    Upstream(Label),
}

/// A model, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelTarget {
    /// The model; the one that the request names when `None`.
    #[serde(default)]
    pub name: Option<ModelName>,
    /// The version to which this alias points.
    #[serde(default)]
    pub alias: Option<AliasName>,
    /// This version.
    #[serde(default)]
    pub version: Option<VersionNumber>,
}

/// Sends some requests to one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinSpec {
    /// The name of the target.
    pub target: Label,
    /// Requests with this header.
    #[serde(default)]
    pub header: Option<HeaderMatch>,
    /// Requests with this cookie and value.
    #[serde(default)]
    pub cookie: Option<(String, String)>,
    /// Requests of this tenant.
    #[serde(default)]
    pub tenant: Option<TenantName>,
}

/// Copies requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowSpec {
    /// Where to.
    pub to: Target,
    /// How many of a hundred.
    #[serde(default = "hundred")]
    pub percent: f64,
    /// Whether the answers are compared and differences counted.
    #[serde(default = "yes")]
    pub compare: bool,
}

const fn hundred() -> f64 {
    100.0
}

/// Changes a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RewriteSpec {
    /// Replaces the prefix that the route has matched.
    Prefix(String),
    /// Replaces what matches a regular expression; `$1` stands for its first group.
    Regex {
        /// The expression.
        pattern: String,
        /// What comes in its place.
        replacement: String,
    },
}

/// Changes of headers, in the order remove, set, add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderChanges {
    /// Taken away.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Put in place of what is there.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Put beside what is there.
    #[serde(default)]
    pub add: BTreeMap<String, String>,
}

/// What answers instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FallbackSpec {
    /// A model.
    Model(ModelTarget),
    /// An upstream.
    Upstream(Label),
    /// The newest good answer to the same request, at most so many seconds old.
    Cached {
        /// Its age.
        max_age_seconds: u32,
    },
    /// Always the same.
    Static {
        /// The status.
        #[serde(default = "ok")]
        status: u16,
        /// The content type.
        #[serde(default = "json_type")]
        content_type: String,
        /// The body.
        body: String,
    },
}

const fn ok() -> u16 {
    200
}

fn json_type() -> String {
    "application/json".to_owned()
}

/// What is done from a level of load on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DegradeSpec {
    /// The level of the ladder, 1 to 4.
    pub level: u8,
    /// Another model answers.
    #[serde(default)]
    pub model: Option<ModelTarget>,
    /// Parameters of the request are set to these, such as a lower resolution.
    #[serde(default)]
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// A cached answer of at most so many seconds is given, where there is one.
    #[serde(default)]
    pub stale_seconds: Option<u32>,
    /// The inference becomes a job, and its caller gets 202 with the place where the answer will be.
    #[serde(default)]
    pub asynchronous: bool,
}

/// What a request costs, in units of one's own choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostSpec {
    /// Each request.
    #[serde(default = "one")]
    pub fixed: u32,
    /// Each millisecond until the last byte; settled at the end.
    #[serde(default)]
    pub per_millisecond: u32,
    /// Each KiB of the request's body.
    #[serde(default)]
    pub per_kib: u32,
    /// What is reserved on the way in for what is only known at the end.
    #[serde(default)]
    pub reserve: u32,
}

impl Default for CostSpec {
    fn default() -> Self {
        Self { fixed: 1, per_millisecond: 0, per_kib: 0, reserve: 0 }
    }
}

/// Which pages of other origins may use a route (the CORS protocol of the Fetch standard).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsSpec {
    /// Origins such as `https://app.example`, or `*` for all.
    pub origins: Vec<String>,
    /// Methods; those of the route when empty.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Request headers that a page may set.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Answer headers that a page may read.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Whether a browser sends cookies along; not together with `*`.
    #[serde(default)]
    pub credentials: bool,
    /// For how many seconds a browser remembers the answer; 600 when `None`.
    #[serde(default)]
    pub max_age_seconds: Option<u32>,
}

/// Who issues tokens that are accepted (OpenID Connect, or any JWKS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerRecord {
    /// A word for people.
    #[serde(default)]
    pub description: String,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// One of the `aud` that its tokens must have.
    pub audiences: Vec<String>,
    /// Where its keys are; found through `issuer`/.well-known/openid-configuration when `None`.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// Networks in CIDR notation that its name may resolve to although they are private.
    #[serde(default)]
    pub allow_networks: Vec<String>,
    /// The claim that names the tenant; all its tokens belong to `tenant` when `None`.
    #[serde(default)]
    pub tenant_claim: Option<String>,
    /// The tenant of tokens without the claim; they are refused when `None`.
    #[serde(default)]
    pub tenant: Option<TenantName>,
    /// The claim that lists roles, such as `roles` or `realm_access.roles`.
    #[serde(default)]
    pub roles_claim: Option<String>,
    /// Which of its words mean which role.
    #[serde(default)]
    pub roles: BTreeMap<String, super::Role>,
    /// The role of tokens with no word that is known; they are refused when `None`.
    #[serde(default)]
    pub default_role: Option<super::Role>,
}

/// What the operator allows and forbids by address. One record, name `addresses`, in the default tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressesRecord {
    /// Networks in CIDR notation that are let in; all when empty.
    #[serde(default)]
    pub allow: Vec<String>,
    /// Networks that are not; stronger than `allow`.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Proxies in front whose `X-Forwarded-For` is believed.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
}
