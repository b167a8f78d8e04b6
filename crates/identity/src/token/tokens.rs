//! Judges tokens: the cache of those that were judged before, the issuers, and the questions to their providers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use plinth_runtime::{OnEnd, TaskGroup, World};
use plinth_store::resources::Role;
use plinth_store::resources::gateway::IssuerRecord;
use plinth_types::{Digest, Error, Label, Reason, Result, TenantName, Timestamp};
use quick_cache::sync::Cache;
use serde_json::Value;

use super::claims::{self, Claims};
use super::issuer::IssuerSpec;
use super::key_set::{Asking, Found, Held, Issuer, Kept};
use super::wire::{Header, Parted};
use super::{FetchError, FetchJwks, KeyStore, MAX_DOCUMENT, MAX_ISSUERS, WAIT, jwk};
use crate::credentials::{invalid, user};
use crate::principal::UserKey;

/// What [`Tokens`] is made from.
pub struct TokensParts {
    /// Asks providers.
    pub fetch: Arc<dyn FetchJwks>,
    /// Keeps keys over a restart.
    pub store: Arc<dyn KeyStore>,
    /// Time.
    pub world: World,
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whose things. Whether there is such a tenant is not known here.
    pub tenant: TenantName,
    /// What it may do.
    pub role: Role,
    /// The user: issuer and subject.
    pub user: UserKey,
    /// The issuer's name and the subject, for people: `corp/alice`.
    pub subject: Arc<str>,
    /// Until when this may be believed, in milliseconds since 1970.
    end: u64,
    /// What was known of issuers and keys when it was judged.
    epoch: u64,
}

/// The most tokens of which it is remembered that they are good: about 10 MiB.
const MAX_REMEMBERED: usize = 32_768;

/// How long one question may take.
const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// How often to look which issuers are due.
const TICK: Duration = Duration::from_secs(5);

/// All issuers, and what they have signed. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Tokens(Arc<Shared>);

struct Shared {
    parts: TokensParts,
    tasks: TaskGroup,
    issuers: ArcSwap<Issuers>,
    good: Cache<Digest, Arc<Verified>>,
    /// Moves when an issuer or its keys change: what was judged before is judged again.
    epoch: AtomicU64,
}

#[derive(Default)]
struct Issuers {
    by_name: BTreeMap<Label, Arc<Issuer>>,
    /// By the `iss` of their tokens; several records may share one and differ in audience.
    by_iss: HashMap<String, Vec<Arc<Issuer>>>,
}

impl Tokens {
    /// With no issuer yet. Questions run in `tasks`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn start(parts: TokensParts, tasks: &TaskGroup) -> Self {
        let tokens = Self(Arc::new(Shared {
            parts,
            tasks: tasks.clone(),
            issuers: ArcSwap::default(),
            good: Cache::new(MAX_REMEMBERED),
            epoch: AtomicU64::new(0),
        }));
        let (weak, stop) = (Arc::downgrade(&tokens.0), tasks.cancelled().clone());
        tasks.spawn("keys of issuers", OnEnd::CancelGroup, async move {
            while stop.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
                let Some(shared) = weak.upgrade() else { break };
                Self(shared).ask_those_due();
            }
            stop.cancelled().await;
        });
        tokens
    }

    /// Takes in which issuers there are. What has not changed keeps its keys. Does not wait for anything.
    pub fn follow(&self, records: &BTreeMap<Label, Arc<IssuerRecord>>) {
        let old = self.0.issuers.load_full();
        let mut next = Issuers::default();
        for (name, record) in records {
            if next.by_name.len() == MAX_ISSUERS {
                tracing::warn!(max = MAX_ISSUERS, "there are more issuers than are used; the others are left out");
                break;
            }
            match IssuerSpec::new(name.clone(), IssuerRecord::clone(record)) {
                Ok(spec) => {
                    let known = old.by_name.get(name).filter(|issuer| issuer.spec == spec);
                    let issuer = known.cloned().unwrap_or_else(|| Arc::new(Issuer::new(spec)));
                    next.by_iss.entry(issuer.spec.record.issuer.clone()).or_default().push(issuer.clone());
                    next.by_name.insert(name.clone(), issuer);
                }
                Err(error) => tracing::warn!(issuer = %name, %error, "an issuer is left out"),
            }
        }
        let same = old.by_name.len() == next.by_name.len()
            && old.by_name.iter().all(|(name, issuer)| next.by_name.get(name).is_some_and(|other| Arc::ptr_eq(other, issuer)));
        if !same {
            self.0.issuers.store(Arc::new(next));
            self.0.epoch.fetch_add(1, Ordering::AcqRel);
            self.ask_those_due();
        }
    }

    /// Judges a token. For a token that was seen before the cost is that of a hash and a lookup. Cancel safe.
    ///
    /// # Errors
    /// [`Reason::CredentialsInvalid`] with one text; [`Reason::IssuerUnavailable`] when it cannot be judged because the
    /// provider does not answer.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Verified>> {
        // Read before judging: a change meanwhile makes the judgement one of before.
        let epoch = self.0.epoch.load(Ordering::Acquire);
        let digest = Digest::of(token.as_bytes());
        if let Some(known) = self.0.good.get(&digest)
            && known.epoch == epoch
            && now.millis() < known.end
        {
            return Ok(known);
        }
        let parted = Parted::read(token).map_err(invalid)?;
        let issuer = self.issuer(&parted.payload, now)?;
        let (held, place) = self.key(&issuer, &parted.header, now).await?;
        let key = held.keys.get(place).ok_or_else(|| Error::internal("a key that was found is gone"))?;
        if !key.verifies(parted.header.alg, parted.signed, &parted.signature) {
            return Err(invalid("the signature does not hold"));
        }
        let verified = Arc::new(judged(&issuer.spec, &parted.payload, held.end(), epoch).map_err(invalid)?);
        self.0.good.insert(digest, verified.clone());
        Ok(verified)
    }

    /// The issuer whose token this seems to be. What is refused here costs no signature.
    fn issuer(&self, payload: &[u8], now: Timestamp) -> Result<Arc<Issuer>> {
        let iss = claims::issuer(payload).ok_or_else(|| invalid("no issuer"))?;
        let issuers = self.0.issuers.load();
        let candidates = issuers.by_iss.get(&iss).ok_or_else(|| invalid("an issuer that is not known"))?;
        let claims = Claims::read(payload).map_err(invalid)?;
        let mut why = "an issuer that is not known";
        for issuer in candidates {
            match claims.check(&issuer.spec.record.issuer, &issuer.spec.record.audiences, now) {
                Ok(()) => return Ok(issuer.clone()),
                Err(text) => why = text,
            }
        }
        Err(invalid(why))
    }

    /// The key of a token; waits for a question when it is not known.
    async fn key(&self, issuer: &Arc<Issuer>, header: &Header, now: Timestamp) -> Result<(Arc<Held>, usize)> {
        let deadline = tokio::time::Instant::now() + WAIT;
        let mut asked = false;
        loop {
            let mut news = issuer.news();
            let nothing = match issuer.find(header, now) {
                Found::Key(held, place) => return Ok((held, place)),
                Found::Refused(why) => return Err(invalid(why)),
                Found::Unknown => false,
                Found::Nothing => true,
            };
            if !asked && issuer.may_ask(self.monotonic()) {
                self.ask(issuer);
            }
            if !issuer.is_asking() {
                let in_vain = asked && !issuer.was_answered();
                return Err(if nothing || in_vain { unavailable() } else { invalid("a key that is not known") });
            }
            asked = true;
            // Also what ends between the look and the wait is news: the receiver was made before.
            if tokio::time::timeout_at(deadline, news.changed()).await.is_err() {
                return Err(unavailable());
            }
        }
    }

    fn ask_those_due(&self) {
        let issuers = self.0.issuers.load();
        for issuer in issuers.by_name.values().filter(|issuer| issuer.due(self.monotonic())) {
            self.ask(issuer);
        }
    }

    /// Asks an issuer's provider for its keys, unless that is under way.
    fn ask(&self, issuer: &Arc<Issuer>) {
        let Some(asking) = issuer.begin(self.monotonic()) else { return };
        let (tokens, stop) = (self.clone(), self.0.tasks.cancelled().clone());
        self.0.tasks.spawn("ask an issuer", OnEnd::Ignore, async move {
            let _ = stop.run_until_cancelled(tokens.question(asking)).await;
        });
    }

    async fn question(&self, mut asking: Asking) {
        let issuer = asking.issuer.clone();
        if issuer.held().is_none() {
            self.recall(&issuer).await;
        }
        let fetched = tokio::time::timeout(ASK_DEADLINE, self.fetch(&issuer.spec)).await;
        match fetched.unwrap_or_else(|_| Err(FetchError("the provider did not answer in time".to_owned()))) {
            Ok((document, keys)) => {
                let now = self.0.parts.world.clock.now();
                self.hold(&issuer, Held { keys, fetched_at: now });
                asking.answered = true;
                drop(asking);
                self.keep(&issuer, Kept::new(&issuer.spec, now, &document)).await;
            }
            Err(error) => {
                let since = issuer.held().map(|held| held.fetched_at.to_string());
                tracing::warn!(issuer = %issuer.spec.name, %error, keys_of = since, "the keys of an issuer cannot be fetched");
            }
        }
    }

    fn hold(&self, issuer: &Issuer, held: Held) {
        if issuer.hold(held) {
            self.0.epoch.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The provider's document, and its keys.
    async fn fetch(&self, spec: &IssuerSpec) -> Result<(bytes::Bytes, Vec<jwk::Key>), FetchError> {
        let networks = &spec.record.allow_networks;
        let url = match &spec.record.jwks_url {
            Some(url) => url.clone(),
            None => {
                let found = bounded(self.0.parts.fetch.fetch(&spec.discovery_url(), networks).await?)?;
                described(spec, &found)?
            }
        };
        let document = bounded(self.0.parts.fetch.fetch(&url, networks).await?)?;
        let keys = jwk::keys(&document).map_err(FetchError)?;
        Ok((document, keys))
    }

    /// Takes back what was kept before a restart.
    async fn recall(&self, issuer: &Issuer) {
        let (store, name) = (self.0.parts.store.clone(), issuer.spec.name.clone());
        let loaded = match tokio::task::spawn_blocking(move || store.load(&name)).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(error)) => {
                tracing::warn!(issuer = %issuer.spec.name, %error, "the kept keys of an issuer cannot be read");
                None
            }
            Err(_) => None,
        };
        let Some(bytes) = loaded else { return };
        match Kept::open(&bytes, &issuer.spec, self.0.parts.world.clock.now()) {
            Ok(held) => self.hold(issuer, held),
            Err(text) => tracing::info!(issuer = %issuer.spec.name, text, "kept keys are not used"),
        }
    }

    async fn keep(&self, issuer: &Issuer, kept: Kept) {
        let (store, name) = (self.0.parts.store.clone(), issuer.spec.name.clone());
        let saved = tokio::task::spawn_blocking(move || store.save(&name, &serde_json::to_vec(&kept)?)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(issuer = %issuer.spec.name, %error, "the keys of an issuer cannot be kept for the next start");
        }
    }

    fn monotonic(&self) -> Duration {
        self.0.parts.world.clock.monotonic()
    }
}

/// What a token whose signature holds means here.
fn judged(spec: &IssuerSpec, payload: &[u8], keys_end: u64, epoch: u64) -> Result<Verified, &'static str> {
    let (claims, all) = (Claims::read(payload)?, serde_json::from_slice::<Value>(payload).map_err(|_| "the claims are malformed")?);
    let role = spec.role(&all).ok_or("no word that means a role")?;
    Ok(Verified {
        tenant: spec.tenant(&all)?,
        role,
        user: user(&["token", &spec.record.issuer, claims.subject()]),
        subject: format!("{}/{}", spec.name, claims.subject()).into(),
        end: claims.end().min(keys_end),
        epoch,
    })
}

/// The address of the keys in a provider's description of itself (OpenID Connect Discovery 1.0, 4.3).
fn described(spec: &IssuerSpec, document: &[u8]) -> Result<String, FetchError> {
    #[derive(serde::Deserialize)]
    struct Description {
        issuer: String,
        jwks_uri: String,
    }
    let found: Description =
        serde_json::from_slice(document).map_err(|error| FetchError(format!("the provider's description cannot be read: {error}")))?;
    if found.issuer != spec.record.issuer {
        return Err(FetchError("the provider's description is that of another issuer".to_owned()));
    }
    if !spec.may_fetch(&found.jwks_uri) {
        return Err(FetchError("the provider names an address for its keys that is not fetched".to_owned()));
    }
    Ok(found.jwks_uri)
}

fn bounded(document: bytes::Bytes) -> Result<bytes::Bytes, FetchError> {
    if document.len() > MAX_DOCUMENT { Err(FetchError("the provider's document is too long".to_owned())) } else { Ok(document) }
}

fn unavailable() -> Error {
    Error::new(Reason::IssuerUnavailable, "the issuer of the token cannot be asked for its keys now; try again").retry_after(WAIT)
}
