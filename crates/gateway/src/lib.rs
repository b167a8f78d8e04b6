//! The request path as one visible, ordered list of steps.
//!
//! Outermost first; `net` has already taken the connection, read the head and bounded everything:
//!
//! 1. `request_id`: first, so that every later line and answer can name the request.
//! 2. `record`: around all else, so that refusals are counted too, until the last byte has left.
//! 3. host: before anything reads the request, because a page that rebinds a name must learn nothing.
//! 4. route: found before the caller is known, because probes need no key; told only after.
//! 5. `authenticate`: deny by default; only `Access::Public` passes without a key.
//! 6. authorise: what the key allows against what the route demands.
//! 7. handle: `api` translates, services work. Later releases put limits, admission, routing, cache
//!    and retries between 6 and 7.
//! 8. `answer`: errors into their protocol's shape, and the headers that every answer carries.
//!
//! Invariant: no handler runs before 1–6 have passed. Deciding what a key may do is `identity`'s.
#![warn(missing_docs)]

mod answer;
mod authenticate;
mod gateway;
mod metrics;
mod record;
mod request_id;

pub use authenticate::Authentication;
pub use gateway::Gateway;
pub use metrics::MetricsService;
