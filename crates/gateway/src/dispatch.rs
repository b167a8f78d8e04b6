//! Carries a request of a users' route to its target, and to what stands in when the target cannot answer.
//!
//! A request passes its route's filters first, and its answer passes them last (`filters`). In between, in this order: the target is chosen (pins, then weights), or another one where the node's load asks for it; headers are
//! changed; a copy goes to the shadow; the target is asked within the route's time; on a failure that is not the caller's
//! fault the fallbacks are asked in turn, within the same time; the answer's headers are changed.
//!
//! Invariants: an answer that is not the target's says so (`x-plinth-fallback`, `x-plinth-degraded`), and one that took more than one attempt
//! says how many (`x-plinth-attempts`); what is asked twice was read whole before, within a bound, and a body over that bound is sent once and
//! never again; a shadow's answer reaches nobody, and shadows never hold more than [`MAX_SHADOWS`] requests.

mod answers;
pub mod grpc;
mod replay;
mod shadow;

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use plinth_api::Context;
use plinth_net::{BodyLimits, Request, Response, Router};
use plinth_policy::balance::hash;
use plinth_policy::overload::Level;
use plinth_runtime::{TaskGroup, World};
use plinth_store::resources::gateway::DegradeSpec;
use plinth_types::{Class, Error, Reason, Result, TenantName};
use tokio::time::Instant;

use crate::dispatch::answers::Answers;
use crate::dispatch::replay::Replay;
use crate::dispatch::shadow::Shadows;
use crate::filters::{Chain, Passed};
use crate::overload::gate::Urgency;
use crate::routes::{Asked, Fallback, Model, Route, Sticky, Target, To};
use crate::upstream::{Forward, ForwardedFor, Upstreams};

pub use answers::AnswersOptions;
pub use shadow::ShadowMetrics;

/// Which target answered, where there are several.
pub const TARGET: HeaderName = HeaderName::from_static("x-plinth-target");
/// What stood in.
pub const FALLBACK: HeaderName = HeaderName::from_static("x-plinth-fallback");
/// In what way a node under load has answered less.
pub const DEGRADED: HeaderName = HeaderName::from_static("x-plinth-degraded");
/// How often an upstream was asked, when that was more than once.
pub const ATTEMPTS: HeaderName = HeaderName::from_static("x-plinth-attempts");

/// How a caller asks to be answered later (RFC 7240); a node under load asks in its stead.
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The most copies that are on their way at a time.
const MAX_SHADOWS: usize = 64;
/// How long a copy may take.
const SHADOW_TIMEOUT: Duration = Duration::from_secs(30);

/// Who asks, and by which way.
pub struct Origin {
    /// What handlers know of the request.
    pub context: Context,
    /// Where it comes from.
    pub forwarded: ForwardedFor,
    /// How urgent it is.
    pub urgency: Urgency,
    /// How much the node has switched off.
    pub level: Level,
}

/// Carries requests. One for each gateway.
pub struct Dispatch {
    upstreams: Arc<Upstreams>,
    answers: Arc<Answers>,
    shadows: Shadows,
    replay: BodyLimits,
    /// Limits of bodies that are read for filters.
    filtered: BodyLimits,
    world: World,
}

/// What one request needs on its way to any target.
struct Errand<'a> {
    router: &'a Arc<Router<Context>>,
    origin: &'a Origin,
    route: &'a Arc<Route>,
    deadline: Option<Instant>,
    sticky: Option<u64>,
}

impl Dispatch {
    /// `replay` bounds what is read so that it can be asked twice.
    #[must_use]
    pub fn new(
        upstreams: Arc<Upstreams>,
        options: AnswersOptions,
        metrics: ShadowMetrics,
        replay: BodyLimits,
        world: World,
        tasks: TaskGroup,
    ) -> Self {
        let shadows = Shadows::new(MAX_SHADOWS, metrics, tasks);
        Self { upstreams, answers: Arc::new(Answers::new(options)), shadows, filtered: replay.clone(), replay, world }
    }

    /// How bodies are read before it is known whose they are.
    pub(crate) const fn bodies(&self) -> &BodyLimits {
        &self.replay
    }

    /// Answers a request of a route: through its filters, if it has any, and back.
    ///
    /// # Errors
    /// The target's, when nothing stands in for it; `deadline_exceeded` after the route's time; `filter_failed` and
    /// `filter_unavailable`.
    pub async fn answer(
        &self,
        router: &Arc<Router<Context>>,
        route: &Arc<Route>,
        origin: &Origin,
        request: Box<Request>,
    ) -> Result<Response> {
        if route.filters.is_empty() {
            return self.carry(router, route, origin, request).await;
        }
        Box::pin(self.through_filters(router, route, origin, request)).await
    }

    /// Before the route's own changes of headers: those may hold a key for the target, which is not for filters.
    async fn through_filters(
        &self,
        router: &Arc<Router<Context>>,
        route: &Arc<Route>,
        origin: &Origin,
        request: Box<Request>,
    ) -> Result<Response> {
        let filters = Chain::of(&route.filters).await?;
        match filters.request(route.name.as_str(), &self.filtered, *request).await? {
            Passed::Answered(answer) => Ok(answer),
            Passed::On(request, asked) => {
                let answer = self.carry(router, route, origin, Box::new(request)).await?;
                filters.response(&asked, answer).await
            }
        }
    }

    /// Carries a request to its target, or to what stands in.
    async fn carry(
        &self,
        router: &Arc<Router<Context>>,
        route: &Arc<Route>,
        origin: &Origin,
        mut request: Box<Request>,
    ) -> Result<Response> {
        let deadline = route.timeout.map(|time| Instant::now() + time);
        let (target, sticky) = self.target(route, origin, &request);
        // The caller's key has done its work; what a route sets in its place is for the target.
        request.headers_mut().remove(AUTHORIZATION);
        route.request_headers.apply(request.headers_mut());
        let errand = Errand { router, origin, route, deadline, sticky };
        let is_copied =
            route.shadow.as_ref().is_some_and(|shadow| (self.world.random.next_u64() >> 32) as u32 <= shadow.share && shadow.share > 0);
        let standby = !route.fallbacks.is_empty() || !route.degrade.is_empty() || is_copied;
        let mut answer = if standby {
            // What few routes need is not in what each request holds.
            match Box::pin(self.with_standby(&errand, target, is_copied, request)).await? {
                (answer, true) => return Ok(answer),
                (answer, false) => answer,
            }
        } else {
            self.ask(&errand, target, request).await?
        };
        if route.has_several_targets() {
            name(answer.headers_mut(), &TARGET, &target.name);
        }
        route.response_headers.apply(answer.headers_mut());
        Ok(answer)
    }

    /// Asks a target that something may stand in for, or whose requests are copied. Also whether the answer goes out as it is: an older one, in
    /// place of asking anybody.
    async fn with_standby(
        &self,
        errand: &Errand<'_>,
        target: &Target,
        is_copied: bool,
        mut request: Box<Request>,
    ) -> Result<(Response, bool)> {
        let (route, level) = (errand.route, errand.origin.level);
        let degraded = route.degrade.iter().rfind(|(spec, _)| level.number() >= spec.level);
        let replay = Replay::take(&mut request, &self.replay).await?;
        if let Some((spec, _)) = degraded
            && let Some((seconds, replay)) = spec.stale_seconds.zip(replay.as_ref())
            && let Some(answer) = self.answers.find(route, replay, Duration::from_secs(seconds.into()), &self.world)
        {
            return Ok((marked(answer, &DEGRADED, "stale"), true));
        }
        let copy = match (&replay, is_copied) {
            (Some(replay), true) => Some(self.shadows.begin(replay, errand, &self.upstreams)),
            _ => None,
        };
        let mut answer = self.first(errand, target, degraded, replay.as_ref(), request).await;
        if route.keeps_answers()
            && let (Ok(good), Some(replay)) = (&answer, &replay)
        {
            self.answers.keep(route, replay, good, &self.world);
        }
        if needs_help(&answer) {
            answer = self.stand_in(errand, answer, replay.as_ref()).await;
        }
        let answer = answer?;
        if let Some(copy) = copy.flatten() {
            copy.compare(&answer);
        }
        Ok((answer, false))
    }

    /// Asks the target, or what a node under load puts in its place.
    async fn first(
        &self,
        errand: &Errand<'_>,
        target: &Target,
        degraded: Option<&(DegradeSpec, Option<Model>)>,
        replay: Option<&Replay>,
        request: Box<Request>,
    ) -> Result<Response> {
        let Some((spec, model)) = degraded else { return self.ask(errand, target, request).await };
        let outside = model.is_none() && matches!(target.to, To::Upstream(_));
        let lighter = replay.filter(|_| !spec.parameters.is_empty()).and_then(|replay| replay.with_parameters(&spec.parameters, outside));
        let mut word = lighter.as_ref().map(|_| "parameters".to_owned());
        let mut request = lighter.map_or(request, |lighter| Box::new(lighter.request()));
        // Only models of this node answer later; a caller of gRPC cannot be told where.
        let is_local = model.is_some() || matches!(target.to, To::Model(_));
        let later = spec.asynchronous && is_local && errand.origin.context.routed.is_none();
        if later {
            request.headers_mut().append(PREFER, HeaderValue::from_static("respond-async"));
            word = Some("asynchronous".to_owned());
        }
        let (answer, word) = match model {
            Some(model) if !later => (self.model(errand, model, request).await, Some(model.describe())),
            Some(model) => (self.model(errand, model, request).await, word),
            None => (self.ask(errand, target, request).await, word),
        };
        answer.map(|answer| match word {
            Some(word) => marked(answer, &DEGRADED, &word),
            None => answer,
        })
    }

    /// The target of a request, and the number of the caller where that matters.
    fn target<'r>(&self, route: &'r Route, origin: &Origin, request: &Request) -> (&'r Target, Option<u64>) {
        let principal = &origin.context.principal;
        let sticky = route.sticky.as_ref().and_then(|sticky| key(sticky, &principal.tenant, principal.user.0, origin, request.headers()));
        let host = host(request);
        let asked = Asked {
            method: request.method(),
            path: request.uri().path(),
            host: &host,
            headers: request.headers(),
            tenant: &principal.tenant,
            model: None,
        };
        (route.target(&asked, sticky.unwrap_or_else(|| self.world.random.next_u64())), sticky)
    }

    async fn ask(&self, errand: &Errand<'_>, target: &Target, request: Box<Request>) -> Result<Response> {
        match &target.to {
            To::Model(model) => self.model(errand, model, request).await,
            To::Upstream(name) => upstream(&self.upstreams, errand, name, request).await,
        }
    }

    async fn model(&self, errand: &Errand<'_>, model: &Model, request: Box<Request>) -> Result<Response> {
        within(errand.deadline, to_model(errand, model, request)).await
    }

    /// Asks those who stand in, in turn.
    async fn stand_in(&self, errand: &Errand<'_>, mut failed: Result<Response>, replay: Option<&Replay>) -> Result<Response> {
        for fallback in &errand.route.fallbacks {
            let (answer, word) = match (fallback, replay) {
                // A caller of gRPC can do nothing with it.
                (Fallback::Static { .. }, _) if errand.origin.context.routed.is_some() => continue,
                (Fallback::Static { status, content_type, body }, _) => (Ok(fixed(*status, content_type, body)), "static"),
                (Fallback::Cached(age), Some(replay)) => match self.answers.find(errand.route, replay, *age, &self.world) {
                    Some(answer) => (Ok(answer), "cached"),
                    None => continue,
                },
                (Fallback::Target(target), Some(replay)) => {
                    (self.ask(errand, target, Box::new(replay.request())).await, target.name.as_str())
                }
                (_, None) => continue,
            };
            if !needs_help(&answer) {
                return answer.map(|answer| marked(answer, &FALLBACK, word));
            }
            failed = failed.or(answer);
        }
        failed
    }
}

/// Asks a model of this node.
async fn to_model(errand: &Errand<'_>, model: &Model, mut request: Box<Request>) -> Result<Response> {
    // What the answer may be on its way out is the route's to say.
    request.headers_mut().remove(ACCEPT_ENCODING);
    if let Some(routed) = &errand.origin.context.routed {
        return grpc::to_model(errand, model, routed, *request).await;
    }
    let path = model.path(request.uri().path());
    let path = path.ok_or_else(|| Error::new(Reason::RouteNotFound, "the route names no model, and neither does the path"))?;
    set_path(&mut request, &path)?;
    let found = errand.router.find(request.method(), &path)?;
    plinth_identity::authorise(&errand.origin.context.principal, found.route.access)?;
    found.route.handler.call(*request, found.params, errand.origin.context.clone()).await
}

/// Asks an upstream of the tenant, or one of the default tenant that all share.
async fn upstream(
    upstreams: &Arc<Upstreams>,
    errand: &Errand<'_>,
    name: &plinth_types::Label,
    mut request: Box<Request>,
) -> Result<Response> {
    let own = upstreams.get(&errand.route.tenant, name);
    let found = own.or_else(|| upstreams.get(&TenantName::default_tenant(), name));
    let found = found.ok_or_else(|| Error::new(Reason::UpstreamUnavailable, "the route's upstream does not exist any more"))?;
    if let Some(path) = errand.route.rewritten(request.uri().path()) {
        set_path(&mut request, &path)?;
    }
    let principal = &errand.origin.context.principal;
    let own = || key(&Sticky::compile(found.sticky()?), &principal.tenant, principal.user.0, errand.origin, request.headers());
    let how = Forward {
        deadline: errand.deadline,
        sticky: errand.sticky.or_else(own),
        extra: errand.origin.level.hedges(),
        urgency: errand.origin.urgency,
        idempotent: errand.route.idempotent,
        forwarded: errand.origin.forwarded.clone(),
        pass_authorization: true,
    };
    if request.headers().contains_key(UPGRADE) {
        return Box::pin(found.upgrade(*request, how)).await;
    }
    let (mut answer, attempted) = found.forward(*request, how).await?;
    if attempted.attempts > 1 {
        answer.headers_mut().insert(ATTEMPTS, attempted.attempts.into());
    }
    Ok(answer)
}

async fn within(deadline: Option<Instant>, work: impl Future<Output = Result<Response>>) -> Result<Response> {
    let Some(deadline) = deadline else { return work.await };
    let late = |_| Err(Error::new(Reason::DeadlineExceeded, "the time that the route allows has passed"));
    tokio::time::timeout_at(deadline, work).await.unwrap_or_else(late)
}

/// Whether this is a failure that is not the caller's fault.
fn needs_help(answer: &Result<Response>) -> bool {
    match answer {
        Ok(answer) => matches!(answer.status().as_u16(), 502..=504),
        Err(error) => matches!(error.class(), Class::Unavailable | Class::RunnerFailed | Class::DeadlineExceeded),
    }
}

fn set_path(request: &mut Request, path: &str) -> Result<()> {
    let text = request.uri().query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let malformed = |_| Error::new(Reason::MalformedRequest, "the path cannot be sent on").field("path");
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = Some(text.parse::<PathAndQuery>().map_err(malformed)?);
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    Ok(())
}

/// The host that a request is for, without the port.
pub fn host(request: &Request) -> String {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = request.uri().host().or(header).unwrap_or_default();
    let end = if host.starts_with('[') { host.find(']').map(|end| end + 1) } else { host.find(':') };
    host.get(..end.unwrap_or(host.len())).unwrap_or_default().to_owned()
}

fn key(sticky: &Sticky, tenant: &TenantName, user: u64, origin: &Origin, headers: &HeaderMap) -> Option<u64> {
    match sticky {
        Sticky::Header(name) => headers.get(name).map(|value| hash::key(value.as_bytes())),
        Sticky::Cookie(name) => crate::routes::cookie(headers, name).map(|value| hash::key(value.as_bytes())),
        Sticky::Tenant => Some(hash::key(tenant.as_str().as_bytes())),
        Sticky::User => Some(user),
        Sticky::Address => Some(hash::key(origin.forwarded.address.to_string().as_bytes())),
    }
}

fn fixed(status: u16, content_type: &str, body: &str) -> Response {
    let mut answer = Response::new(plinth_net::Body::full(body.to_owned()));
    *answer.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    if let Ok(kind) = HeaderValue::from_str(content_type) {
        answer.headers_mut().insert(CONTENT_TYPE, kind);
    }
    answer
}

fn marked(mut answer: Response, header: &HeaderName, word: &str) -> Response {
    name(answer.headers_mut(), header, word);
    answer
}

fn name(headers: &mut HeaderMap, header: &HeaderName, word: &str) {
    if let Ok(value) = HeaderValue::from_str(word) {
        headers.insert(header.clone(), value);
    }
}
