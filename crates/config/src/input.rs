//! From the text of a file and the variables of an environment to raw values by key.
//!
//! Invariant: every key of the file and every `PLINTH__` variable is either in the table of keys or
//! becomes a problem; nothing is dropped in silence. The environment wins over the file, and the
//! file's value is checked nevertheless.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::keys::{self, Config, Key, SECTIONS};
use crate::problem::{Origin, Problem};
use crate::setting::{Raw, Setting};
use crate::show::Shown;

/// What every variable of the node's configuration starts with.
pub const PREFIX: &str = "PLINTH__";

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The raw values by key, and what is wrong so far.
#[derive(Default)]
pub struct Resolver {
    file: BTreeMap<&'static str, (Raw, Origin)>,
    environment: BTreeMap<&'static str, (Raw, Origin)>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) shown: Vec<Shown>,
}

impl Config {
    /// Reads the file, if one is named, then the variables, and checks everything.
    ///
    /// Variables that do not start with `PLINTH__` are passed over.
    ///
    /// # Errors
    /// With all problems: those of the file by line, then those of the environment.
    pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, Vec<Problem>> {
        let mut resolver = Resolver::default();
        if let Some(path) = file {
            match read(path) {
                Ok(text) => resolver.add_file(path, &text),
                Err(problem) => resolver.problems.push(problem),
            }
        }
        resolver.add_environment(env);
        resolver.finish()
    }

    /// As [`Config::load`], with the text of a file that has this name in problems.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(name: &Path, text: &str, env: impl Iterator<Item = (String, String)>) -> Result<Self, Vec<Problem>> {
        let mut resolver = Resolver::default();
        resolver.add_file(name, text);
        resolver.add_environment(env);
        resolver.finish()
    }
}

impl Default for Config {
    #[allow(clippy::expect_used, reason = "the defaults are constants and a test loads them")]
    fn default() -> Self {
        Resolver::default().finish().expect("the defaults are valid")
    }
}

fn read(path: &Path) -> Result<String, Problem> {
    let problem = |text: String| Problem::new(Origin::File { path: path.to_owned(), line: 1 }, "", text);
    let size = std::fs::metadata(path).map_err(|e| problem(format!("cannot read the file: {e}")))?.len();
    if size > MAX_FILE_BYTES {
        return Err(problem("the file is larger than 1MiB; this cannot be a configuration".to_owned()));
    }
    std::fs::read_to_string(path).map_err(|e| problem(format!("cannot read the file: {e}")))
}

impl Resolver {
    fn finish(mut self) -> Result<Config, Vec<Problem>> {
        let config = Config::resolve(&mut self);
        // Rules between keys are judged only on values that were themselves right.
        if self.problems.is_empty() {
            self.problems = crate::check::check(&config);
        }
        // In the order of the file, so that one can go through it from top to bottom.
        self.problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        if self.problems.is_empty() { Ok(config) } else { Err(self.problems) }
    }

    fn add_file(&mut self, path: &Path, text: &str) {
        let (document, errors) = DeTable::parse_recoverable(text);
        let at = |start: usize| Origin::File { path: path.to_owned(), line: line_of(text, start) };
        if !errors.is_empty() {
            // What was recovered from a broken file may be nonsense; say only what is certain.
            let problem = |e: &toml::de::Error| {
                Problem::new(at(e.span().map_or(0, |span| span.start)), "", format!("not TOML: {}", e.message().trim_end()))
            };
            self.problems.extend(errors.iter().map(problem));
            return;
        }
        for (section, value) in document.get_ref() {
            let origin = at(section.span().start);
            let name = section.get_ref().as_ref();
            let Some(known) = SECTIONS.iter().find(|known| known.name == name) else {
                self.unknown_section(name, value.get_ref(), origin);
                continue;
            };
            let DeValue::Table(table) = value.get_ref() else {
                let text = format!("'{name}' is a section; write [{name}] and its keys below");
                self.problems.push(Problem::new(origin, name, text));
                continue;
            };
            for (key, value) in table {
                let origin = at(key.span().start);
                let path = format!("{name}.{}", key.get_ref());
                match known.keys.iter().find(|known| known.path == path) {
                    Some(key) => {
                        self.file.insert(key.path, (raw(value.get_ref()), origin));
                    }
                    None => self.problems.push(unknown_key(&path, origin)),
                }
            }
        }
    }

    fn unknown_section(&mut self, name: &str, value: &DeValue<'_>, origin: Origin) {
        let shown = shorten(name);
        let text = if matches!(value, DeValue::Table(_)) {
            let near = nearest(name, SECTIONS.iter().map(|section| section.name));
            near.map_or_else(|| format!("unknown section '{shown}'"), |near| format!("unknown section '{shown}'; did you mean '{near}'?"))
        } else {
            return self.problems.push(unknown_key(name, origin));
        };
        self.problems.push(Problem::new(origin, shown, text));
    }

    fn add_environment(&mut self, env: impl Iterator<Item = (String, String)>) {
        let by_variable: BTreeMap<String, &'static Key> = keys::all().map(|key| (variable(key), key)).collect();
        let mut given: Vec<_> = env.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        given.sort();
        for (name, value) in given {
            if let Some(key) = by_variable.get(&name) {
                let origin = Origin::Environment(name);
                self.environment.insert(key.path, (Raw::Environment(value), origin));
                continue;
            }
            let near = nearest(&name.to_ascii_uppercase(), by_variable.keys().map(String::as_str));
            let shown = shorten(&name);
            let text = near.map_or_else(|| "unknown variable".to_owned(), |near| format!("unknown variable; did you mean '{near}'?"));
            self.problems.push(Problem::new(Origin::Environment(shown.clone()), shown, text));
        }
    }

    /// The value of a key; a problem is noted and the default taken when it does not fit.
    ///
    /// # Panics
    /// When the default in the table does not fit its own type; a test reads all of them.
    #[allow(clippy::expect_used, reason = "the defaults are constants and a test loads them")]
    pub(crate) fn take<T: Setting>(&mut self, path: &'static str, default: &'static str) -> T {
        let sources = [self.file.remove(path), self.environment.remove(path)];
        let mut chosen = None;
        for (raw, origin) in sources.into_iter().flatten() {
            match T::from_raw(&raw) {
                Ok(value) => chosen = Some((value, origin)),
                Err(refusal) => self.problems.push(wrong_value::<T>(path, &raw, origin, refusal)),
            }
        }
        let (value, origin) = chosen.unwrap_or_else(|| (T::from_text(default).expect("defaults fit their own type"), Origin::Default));
        self.shown.push(Shown { path, value: value.show(), origin });
        value
    }
}

fn wrong_value<T: Setting>(path: &str, raw: &Raw, origin: Origin, refusal: Option<String>) -> Problem {
    let found = match raw {
        Raw::Text(text) | Raw::Environment(text) if !T::SECRET => format!("{:?}", shorten(text)),
        other => other.describe().to_owned(),
    };
    let why = refusal.map_or_else(String::new, |why| format!(" {why};"));
    Problem::new(origin, path, format!("'{path}' wants {};{why} found {found}", T::FORM))
}

fn unknown_key(path: &str, origin: Origin) -> Problem {
    let shown = shorten(path);
    let last = path.rsplit('.').next().unwrap_or(path);
    // A right key in the wrong section is a likelier mistake than a misspelling far away.
    let moved = keys::all().find(|key| key.path.split_once('.').is_some_and(|(_, name)| name == last)).map(|key| key.path);
    let near = nearest(path, keys::all().map(|key| key.path)).or(moved);
    let text = near.map_or_else(|| format!("unknown key '{shown}'"), |near| format!("unknown key '{shown}'; did you mean '{near}'?"));
    Problem::new(origin, shown, text)
}

/// The candidate that is fewest edits away, if it is near enough to be meant.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 100 {
        return None; // The distance costs the product of the lengths.
    }
    let allowed = (word.chars().count() / 3).max(2);
    let scored = candidates.map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate));
    scored.filter(|(distance, _)| *distance <= allowed).min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// The variable that overrides a key.
pub(crate) fn variable(key: &Key) -> String {
    format!("{PREFIX}{}", key.path.replace('.', "__").to_ascii_uppercase())
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.replace(char::is_control, "?")
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.clone().into_owned()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Raw::Other("a number too large"), Raw::Integer)
        }
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// The file that is read when none is named, if it is there.
pub(crate) fn default_file() -> Option<PathBuf> {
    let path = PathBuf::from("plinth.toml");
    path.is_file().then_some(path)
}
