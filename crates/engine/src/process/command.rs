//! From a version's wish to the command that is executed, if the operator allows its program.
//!
//! Invariants: what is executed is a path out of the operator's list, never one out of a version; nothing of the node's
//! environment goes along; a placeholder that nobody knows is refused instead of being passed on.

use std::path::{Path, PathBuf};

use super::manifest::Manifest;

/// Where programs that a server starts are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the placeholders stand for.
#[derive(Debug, Clone)]
pub(crate) struct Places<'a> {
    pub port: u16,
    pub model_dir: &'a Path,
    pub temporary: &'a Path,
    pub name: &'a str,
    pub token: &'a str,
}

/// A command that may be executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// The path of the operator's list that `wished` means.
///
/// A bare name means the first entry of that name; a path means the entry that is the same file.
///
/// # Errors
/// A text for people.
pub(crate) fn allowed(wished: &str, allow: &[PathBuf]) -> Result<PathBuf, String> {
    let refused = || format!("the program '{}' is not among engine.process_commands of this node", crate::check::text(wished));
    let found = if wished.contains('/') {
        let path = Path::new(wished);
        // A relative path would lie in the version's directory, whose files are not the operator's.
        let path = if path.is_absolute() { std::fs::canonicalize(path).ok() } else { None };
        path.and_then(|path| allow.iter().find(|entry| std::fs::canonicalize(entry).is_ok_and(|entry| entry == path)))
    } else {
        allow.iter().find(|entry| entry.file_name().is_some_and(|name| name == wished))
    };
    let found = found.filter(|entry| entry.is_absolute()).ok_or_else(refused)?;
    let real = std::fs::metadata(found).is_ok_and(|meta| meta.is_file());
    if real { Ok(found.clone()) } else { Err(format!("the program '{}' is allowed but is not there", crate::check::text(wished))) }
}

impl Command {
    /// Fills the placeholders in.
    ///
    /// # Errors
    /// A text for people.
    pub(crate) fn new(program: PathBuf, manifest: &Manifest, places: &Places<'_>) -> Result<Self, String> {
        let arguments = manifest.command.iter().skip(1).map(|text| places.fill(text)).collect::<Result<_, _>>()?;
        let temporary = places.temporary.to_string_lossy().into_owned();
        let basics = [("PATH", PATH), ("LANG", "C.UTF-8"), ("HOME", &temporary), ("TMPDIR", &temporary)];
        let mut environment: Vec<(String, String)> = basics.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        for (name, value) in &manifest.environment {
            environment.retain(|(basic, _)| basic != name);
            environment.push((name.clone(), places.fill(value)?));
        }
        Ok(Self { program, arguments, environment })
    }
}

impl Places<'_> {
    /// Braces around anything but small letters and `_` are text: arguments may be JSON.
    fn fill(&self, text: &str) -> Result<String, String> {
        let (mut filled, mut rest) = (String::new(), text);
        while let Some(at) = rest.find('{') {
            let (before, tail) = rest.split_at(at);
            filled.push_str(before);
            let word = tail.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            match word {
                Some((word, after)) if !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') => {
                    filled.push_str(&self.value(word)?);
                    rest = after;
                }
                _ => {
                    filled.push('{');
                    rest = tail.get(1..).unwrap_or_default();
                }
            }
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, word: &str) -> Result<String, String> {
        match word {
            "port" => Ok(self.port.to_string()),
            "host" => Ok("127.0.0.1".to_owned()),
            "model_dir" => Ok(self.model_dir.to_string_lossy().into_owned()),
            "tmp" => Ok(self.temporary.to_string_lossy().into_owned()),
            "name" => Ok(self.name.to_owned()),
            "token" => Ok(self.token.to_owned()),
            other => {
                Err(format!("process.toml: there is no placeholder {{{other}}}; there are port, host, model_dir, tmp, name and token"))
            }
        }
    }
}

/// Whether the server is told the token that the node will show it.
pub(crate) fn wants_token(manifest: &Manifest) -> bool {
    manifest.command.iter().chain(manifest.environment.values()).any(|text| text.contains("{token}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn places() -> Places<'static> {
        Places { port: 4711, model_dir: Path::new("/m"), temporary: Path::new("/t"), name: "adder", token: "secret" }
    }

    #[test]
    fn placeholders() {
        let p = places();
        assert_eq!(p.fill("--a={host}:{port}/{name}").unwrap(), "--a=127.0.0.1:4711/adder");
        assert_eq!(p.fill("{model_dir}{tmp}{token}").unwrap(), "/m/tsecret");
        assert_eq!(p.fill(r#"{"a": {"b": 1}} { {} {"#).unwrap(), r#"{"a": {"b": 1}} { {} {"#);
        assert!(p.fill("{prot}").unwrap_err().contains("{prot}"));
    }

    #[test]
    fn only_the_operators_programs() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("server"), "").unwrap();
        std::os::unix::fs::symlink(at("server"), at("link")).unwrap();
        let allow = vec![at("link"), at("gone"), PathBuf::from("relative")];
        let text = |name: &str| at(name).to_str().unwrap().to_owned();
        assert_eq!(allowed("link", &allow).unwrap(), at("link"));
        assert_eq!(allowed(&text("server"), &allow).unwrap(), at("link"), "the same file, by the operator's path");
        for bad in ["server", "./link", "link/", "", "/bin/sh", "relative", "../link", &text("other"), "sh\n"] {
            assert!(allowed(bad, &allow).unwrap_err().contains("engine.process_commands"), "{bad}");
        }
        assert!(allowed("gone", &allow).unwrap_err().contains("not there"));
        assert!(allowed("link", &[]).is_err());
    }

    proptest! {
        #[test]
        fn filling_never_panics(text in "[{}a-z_é]{0,40}") {
            let _ = places().fill(&text);
        }
    }
}
