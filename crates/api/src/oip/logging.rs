//! Log settings (logging extension): what is logged, changed while the node runs.
//!
//! They count for the whole node and last until it ends; the configuration decides how it starts.

use plinth_telemetry::{LogControl, LogSwitches};
use plinth_types::{Error, Reason, Result};

/// The value of a log setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogValue {
    /// Of `log_info`, `log_warning` and `log_error`.
    Bool(bool),
    /// Of `log_verbose_level`.
    Number(u64),
    /// Of `log_format` and `log_file`.
    Text(String),
}

/// The settings in force, by the protocol's names.
#[must_use]
pub fn current(control: &LogControl) -> Vec<(&'static str, LogValue)> {
    let LogSwitches { error, warning, info, verbose, whole_time } = control.get();
    vec![
        ("log_file", LogValue::Text(String::new())),
        ("log_info", LogValue::Bool(info)),
        ("log_warning", LogValue::Bool(warning)),
        ("log_error", LogValue::Bool(error)),
        ("log_verbose_level", LogValue::Number(u64::from(verbose))),
        ("log_format", LogValue::Text(if whole_time { "ISO8601" } else { "default" }.to_owned())),
    ]
}

/// Changes settings: all of them or, with an error, none.
///
/// # Errors
/// [`Reason::MalformedRequest`] naming the setting, [`Reason::NotImplemented`] for `log_file`.
pub fn update(control: &LogControl, changes: &[(String, LogValue)]) -> Result<()> {
    let mut new = control.get();
    for (name, value) in changes {
        let wrong = |wanted: &str| Error::new(Reason::MalformedRequest, format!("{name} must be {wanted}")).field(name.as_str());
        match (name.as_str(), value) {
            ("log_info", LogValue::Bool(on)) => new.info = *on,
            ("log_warning", LogValue::Bool(on)) => new.warning = *on,
            ("log_error", LogValue::Bool(on)) => new.error = *on,
            ("log_info" | "log_warning" | "log_error", _) => return Err(wrong("true or false")),
            ("log_verbose_level", LogValue::Number(level)) => {
                new.verbose = u32::try_from(*level).map_err(|_| wrong("a whole number from 0 to 4294967295"))?;
            }
            ("log_verbose_level", _) => return Err(wrong("a whole number from 0 to 4294967295")),
            ("log_format", LogValue::Text(text)) if text == "default" => new.whole_time = false,
            ("log_format", LogValue::Text(text)) if text == "ISO8601" => new.whole_time = true,
            ("log_format", _) => return Err(wrong("default or ISO8601")),
            ("log_file", _) => {
                let text = "log file location can not be updated through network protocol";
                return Err(Error::new(Reason::NotImplemented, text).field("log_file"));
            }
            _ => {
                let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
                let text = format!(
                    "there is no log setting '{name}'; there are log_info, log_warning, log_error, log_verbose_level and log_format"
                );
                return Err(Error::new(Reason::MalformedRequest, text).field(name));
            }
        }
    }
    control.set(new).map_err(|e| Error::internal("the log cannot be switched").source(e))?;
    tracing::info!(?new, "log settings were changed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> LogValue {
        LogValue::Text(text.to_owned())
    }

    #[test]
    fn settings_are_shown_as_they_were_set() {
        let control = LogControl::detached();
        let changes = [
            ("log_info", LogValue::Bool(false)),
            ("log_warning", LogValue::Bool(false)),
            ("log_error", LogValue::Bool(false)),
            ("log_verbose_level", LogValue::Number(3)),
            ("log_format", text("ISO8601")),
        ];
        let named: Vec<_> = changes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        update(&control, &named).unwrap();
        let shown = current(&control);
        assert!(changes.iter().all(|change| shown.contains(change)), "{shown:?}");
        assert!(shown.contains(&("log_file", text(""))));
    }

    #[test]
    fn what_cannot_be_set_changes_nothing() {
        let control = LogControl::detached();
        let before = control.get();
        for (name, value, reason) in [
            ("log_info", LogValue::Number(0), Reason::MalformedRequest),
            ("log_verbose_level", LogValue::Bool(true), Reason::MalformedRequest),
            ("log_verbose_level", LogValue::Number(1 << 32), Reason::MalformedRequest),
            ("log_format", text("csv"), Reason::MalformedRequest),
            ("log_format", LogValue::Bool(true), Reason::MalformedRequest),
            ("log_file", text("/tmp/x"), Reason::NotImplemented),
            ("log_debug", LogValue::Bool(true), Reason::MalformedRequest),
        ] {
            let changes = [("log_error".to_owned(), LogValue::Bool(false)), (name.to_owned(), value)];
            assert_eq!(update(&control, &changes).unwrap_err().reason(), reason, "{name}");
            assert_eq!(control.get(), before);
        }
    }
}
