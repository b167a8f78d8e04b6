//! What the command line takes from the environment when it talks to a node.
//!
//! Invariant: nothing here is read by a node, and a node's settings are not read here.

use std::path::PathBuf;

use crate::Secret;

/// Where a client finds its node when nothing else is said.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8000";

/// The command line's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// `PLINTH_SERVER`, else [`DEFAULT_SERVER`]; without a slash at its end.
    pub server: String,
    /// Whether `server` was set rather than assumed.
    pub server_set: bool,
    /// `PLINTH_KEY`.
    pub key: Option<Secret>,
    /// Whether `NO_COLOR` is set to anything but the empty text.
    pub no_color: bool,
    /// `PLINTH_CONFIG`: the node's file.
    pub config: Option<PathBuf>,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// The file with keys by server: `plinth/credentials.toml` in `XDG_CONFIG_HOME`, else in `~/.config`.
    pub credentials: Option<PathBuf>,
}

impl ClientSettings {
    /// Reads the settings from variables. Empty ones count as unset.
    pub fn from_vars(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let server = get("PLINTH_SERVER");
        let home = get("HOME").map(PathBuf::from);
        // The XDG specification tells to pass over relative paths.
        let xdg = get("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let base = xdg.or_else(|| home.as_ref().map(|home| home.join(".config")));
        Self {
            server_set: server.is_some(),
            server: server.as_deref().unwrap_or(DEFAULT_SERVER).trim_end_matches('/').to_owned(),
            key: get("PLINTH_KEY").map(Secret::new),
            no_color: get("NO_COLOR").is_some(),
            config: get("PLINTH_CONFIG").map(PathBuf::from),
            credentials: base.map(|base| base.join("plinth").join("credentials.toml")),
            home,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_defaults() {
        let vars = |name: &str| match name {
            "PLINTH_SERVER" => Some("http://h:1/".to_owned()),
            "PLINTH_KEY" => Some("k".to_owned()),
            "HOME" => Some("/home/u".to_owned()),
            "XDG_CONFIG_HOME" => Some("relative".to_owned()),
            "NO_COLOR" => Some(String::new()),
            _ => None,
        };
        let settings = ClientSettings::from_vars(vars);
        assert_eq!((settings.server.as_str(), settings.server_set, settings.no_color), ("http://h:1", true, false));
        assert_eq!(settings.key.as_ref().map(Secret::expose), Some("k"));
        assert_eq!(settings.credentials, Some("/home/u/.config/plinth/credentials.toml".into()));
        assert_eq!(ClientSettings::from_vars(|_| None).server, DEFAULT_SERVER);
    }
}
