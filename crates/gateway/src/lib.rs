//! The request path as one visible, ordered list of steps.
//!
//! Outermost first; `net` has already taken the connection, read the head and bounded everything:
//!
//! 1. `request_id`, `trace`: first, so that every later line and answer can name the request.
//! 2. `record`, `access_log`: around all else, so that refusals are counted too, until the last byte has left.
//! 3. host: before anything reads the request, because a page that rebinds a name must learn nothing.
//! 4. route: found before the caller is known, because probes need no key; told only after.
//! 5. `limits::door`: addresses that are not let in, and bans, before anything costs more.
//! 6. `authenticate`: deny by default; only `Access::Public` and users' public routes pass without a key.
//! 7. users' routes (`routes`): found now, because they belong to a tenant.
//! 8. authorise: what the key allows against what the route demands.
//! 9. `limits::enter`: rates, caps and concurrency, held until the last byte of the answer.
//! 10. admit (`edge`, `overload`): whether the node's load lets this class of request in.
//! 11. handle: `api` translates and services work; or `dispatch` carries the request through its route's `filters` and to its
//!     target, with retries, hedging, breakers and balancing in `upstream`, and the answer back through the filters.
//! 12. `compression`, `answer`: what gets smaller, errors into their protocol's shape, and the headers that every answer carries.
//!
//! Invariant: no handler runs before 1–10 have passed. What credentials are worth and allow is `identity`'s to say.
#![warn(missing_docs)]

mod access_log;
mod answer;
mod authenticate;
mod compression;
mod dispatch;
mod edge;
mod filters;
mod gateway;
pub mod limits;
mod metrics;
mod overload;
mod record;
mod request_id;
mod routes;
mod trace;
pub mod upstream;

pub use access_log::{AccessLog, AccessLogOptions};
pub use authenticate::{Authentication, TENANT_HEADER};
pub use dispatch::{AnswersOptions, Dispatch, ShadowMetrics};
pub use edge::{CRITICALITY, Edge, criticality};
pub use filters::{FilterSource, Filters, Handle as FilterHandle};
pub use gateway::Gateway;
pub use limits::{Caller, Cost, Entry, LimitOptions, Limits, Networks, Refused, SharedLimits, client_address};
pub use metrics::MetricsService;
pub use overload::Overload;
pub use overload::gate::{Ask, Gate, Pass, Turned, Urgency, Why};
pub use routes::{Aliases, FilterSlots, RouteTable};
pub use trace::{TraceOptions, Tracing};
pub use upstream::{Upstreams, UpstreamsOptions};
