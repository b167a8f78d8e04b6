//! The catalogue of metrics and the set-up of logs.
//!
//! Invariants: every metric is declared once, in [`catalogue`], and has a bounded number of label
//! sets; the request path holds handles and never looks one up; counting touches only cells of the
//! counting thread, which are added up at a scrape. Serving the text over HTTP is left to `net` and
//! the gateway; when to write a log line is for everybody to decide.
#![warn(missing_docs)]

pub mod catalogue;
#[cfg(any(test, feature = "testing"))]
pub mod exposition;
pub mod family;
pub mod handles;
pub mod histogram;
pub mod logs;
pub mod metric;
pub mod process;
pub mod text;

mod cells;

pub use catalogue::Catalogue;
pub use family::Family;
pub use handles::{
    BuildInfo, CacheMetrics, ConnectionMetrics, FilterMetrics, LimitMetrics, ModelLabels, ModelMetrics, Outcome, RedisFailure, RouteMetrics,
};
pub use histogram::Histogram;
pub use logs::{LogControl, LogFormat, LogSettings, LogSwitches, TRACE_TARGET, init_logs};
pub use metric::{Counter, Gauge, ResidentMemory, UpDownCounter, UpGuard};

/// What the scrape endpoint answers as its content type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
