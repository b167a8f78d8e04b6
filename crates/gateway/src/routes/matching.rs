//! Which requests a route is for.
//!
//! Invariants: a path is compared as it was sent, so an escape never makes a segment; a prefix matches whole segments;
//! expressions are compiled with a bound on their size, run in linear time, and match as a whole.

use http::{HeaderMap, HeaderName, Method};
use plinth_store::resources::gateway::{HeaderMatch, MatchSpec, TextMatch};
use plinth_types::{ModelName, TenantName};
use regex::{Regex, RegexBuilder};

use super::Invalid;

/// The most memory that a compiled expression may take.
const MAX_REGEX: usize = 64 << 10;

/// What a route is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'r> {
    /// The method.
    pub method: &'r Method,
    /// The path, without the query.
    pub path: &'r str,
    /// The host, without the port.
    pub host: &'r str,
    /// The headers.
    pub headers: &'r HeaderMap,
    /// Who asks; the default tenant for routes that need no key.
    pub tenant: &'r TenantName,
    /// The model, when the path names one.
    pub model: Option<&'r str>,
}

/// The first segment of a path, `chat` of `/chat/rooms`.
pub fn first_segment(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

/// How a text is compared.
#[derive(Debug)]
pub enum Text {
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

impl Text {
    pub fn compile(spec: &TextMatch) -> Result<Self, Invalid> {
        Ok(match spec {
            TextMatch::Exact(text) => Self::Exact(text.clone()),
            TextMatch::Prefix(text) => Self::Prefix(text.clone()),
            TextMatch::Regex(text) => Self::Regex(whole(text)?),
        })
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

fn whole(text: &str) -> Result<Regex, Invalid> {
    bounded(&format!("^(?:{text})$"))
}

/// Compiles an expression that may not take much.
pub fn bounded(text: &str) -> Result<Regex, Invalid> {
    let compiled = RegexBuilder::new(text).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).nest_limit(32).build();
    compiled.map_err(|error| Invalid(format!("a regular expression: {error}")))
}

/// A host, or all below a domain.
#[derive(Debug)]
enum Host {
    Exact(String),
    Below(String),
}

impl Host {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => exact.eq_ignore_ascii_case(host),
            Self::Below(suffix) => {
                host.len() > suffix.len() && host.get(host.len() - suffix.len()..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
        }
    }
}

#[derive(Debug)]
struct Header {
    name: HeaderName,
    value: Option<Text>,
}

/// A condition on headers.
#[derive(Debug)]
pub struct HeaderTest(Header);

impl HeaderTest {
    pub fn compile(spec: &HeaderMatch) -> Result<Self, Invalid> {
        let name = spec.name.parse().map_err(|_| Invalid(format!("'{}' is not the name of a header", spec.name)))?;
        Ok(Self(Header { name, value: spec.value.as_ref().map(Text::compile).transpose()? }))
    }

    pub fn matches(&self, headers: &HeaderMap) -> bool {
        headers.get_all(&self.0.name).iter().any(|found| match &self.0.value {
            None => true,
            Some(text) => found.to_str().is_ok_and(|found| text.matches(found)),
        })
    }
}

/// All conditions of a route.
#[derive(Debug)]
pub struct Conditions {
    hosts: Vec<Host>,
    pub path: Option<Text>,
    methods: Vec<Method>,
    headers: Vec<HeaderTest>,
    tenants: Vec<TenantName>,
    models: Vec<ModelName>,
}

impl Conditions {
    pub fn compile(spec: &MatchSpec) -> Result<Self, Invalid> {
        let method = |text: &String| text.parse::<Method>().map_err(|_| Invalid(format!("'{text}' is not a method")));
        Ok(Self {
            hosts: spec
                .hosts
                .iter()
                .map(|host| host.strip_prefix('*').map_or_else(|| Host::Exact(host.clone()), |rest| Host::Below(rest.to_owned())))
                .collect(),
            path: spec.path.as_ref().map(Text::compile).transpose()?,
            methods: spec.methods.iter().map(method).collect::<Result<_, _>>()?,
            headers: spec.headers.iter().map(HeaderTest::compile).collect::<Result<_, _>>()?,
            tenants: spec.tenants.clone(),
            models: spec.models.clone(),
        })
    }

    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        self.path.as_ref().is_none_or(|path| path_matches(path, asked.path))
            && (self.methods.is_empty() || self.methods.contains(asked.method))
            && (self.hosts.is_empty() || self.hosts.iter().any(|host| host.matches(asked.host)))
            && (self.tenants.is_empty() || self.tenants.contains(asked.tenant))
            && (self.models.is_empty() || asked.model.is_some_and(|model| self.models.iter().any(|known| known.as_str() == model)))
            && self.headers.iter().all(|header| header.matches(asked.headers))
    }

    /// The segment with which every path begins that matches; `None` when there is none such.
    pub fn first_segment(&self) -> Option<&str> {
        match &self.path {
            Some(Text::Exact(path) | Text::Prefix(path)) => Some(first_segment(path)).filter(|segment| !segment.is_empty()),
            // Models are named below one path only.
            None if !self.models.is_empty() => Some("v2"),
            _ => None,
        }
    }

    /// Whether an inference over gRPC may fit, whose model stands in the message: by the path of that model, or by the call's own. `models`: whether
    /// models answer.
    pub fn goes_by_models(&self, models: bool) -> bool {
        !self.models.is_empty()
            || match &self.path {
                Some(Text::Regex(_)) => true,
                Some(Text::Exact(path) | Text::Prefix(path)) => matches!(first_segment(path), "" | "v2" | "inference.GRPCInferenceService"),
                None => models,
            }
    }

    /// Whether it is for named hosts alone.
    pub fn names_hosts(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// How much of a path is fixed.
    pub fn specificity(&self) -> usize {
        match &self.path {
            Some(Text::Exact(path)) => path.len() + 1,
            Some(Text::Prefix(path)) => path.len(),
            Some(Text::Regex(regex)) => regex.as_str().len().min(1),
            None => 0,
        }
    }
}

fn path_matches(text: &Text, path: &str) -> bool {
    match text {
        Text::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        text => text.matches(path),
    }
}
