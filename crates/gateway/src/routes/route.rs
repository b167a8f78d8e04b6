//! One compiled route.

use std::cmp::Reverse;
use std::time::Duration;

use http::HeaderMap;
use http::header::COOKIE;
use plinth_policy::balance::{hash, weighted::Split};
use plinth_store::resources::gateway::{
    CostSpec, CriticalityWord, DegradeSpec, FallbackSpec, RewriteSpec, RouteAccess, RouteRecord, StickyKey, Target as TargetSpec,
};
use plinth_types::{Label, TenantName};
use regex::Regex;

use crate::compression::Rule;

use super::matching::{Asked, Conditions, HeaderTest, Text, bounded};
use super::{Aliases, Changes, Cors, FilterSlots, Model, Target, To};
use crate::filters::Handle;

/// Why a record makes no route.
#[derive(Debug, PartialEq, Eq)]
pub struct Invalid(pub String);

/// By what the same caller is recognised.
#[derive(Debug)]
pub enum Sticky {
    Header(String),
    Cookie(String),
    Tenant,
    User,
    Address,
}

impl Sticky {
    pub fn compile(spec: &StickyKey) -> Self {
        match spec {
            StickyKey::Header(name) => Self::Header(name.clone()),
            StickyKey::Cookie(name) => Self::Cookie(name.clone()),
            StickyKey::Tenant => Self::Tenant,
            StickyKey::User => Self::User,
            StickyKey::Address => Self::Address,
        }
    }
}

#[derive(Debug)]
struct Pin {
    target: usize,
    header: Option<HeaderTest>,
    cookie: Option<(String, String)>,
    tenant: Option<TenantName>,
}

/// Where copies go.
#[derive(Debug)]
pub struct Shadow {
    /// What gets them.
    pub target: Target,
    /// How many of 2³².
    pub share: u32,
    /// Whether answers are compared.
    pub compare: bool,
}

/// What answers instead.
#[derive(Debug)]
pub enum Fallback {
    /// Another target.
    Target(Target),
    /// The newest good answer of at most this age.
    Cached(Duration),
    /// Always the same.
    Static { status: u16, content_type: String, body: String },
}

#[derive(Debug)]
enum Rewrite {
    Prefix { from: usize, to: String },
    Regex(Regex, String),
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// Whose it is.
    pub tenant: TenantName,
    /// Its name.
    pub name: Label,
    /// Who may use it.
    pub access: RouteAccess,
    priority: i32,
    conditions: Conditions,
    targets: Vec<Target>,
    split: Option<Split>,
    pins: Vec<Pin>,
    /// By what the same caller gets the same target.
    pub sticky: Option<Sticky>,
    /// Where copies go.
    pub shadow: Option<Shadow>,
    rewrite: Option<Rewrite>,
    /// Changes of the request's headers.
    pub request_headers: Changes,
    /// Changes of the answer's headers.
    pub response_headers: Changes,
    /// For the whole of a request.
    pub timeout: Option<Duration>,
    /// Whether its requests may be carried out twice whatever their method; `None`: as the upstream says.
    pub idempotent: Option<bool>,
    /// What answers when the target cannot.
    pub fallbacks: Vec<Fallback>,
    /// What is done under load.
    pub degrade: Vec<(DegradeSpec, Option<Model>)>,
    /// The filters that its requests pass.
    pub(crate) filters: Vec<Handle>,
    /// The word of limits.
    pub operation: Option<Label>,
    /// What a request costs.
    pub cost: CostSpec,
    /// The urgency of its requests.
    pub criticality: Option<CriticalityWord>,
    /// Which other pages may use it.
    pub cors: Option<Cors>,
    /// Which answers are compressed.
    pub compression: Rule,
}

impl Route {
    pub(super) fn compile(
        tenant: &TenantName,
        name: &Label,
        record: &RouteRecord,
        aliases: &dyn Aliases,
        filters: &dyn FilterSlots,
    ) -> Result<Self, Invalid> {
        let conditions = Conditions::compile(&record.matches)?;
        let models = &record.matches.models;
        let target = |name: Option<&Label>, to: &TargetSpec| Target::compile(tenant, name, to, models, aliases);
        let targets = record.targets.iter().map(|spec| target(spec.name.as_ref(), &spec.to)).collect::<Result<Vec<_>, _>>()?;
        let split = match &record.targets[..] {
            [] => return Err(Invalid("it has no targets".to_owned())),
            [_] => None,
            several => {
                let weights = several.iter().zip(&targets).map(|(spec, target)| (hash::key(target.name.as_bytes()), spec.weight));
                Some(Split::new(weights).map_err(|error| Invalid(error.to_string()))?)
            }
        };
        let pin = |spec: &plinth_store::resources::gateway::PinSpec| {
            let place = targets.iter().position(|target| target.name == spec.target.as_str());
            Ok(Pin {
                target: place.ok_or_else(|| Invalid(format!("no target is named '{}'", spec.target)))?,
                header: spec.header.as_ref().map(HeaderTest::compile).transpose()?,
                cookie: spec.cookie.clone(),
                tenant: spec.tenant.clone(),
            })
        };
        let pins = record.pins.iter().map(pin).collect::<Result<Vec<_>, Invalid>>()?;
        let fallback = |spec: &FallbackSpec| {
            Ok(match spec {
                FallbackSpec::Model(model) => Fallback::Target(target(None, &TargetSpec::Model(model.clone()))?),
                FallbackSpec::Upstream(name) => Fallback::Target(target(None, &TargetSpec::Upstream(name.clone()))?),
                FallbackSpec::Cached { max_age_seconds } => Fallback::Cached(Duration::from_secs((*max_age_seconds).into())),
                FallbackSpec::Static { status, content_type, body } => {
                    Fallback::Static { status: *status, content_type: content_type.clone(), body: body.clone() }
                }
            })
        };
        let shadow = record.shadow.as_ref().map(|spec| {
            let share = (spec.percent.clamp(0.0, 100.0) / 100.0 * f64::from(u32::MAX)) as u32;
            Ok::<_, Invalid>(Shadow { target: target(None, &spec.to)?, share, compare: spec.compare })
        });
        let degrade = |spec: &DegradeSpec| {
            let model = spec.model.as_ref().map(|model| Model::compile(tenant, model, models, aliases)).transpose()?;
            Ok::<_, Invalid>((spec.clone(), model))
        };
        Ok(Self {
            tenant: tenant.clone(),
            name: name.clone(),
            access: record.access,
            priority: record.priority,
            rewrite: record.rewrite.as_ref().map(|spec| rewrite(spec, &conditions)).transpose()?,
            conditions,
            split,
            pins,
            sticky: record.sticky.as_ref().map(Sticky::compile),
            shadow: shadow.transpose()?,
            request_headers: Changes::compile(&record.request_headers)?,
            response_headers: Changes::compile(&record.response_headers)?,
            timeout: record.timeout_ms.map(|ms| Duration::from_millis(ms.into())),
            // What a model answers may be asked elsewhere too: inference changes nothing.
            idempotent: record.idempotent.or_else(|| targets.iter().any(|target| matches!(target.to, To::Model(_))).then_some(true)),
            fallbacks: record.fallbacks.iter().map(fallback).collect::<Result<_, Invalid>>()?,
            degrade: record.degrade.iter().map(degrade).collect::<Result<_, _>>()?,
            filters: record.filters.iter().map(|named| filters.slot(tenant, named)).collect(),
            operation: record.operation.clone(),
            cost: record.cost,
            criticality: record.criticality,
            cors: record.cors.as_ref().map(|spec| Cors::compile(spec, &record.matches.methods)).transpose()?,
            compression: Rule::of(record.compression.as_ref(), targets.iter().all(|target| matches!(target.to, To::Model(_)))),
            targets,
        })
    }

    /// Whether a request is for it.
    #[must_use]
    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        self.conditions.matches(asked)
    }

    /// Whether its good answers are kept, because one of them may stand in later.
    #[must_use]
    pub fn keeps_answers(&self) -> bool {
        self.fallbacks.iter().any(|fallback| matches!(fallback, Fallback::Cached(_)))
            || self.degrade.iter().any(|(spec, _)| spec.stale_seconds.is_some())
    }

    /// Whether an inference whose model stands in a message may be for it.
    #[must_use]
    pub fn goes_by_models(&self) -> bool {
        let models = self.targets.iter().any(|target| matches!(target.to, To::Model(_)));
        self.conditions.goes_by_models(models)
    }

    /// Whether it comes before another one that matches too.
    #[must_use]
    pub fn before(&self, other: &Self) -> bool {
        self.order() < other.order()
    }

    /// The name of its target, when it has one.
    #[must_use]
    pub fn only_target(&self) -> Option<&str> {
        if let [only] = &self.targets[..] { Some(&only.name) } else { None }
    }

    /// Whether services outside may answer.
    #[must_use]
    pub fn asks_upstreams(&self) -> bool {
        self.targets.iter().any(|target| matches!(target.to, To::Upstream(_)))
    }

    /// Whether it is for named hosts alone.
    #[must_use]
    pub fn names_hosts(&self) -> bool {
        self.conditions.names_hosts()
    }

    pub(super) fn first_segment(&self) -> Option<&str> {
        self.conditions.first_segment()
    }

    /// Lower comes first.
    pub(super) fn order(&self) -> (Reverse<i32>, Reverse<usize>, &Label) {
        (Reverse(self.priority), Reverse(self.conditions.specificity()), &self.name)
    }

    /// The target of a request. `key`: of the caller where the route is sticky, else a draw.
    #[must_use]
    pub fn target(&self, asked: &Asked<'_>, key: u64) -> &Target {
        let pinned = self.pins.iter().find(|pin| pin.matches(asked)).map(|pin| pin.target);
        let place = pinned.unwrap_or_else(|| self.split.as_ref().map_or(0, |split| split.pick(key)));
        // Places are made of the same list, which is not empty.
        self.targets.get(place).unwrap_or(&self.targets[0])
    }

    /// Whether requests may go to one target or another.
    #[must_use]
    pub const fn has_several_targets(&self) -> bool {
        self.targets.len() > 1
    }

    /// The path at an upstream.
    #[must_use]
    pub fn rewritten(&self, path: &str) -> Option<String> {
        match self.rewrite.as_ref()? {
            Rewrite::Prefix { from, to } => {
                let rest = path.get(*from..).unwrap_or_default();
                Some(if rest.is_empty() || rest.starts_with('/') {
                    format!("{}{rest}", to.trim_end_matches('/'))
                } else {
                    format!("{to}{rest}")
                })
            }
            Rewrite::Regex(regex, replacement) => Some(regex.replace(path, replacement.as_str()).into_owned()),
        }
        .map(|path| if path.starts_with('/') { path } else { format!("/{path}") })
    }
}

impl Pin {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        self.header.as_ref().is_none_or(|header| header.matches(asked.headers))
            && self.cookie.as_ref().is_none_or(|(name, value)| cookie(asked.headers, name) == Some(value.as_str()))
            && self.tenant.as_ref().is_none_or(|tenant| tenant == asked.tenant)
    }
}

fn rewrite(spec: &RewriteSpec, conditions: &Conditions) -> Result<Rewrite, Invalid> {
    Ok(match spec {
        RewriteSpec::Prefix(to) => match &conditions.path {
            Some(Text::Prefix(prefix)) => Rewrite::Prefix { from: prefix.trim_end_matches('/').len(), to: to.clone() },
            Some(Text::Exact(path)) => Rewrite::Prefix { from: path.len(), to: to.clone() },
            _ => return Err(Invalid("a prefix is replaced where the route matches one".to_owned())),
        },
        RewriteSpec::Regex { pattern, replacement } => Rewrite::Regex(bounded(pattern)?, replacement.clone()),
    })
}

/// The value of a cookie.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })
}
