//! The one error that crosses the edge of a service.
//!
//! Every failure that a user may see is an [`Error`]: a registered [`Reason`], whose closed
//! [`Class`] decides the status; a public text written for the caller; and a private diagnostic
//! for the log. Invariant: the public text never holds paths, addresses or secrets of the node, so
//! an edge may print it as it is. How an error looks on the wire is left to `api`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A result whose error may cross a service's edge.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it is; decides the status in every protocol. Closed on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Malformed, wrong shape, bad name: 400.
    InvalidArgument,
    /// No credentials, or bad ones: 401.
    Unauthenticated,
    /// Good credentials that do not allow this: 403.
    Forbidden,
    /// Absent, or another tenant's: 404.
    NotFound,
    /// Wrong verb: 405.
    MethodNotAllowed,
    /// The state does not allow it now; somebody else was first: 409.
    Conflict,
    /// Larger than a limit: 413.
    TooLarge,
    /// A content type or encoding that is not understood: 415.
    UnsupportedMedia,
    /// Well-formed, but its content does not hold (a digest, a signature): 422.
    Unprocessable,
    /// Over one's own limit: 429.
    OverQuota,
    /// A failure inside Plinth: 500.
    Internal,
    /// Part of the protocol that Plinth does not do: 501.
    Unimplemented,
    /// The runner broke the protocol or died: 502.
    RunnerFailed,
    /// Out of capacity, not ready, or a store is down: 503.
    Unavailable,
    /// The deadline passed: 504.
    DeadlineExceeded,
    /// The request has come round in a circle: 508.
    LoopDetected,
}

impl Class {
    /// The HTTP status of this class on native routes; dialects may map it further.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMedia => 415,
            Self::Unprocessable => 422,
            Self::OverQuota => 429,
            Self::Internal => 500,
            Self::Unimplemented => 501,
            Self::RunnerFailed => 502,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
            Self::LoopDetected => 508,
        }
    }

    /// Whether the same request may succeed later without anybody changing it.
    #[must_use]
    pub const fn retriable(self) -> bool {
        matches!(self, Self::OverQuota | Self::RunnerFailed | Self::Unavailable | Self::DeadlineExceeded)
    }
}

macro_rules! reasons {
    ($($variant:ident $slug:literal $class:ident $title:literal;)*) => {
        /// Why a request failed: a stable word for programs. Each has a page in `docs/errors/`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $(#[doc = $title] #[serde(rename = $slug)] $variant,)*
        }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable word, such as `model_not_found`.
            #[must_use]
            pub const fn slug(self) -> &'static str {
                match self { $(Self::$variant => $slug,)* }
            }

            /// The class, and with it the status.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)* }
            }

            /// A few words for people.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

reasons! {
    // The request itself.
    MalformedRequest "malformed_request" InvalidArgument "The request is malformed";
    InvalidName "invalid_name" InvalidArgument "A name, path or number is malformed";
    InvalidTensor "invalid_tensor" InvalidArgument "A tensor does not fit its description";
    UnknownTensor "unknown_tensor" InvalidArgument "A tensor is missing or unknown";
    NotRepresentable "not_representable" InvalidArgument "The value cannot be carried by the chosen encoding";
    BodyTooLarge "body_too_large" TooLarge "The body is larger than allowed";
    UnsupportedEncoding "unsupported_encoding" UnsupportedMedia "The content type or encoding is not understood";
    HostNotAllowed "host_not_allowed" Forbidden "The Host or Origin header names another place";
    RouteNotFound "route_not_found" NotFound "There is no such route";
    MethodNotAllowed "method_not_allowed" MethodNotAllowed "The route does not take this method";
    NotImplemented "not_implemented" Unimplemented "Plinth does not do this part of the protocol";
    // Who asks.
    CredentialsMissing "credentials_missing" Unauthenticated "The request carries no credentials";
    CredentialsInvalid "credentials_invalid" Unauthenticated "The credentials are not valid";
    NotPermitted "not_permitted" Forbidden "The key does not allow this";
    TenantSuspended "tenant_suspended" Forbidden "The tenant is suspended";
    IssuerUnavailable "issuer_unavailable" Unavailable "The issuer of the token cannot be asked for its keys";
    // Limits.
    RateLimited "rate_limited" OverQuota "A rate limit is used up";
    ConcurrencyLimited "concurrency_limited" OverQuota "Too many requests at a time";
    DailyCap "daily_cap" OverQuota "The cap of the day is used up";
    CostAboveLimit "cost_above_limit" TooLarge "The request costs more than its limit ever allows";
    AddressNotAllowed "address_not_allowed" Forbidden "The address is not let in";
    AddressBanned "address_banned" OverQuota "The address is banned for a while";
    // Registry.
    ModelNotFound "model_not_found" NotFound "The model does not exist";
    VersionNotFound "version_not_found" NotFound "The version does not exist";
    AliasNotFound "alias_not_found" NotFound "The alias does not exist";
    BlobNotFound "blob_not_found" NotFound "The file content was not uploaded";
    RecordNotFound "record_not_found" NotFound "The resource does not exist";
    VersionRetired "version_retired" Conflict "The version is retired";
    VersionInUse "version_in_use" Conflict "The version is served or pinned";
    ResourceInUse "resource_in_use" Conflict "Another resource needs it";
    AlreadyExists "already_exists" Conflict "It exists already, and differs";
    EditConflict "edit_conflict" Conflict "Somebody else changed it first";
    NothingToRollBack "nothing_to_roll_back" Conflict "There is no earlier version to go back to";
    DigestMismatch "digest_mismatch" Unprocessable "The bytes do not have the announced digest";
    InvalidResource "invalid_resource" Unprocessable "The resource does not hold together";
    UploadIncomplete "upload_incomplete" InvalidArgument "The upload ended before its announced length";
    // Trust.
    SignatureMissing "signature_missing" Unprocessable "The version is not signed";
    SignatureInvalid "signature_invalid" Unprocessable "The signature does not hold";
    SignerNotTrusted "signer_not_trusted" Unprocessable "The signer is not trusted";
    ContentAltered "content_altered" Unprocessable "The files are not the ones that were signed";
    DowngradeRefused "downgrade_refused" Unprocessable "An older version may not replace a newer one unsigned";
    // Serving.
    ModelNotReady "model_not_ready" Unavailable "The model is not ready";
    ModelLoadFailed "model_load_failed" Unprocessable "The model cannot be loaded";
    ModelQuarantined "model_quarantined" Unavailable "The version crashed too often and is held back";
    ModelExecutionFailed "model_execution_failed" Internal "The model failed on this input";
    RunnerCrashed "runner_crashed" RunnerFailed "The runner died while it held the request";
    RunnerBrokeProtocol "runner_broke_protocol" RunnerFailed "The runner answered something else than the model promises";
    QueueFull "queue_full" Unavailable "The model's queue is full";
    DeadlineExceeded "deadline_exceeded" DeadlineExceeded "The deadline passed";
    InputRefused "input_refused" Unprocessable "This input has crashed the model before";
    InvalidSequence "invalid_sequence" InvalidArgument "The request does not fit its sequence";
    InvalidSharedMemory "invalid_shared_memory" InvalidArgument "The shared memory region cannot be used";
    SharedMemoryNotFound "shared_memory_not_found" NotFound "The shared memory region is not registered";
    // Upstreams and limits.
    UpstreamUnavailable "upstream_unavailable" Unavailable "The upstream takes no requests now";
    UpstreamFailed "upstream_failed" RunnerFailed "The upstream failed";
    UpstreamTimeout "upstream_timeout" DeadlineExceeded "The upstream did not answer in time";
    UpstreamRefused "upstream_refused" RunnerFailed "The upstream is at an address that may not be reached";
    RouteLoop "route_loop" LoopDetected "The request has passed too many gateways";
    // Filters.
    InvalidFilter "invalid_filter" Unprocessable "The module is no filter that this node can run";
    FilterFailed "filter_failed" RunnerFailed "A filter of the route failed on the request";
    FilterUnavailable "filter_unavailable" Unavailable "A filter of the route is not ready";
    // Jobs and events.
    JobNotFound "job_not_found" NotFound "The job does not exist";
    JobKindUnknown "job_kind_unknown" Unprocessable "There is no such kind of job";
    JobFinished "job_finished" Conflict "The job has ended";
    JobCancelled "job_cancelled" Conflict "The job was cancelled";
    JobTimeout "job_timeout" DeadlineExceeded "The job took longer than it may";
    JobsLimited "jobs_limited" OverQuota "Too many jobs are waiting";
    WorkerLost "worker_lost" RunnerFailed "The worker died while it held the job";
    DependencyFailed "dependency_failed" Conflict "A job that this one waits for has failed";
    DependencyCycle "dependency_cycle" Unprocessable "The jobs wait for each other in a circle";
    ResultTooLarge "result_too_large" Unprocessable "The result is larger than a job may keep";
    IdempotencyKeyInvalid "idempotency_key_invalid" InvalidArgument "The idempotency key is missing or malformed";
    IdempotencyKeyReused "idempotency_key_reused" Unprocessable "The idempotency key was used for another request";
    IdempotencyKeyInUse "idempotency_key_in_use" Conflict "A request with this idempotency key is under way";
    InvalidSchedule "invalid_schedule" Unprocessable "The schedule does not hold together";
    WebhookRefused "webhook_refused" Unprocessable "The webhook's address may not be called";
    WebhookFailed "webhook_failed" RunnerFailed "The webhook's receiver failed";
    InvalidRow "invalid_row" Unprocessable "A row of the batch cannot be used";
    // The node.
    ShuttingDown "shutting_down" Unavailable "The node is shutting down";
    OverCapacity "over_capacity" Unavailable "The node is at its capacity";
    StoreUnavailable "store_unavailable" Unavailable "A store cannot be reached";
    StorageFull "storage_full" Unavailable "The storage is full";
    LedgerDiverged "ledger_diverged" Conflict "The database is not the one that this node has served from";
    StoreTooNew "store_too_new" Unavailable "The store was written by a newer release";
    Internal "internal" Internal "Something failed inside Plinth";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.slug())
    }
}

/// A failure that may cross the edge of a service.
///
/// `Display` gives the public text alone; the diagnostic and the source are for the log.
pub struct Error(Box<Parts>);

/// One of several things that are wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The part of the request, such as `resources[2].spec.targets`.
    pub field: String,
    /// The registered reason.
    pub reason: Reason,
    /// What is wrong, for the caller.
    pub text: String,
}

struct Parts {
    reason: Reason,
    public: String,
    field: Option<String>,
    flaws: Vec<Flaw>,
    diagnostic: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with a text for the caller: what is wrong and what to do next.
    pub fn new(reason: Reason, public: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            reason,
            public: public.into(),
            field: None,
            flaws: Vec::new(),
            diagnostic: None,
            retry_after: None,
            source: None,
        }))
    }

    /// A failure inside Plinth. The caller sees a fixed text; the diagnostic goes to the log.
    pub fn internal(diagnostic: impl Into<String>) -> Self {
        Self::new(Reason::Internal, "something failed inside the server; the log has the request id and the cause").diagnostic(diagnostic)
    }

    /// Names the part of the request that is wrong, such as `inputs[0].shape`.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Lists all that is wrong with the request, where there is more than one thing.
    #[must_use]
    pub fn flaws(mut self, flaws: Vec<Flaw>) -> Self {
        self.0.flaws = flaws;
        self
    }

    /// Adds what the log should know and the caller should not.
    #[must_use]
    pub fn diagnostic(mut self, diagnostic: impl Into<String>) -> Self {
        self.0.diagnostic = Some(diagnostic.into());
        self
    }

    /// Says when a retry could help.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Keeps the error that caused this one.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The registered reason.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The class of the reason.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.0.reason.class()
    }

    /// The text for the caller.
    #[must_use]
    pub fn public_text(&self) -> &str {
        &self.0.public
    }

    /// The part of the request that is wrong.
    #[must_use]
    pub fn field_name(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// All that is wrong with the request, when that was listed.
    #[must_use]
    pub fn flaw_list(&self) -> &[Flaw] {
        &self.0.flaws
    }

    /// When a retry could help; `None` leaves it to the class.
    #[must_use]
    pub const fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Everything that the log should know: diagnostic and the chain of sources.
    #[must_use]
    pub fn log_text(&self) -> String {
        let mut text = self.0.diagnostic.clone().unwrap_or_default();
        let mut source = self.0.source.as_deref().map(|e| e as &dyn std::error::Error);
        while let Some(error) = source {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.public)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.0.reason, self.0.public, self.log_text())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn slugs_are_unique_and_plain() {
        let slugs: BTreeSet<_> = Reason::ALL.iter().map(|r| r.slug()).collect();
        assert_eq!(slugs.len(), Reason::ALL.len());
        assert!(slugs.iter().all(|s| s.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    #[test]
    fn the_public_text_hides_the_diagnostic() {
        let cause = std::io::Error::other("disk /var/lib/x is gone");
        let error = Error::internal("write of blob").source(cause);
        assert!(!error.to_string().contains("/var"));
        assert_eq!(error.log_text(), "write of blob: disk /var/lib/x is gone");
        assert_eq!(error.class().status(), 500);
    }
}
