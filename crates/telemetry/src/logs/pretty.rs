//! Log lines for people: `12:30:01.250 info  model loaded  model=digits version=2`.
//!
//! Invariant: what comes from outside cannot break or colour a line.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

const DIM: &str = "\u{1b}[2m";
const RESET: &str = "\u{1b}[0m";

/// Writes fields as `name=value`, the message first and without a name.
pub struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut parts = Parts::default();
        fields.record(&mut parts);
        writer.write_str(&parts.message)?;
        let gap = if parts.message.is_empty() || parts.rest.is_empty() { "" } else { "  " };
        write!(writer, "{gap}{}", parts.rest)
    }
}

#[derive(Default)]
struct Parts {
    message: String,
    rest: String,
}

impl Parts {
    fn add(&mut self, field: &Field, text: &str) {
        if field.name() == "message" {
            escape(&mut self.message, text);
            return;
        }
        if !self.rest.is_empty() {
            self.rest.push(' ');
        }
        self.rest.push_str(field.name());
        self.rest.push('=');
        if !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c.is_ascii_punctuation() && c != '"' && c != '\\') {
            self.rest.push_str(text);
        } else {
            let _ = write!(self.rest, "{text:?}");
        }
    }
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// Writes the whole line.
pub struct Lines {
    /// Whether the time is written with its date (ISO 8601) and not only as the time of day.
    pub whole_time: Arc<AtomicBool>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let ansi = writer.has_ansi_escapes();
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        // The date is in the journal or in one's head; the time of day is what a person reads.
        let of_day = time.get(11..23).filter(|_| !self.whole_time.load(Ordering::Relaxed));
        let time = of_day.unwrap_or(&time);
        let (colour, level) = match *event.metadata().level() {
            Level::ERROR => ("\u{1b}[31m", "error"),
            Level::WARN => ("\u{1b}[33m", "warn "),
            Level::INFO => ("\u{1b}[32m", "info "),
            Level::DEBUG => ("\u{1b}[34m", "debug"),
            Level::TRACE => ("\u{1b}[35m", "trace"),
        };
        if ansi {
            write!(writer, "{DIM}{time}{RESET} {colour}{level}{RESET} ")?;
        } else {
            write!(writer, "{time} {level} ")?;
        }
        context.format_fields(writer.by_ref(), event)?;
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().map_or("", |fields| fields.fields.as_str());
            if fields.is_empty() {
                continue;
            }
            let (dim, reset) = if ansi { (DIM, RESET) } else { ("", "") };
            write!(writer, " {dim}{}.{fields}{reset}", span.name())?;
        }
        writeln!(writer)
    }
}
