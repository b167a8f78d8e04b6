//! The set-up of logs: pretty lines for people, JSON lines for machines, always on standard error.
//!
//! Invariant: one event is one line, whatever it carries: control characters from outside are
//! escaped. What is logged is each crate's own business; secrets must not reach a log line at all.

mod control;
mod gate;
mod pretty;

use std::io;

pub use control::{LogControl, LogSwitches};
use gate::Gate;
pub use gate::TRACE_TARGET;
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

/// Sends the events of this process to standard error, and hands out the switches for the time that it runs. Once for each
/// process.
///
/// # Errors
/// When the level is not understood, or logs were set up before.
pub fn init_logs(settings: &LogSettings) -> Result<LogControl, Error> {
    let (subscriber, control) = subscriber(settings, io::stderr)?;
    subscriber.try_init().map_err(|_| Error::Twice)?;
    Ok(control)
}

type Boxed = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(settings: &LogSettings, writer: W) -> Result<(Boxed, LogControl), Error>
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let gate = Gate::new(&settings.level).map_err(|source| Error::Level { level: settings.level.clone(), source })?;
    let switches = gate.switches();
    let (gate, handle) = tracing_subscriber::reload::Layer::new(gate);
    let control = LogControl::new(handle, switches);
    let registry = tracing_subscriber::registry().with(gate);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let subscriber: Boxed = match settings.format {
        LogFormat::Pretty => {
            let lines = pretty::Lines { whole_time: control.whole_time() };
            Box::new(registry.with(layer.with_ansi(settings.ansi).fmt_fields(pretty::Fields).event_format(lines)))
        }
        LogFormat::Json => Box::new(registry.with(layer.json().flatten_event(true).with_span_list(false))),
    };
    Ok((subscriber, control))
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
        let (subscriber, _) = subscriber(&settings, move || writer.clone()).unwrap();
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

    /// The letters of the levels that pass with these switches, for a target of ours and for another's.
    fn passing(level: &str, switches: Option<LogSwitches>) -> (String, String) {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let settings = LogSettings { level: level.into(), format: LogFormat::Pretty, ansi: false };
        let (subscriber, control) = subscriber(&settings, move || writer.clone()).unwrap();
        let mut both = [String::new(), String::new()];
        tracing::subscriber::with_default(subscriber, || {
            if let Some(switches) = switches {
                control.set(switches).unwrap();
                assert_eq!(control.get(), switches);
            }
            macro_rules! say {
                ($target:literal) => {
                    tracing::error!(target: $target, "E");
                    tracing::warn!(target: $target, "W");
                    tracing::info!(target: $target, "I");
                    tracing::debug!(target: $target, "D");
                    tracing::trace!(target: $target, "T");
                };
            }
            for (i, passed) in both.iter_mut().enumerate() {
                buffer.0.lock().unwrap().clear();
                if i == 0 {
                    say!("plinth_x");
                } else {
                    say!("hyper");
                }
                let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
                *passed = text.lines().filter_map(|line| line.chars().last()).collect();
            }
            buffer.0.lock().unwrap().clear();
            tracing::info!(target: "plinth::trace", "record");
            let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
            assert!(text.contains("record"), "what was asked for by a trace setting is always written");
        });
        let [ours, others] = both;
        (ours, others)
    }

    #[test]
    fn switches_take_effect_while_the_process_runs() {
        let all = LogSwitches { error: true, warning: true, info: true, verbose: 0, whole_time: false };
        let pass = |level, switches| {
            let (ours, others) = passing(level, switches);
            format!("{ours} {others}")
        };
        assert_eq!(pass("info,hyper=error", None), "EWI E");
        assert_eq!(pass("info,hyper=error", Some(all)), "EWI E", "what was not switched is as configured");
        assert_eq!(pass("info,hyper=error", Some(LogSwitches { warning: false, ..all })), "EI E");
        assert_eq!(pass("info,hyper=error", Some(LogSwitches { error: false, ..all })), "WI ");
        assert_eq!(pass("info,hyper=error", Some(LogSwitches { info: false, verbose: 1, ..all })), "EWD E");
        assert_eq!(pass("info", Some(LogSwitches { verbose: 2, ..all })), "EWIDT EWI", "the depth of others is their own");
        assert_eq!(pass("debug", Some(all)), "EWI EWI", "verbose 0 ends what was configured");
        assert_eq!(pass("error", Some(all)), "EWI EWI");
        assert_eq!(pass("off", None), " ");
        let none = LogSwitches { error: false, warning: false, info: false, ..all };
        assert_eq!(pass("trace", Some(none)), " ");
    }

    #[test]
    fn the_first_switches_are_what_is_configured() {
        for (level, expected) in [
            ("info", (true, true, true, 0)),
            ("warn", (true, true, false, 0)),
            ("debug", (true, true, true, 1)),
            ("info,plinth_net=trace", (true, true, true, 2)),
            ("off", (false, false, false, 0)),
        ] {
            let settings = LogSettings { level: level.into(), format: LogFormat::Json, ansi: false };
            let switches = subscriber(&settings, io::stderr).unwrap().1.get();
            assert_eq!((switches.error, switches.warning, switches.info, switches.verbose), expected, "{level}");
        }
    }

    #[test]
    fn the_whole_time_is_written_when_asked_for() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let settings = LogSettings { level: "info".into(), format: LogFormat::Pretty, ansi: false };
        let (subscriber, control) = subscriber(&settings, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            control.set(LogSwitches { whole_time: true, ..control.get() }).unwrap();
            tracing::info!("x");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let (date, rest) = text.split_at(10);
        assert!(date.bytes().filter(|b| *b == b'-').count() == 2 && rest.starts_with('T') && rest.contains("Z info  x"), "{text:?}");
    }
}
