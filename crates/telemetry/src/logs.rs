//! The set-up of logs: pretty lines for people, JSON lines for machines, always on standard error.
//!
//! Invariant: one event is one line, whatever it carries: control characters from outside are
//! escaped. What is logged is each crate's own business; secrets must not reach a log line at all.

mod pretty;

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object in each line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// A level, or levels by target: `info,plinth_net=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Whether pretty lines are coloured.
    pub ansi: bool,
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is not understood.
    #[error("the log level {level:?} is not understood")]
    Level {
        /// What was given.
        level: String,
        /// The cause.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logs were set up before.
    #[error("logs are set up already")]
    Twice,
}

/// Sends the events of this process to standard error. Once for each process.
///
/// # Errors
/// When the level is not understood, or logs were set up before.
pub fn init_logs(settings: &LogSettings) -> Result<(), Error> {
    let subscriber = subscriber(settings, io::stderr)?;
    subscriber.try_init().map_err(|_| Error::Twice)
}

type Boxed = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(settings: &LogSettings, writer: W) -> Result<Boxed, Error>
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse(&settings.level).map_err(|source| Error::Level { level: settings.level.clone(), source })?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(match settings.format {
        LogFormat::Pretty => {
            let layer = layer.with_ansi(settings.ansi).fmt_fields(pretty::Fields).event_format(pretty::Lines);
            Box::new(registry.with(layer))
        }
        LogFormat::Json => Box::new(registry.with(layer.json().flatten_event(true).with_span_list(false))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(format: LogFormat, ansi: bool) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let settings = LogSettings { level: "info,quiet=error".into(), format, ansi };
        let subscriber = subscriber(&settings, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request", id = "r-1");
            let _entered = span.enter();
            tracing::warn!(target: "plinth_net", peer = %"a\nb\u{1b}[31m", count = 3, name = "two words", "connection refused\n{}", "x");
            tracing::debug!("not shown");
            tracing::info!(target: "quiet", "not shown");
        });
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn pretty_lines_are_one_line_each_and_escaped() {
        let text = lines(LogFormat::Pretty, false);
        let (time, rest) = text.split_at(13);
        assert!(time.ends_with(' ') && time.as_bytes()[2] == b':', "{text:?}");
        assert_eq!(rest, "warn  connection refused\\nx  peer=\"a\\nb\\u{1b}[31m\" count=3 name=\"two words\" request.id=r-1\n");
    }

    #[test]
    fn colours_are_only_there_when_asked_for() {
        assert!(lines(LogFormat::Pretty, true).contains("\u{1b}["));
        assert!(!lines(LogFormat::Json, true).contains('\u{1b}'));
    }

    #[test]
    fn json_lines_hold_the_fields() {
        let text = lines(LogFormat::Json, false);
        assert_eq!(text.lines().count(), 1);
        for part in
            ["\"level\":\"WARN\"", "\"count\":3", "\"message\":\"connection refused\\nx\"", "\"id\":\"r-1\"", "\"target\":\"plinth_net\""]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_bad_level_is_refused() {
        let settings = LogSettings { level: "plinth=loud".into(), format: LogFormat::Json, ansi: false };
        assert!(subscriber(&settings, io::stderr).is_err());
    }
}
