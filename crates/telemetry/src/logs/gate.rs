//! Which events pass: what was configured, and the switches that were moved since.
//!
//! Invariants: a switch that stands where the configuration put it changes nothing; a level that is switched off passes
//! nowhere; a level that is switched on passes for everybody, the verbose ones for this program's own targets alone, because
//! the depths of a library drown everything else. Records of traces always pass: their own settings turn them on. Spans are
//! left as configured, so that events keep their context.

use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber, span};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::control::LogSwitches;

/// The target of records that trace settings ask for.
pub const TRACE_TARGET: &str = "plinth::trace";

/// What this program's own targets begin with.
const OURS: &str = "plinth";
/// The compiler of filters tells of each step of each function at `debug`: thousands of lines for a module.
const QUIET: [&str; 3] = ["cranelift", "regalloc2", "wasmtime"];

pub struct Gate {
    configured: EnvFilter,
    first: LogSwitches,
    now: LogSwitches,
    /// Whether the compiler of filters tells its warnings alone: unless its targets are named.
    quiet: bool,
}

/// What the switches say of an event.
enum Say {
    Pass,
    Hold,
    AsConfigured,
}

impl Gate {
    pub fn new(level: &str) -> Result<Self, ParseError> {
        let configured = EnvFilter::builder().parse(level)?;
        let quiet = !QUIET.iter().any(|target| level.contains(target));
        let most = configured.max_level_hint().unwrap_or(LevelFilter::TRACE);
        let first = LogSwitches {
            error: most >= Level::ERROR,
            warning: most >= Level::WARN,
            info: most >= Level::INFO,
            verbose: u32::from(most >= Level::DEBUG) + u32::from(most >= Level::TRACE),
            whole_time: false,
        };
        Ok(Self { configured, first, now: first, quiet })
    }

    pub const fn switches(&self) -> LogSwitches {
        self.now
    }

    pub fn set(&mut self, switches: LogSwitches) {
        self.now = switches;
    }

    fn say(&self, metadata: &Metadata<'_>) -> Say {
        if !metadata.is_event() {
            return Say::AsConfigured;
        }
        if metadata.target() == TRACE_TARGET {
            return Say::Pass;
        }
        let level = metadata.level();
        if self.quiet && *level > Level::WARN && QUIET.iter().any(|target| metadata.target().starts_with(target)) {
            return Say::Hold;
        }
        match (self.first.passes(level), self.now.passes(level)) {
            (_, false) => Say::Hold,
            (false, true) if *level <= Level::INFO || metadata.target().starts_with(OURS) => Say::Pass,
            _ => Say::AsConfigured,
        }
    }
}

impl<S> Layer<S> for Gate
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.say(metadata) {
            Say::Pass => Interest::always(),
            Say::Hold => Interest::never(),
            Say::AsConfigured => Layer::<S>::register_callsite(&self.configured, metadata),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        match self.say(metadata) {
            Say::Pass => true,
            Say::Hold => false,
            Say::AsConfigured => Layer::<S>::enabled(&self.configured, metadata, context),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let now = match self.now.verbose {
            0 => LevelFilter::INFO,
            1 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        // Spans stay as configured, and records of traces are at INFO.
        Layer::<S>::max_level_hint(&self.configured).map(|configured| configured.max(now))
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        Layer::<S>::on_new_span(&self.configured, attributes, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        Layer::<S>::on_record(&self.configured, id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        Layer::<S>::on_event(&self.configured, event, context);
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        Layer::<S>::on_enter(&self.configured, id, context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        Layer::<S>::on_exit(&self.configured, id, context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        Layer::<S>::on_close(&self.configured, id, context);
    }
}
