//! The environment of this process: the one place that reads it.

use std::path::{Path, PathBuf};

use crate::{ClientSettings, Config, Problem, input};

/// The variables whose names and values are texts.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn variables() -> impl Iterator<Item = (String, String)> {
    // A value that is not UTF-8 is kept, damaged, so that its key is still judged instead of passed over.
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
}

#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Config {
    /// Loads from `file`, else from the file that `PLINTH_CONFIG` names, else from `plinth.toml` in the working
    /// directory when there is one; then from the variables of this process.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_from_process(file: Option<&Path>) -> Result<Self, Vec<Problem>> {
        Self::load_with_overrides(file, &[])
    }

    /// As [`Config::load_from_process`], with values from the command line above everything else: pairs of a key such as
    /// `listen.http` and its text. Problems name them as the variables that would say the same ([`override_variable`]).
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with_overrides(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, Vec<Problem>> {
        let named = file.map(Path::to_owned).or_else(|| variable("PLINTH_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
        let file = named.or_else(input::default_file);
        let overrides: Vec<_> = overrides.iter().map(|(key, value)| (override_variable(key), value.clone())).collect();
        let rest = variables().filter(|(name, _)| overrides.iter().all(|(overridden, _)| overridden != name));
        Self::load(file.as_deref(), rest.chain(overrides.iter().cloned()))
    }
}

/// The variable that overrides a key: `listen.http` is `PLINTH__LISTEN__HTTP`.
#[must_use]
pub fn override_variable(key: &str) -> String {
    format!("PLINTH__{}", key.to_ascii_uppercase().replace('.', "__"))
}

impl ClientSettings {
    /// Reads the variables of this process.
    #[must_use]
    pub fn from_process() -> Self {
        Self::from_vars(variable)
    }
}
