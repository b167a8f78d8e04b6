//! The keys of one issuer as they are held, and when to ask for them anew.
//!
//! Invariants: at most one question is under way for an issuer; keys older than [`KEEP`] are not used; a key that is not
//! known leads to a question at most once in [`ASK_AGAIN`], whatever is asked besides at the steady pace of [`REFRESH`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use plinth_types::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::issuer::IssuerSpec;
use super::jwk::{self, Key};
use super::wire::Header;
use super::{ASK_AGAIN, KEEP, REFRESH};

/// Keys, and when the provider gave them.
#[derive(Debug)]
pub(super) struct Held {
    pub keys: Vec<Key>,
    pub fetched_at: Timestamp,
}

impl Held {
    /// Until when they are good without the provider, in milliseconds since 1970.
    pub(super) fn end(&self) -> u64 {
        self.fetched_at.plus(KEEP).millis()
    }
}

/// Keys as they are kept over a restart.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// The `iss` for which they were fetched; the keys of another are not used.
    issuer: String,
    /// The record's `jwks_url` at that time.
    source: Option<String>,
    fetched_at: Timestamp,
    /// The provider's document.
    document: String,
}

impl Kept {
    pub(super) fn new(spec: &IssuerSpec, fetched_at: Timestamp, document: &[u8]) -> Self {
        let document = String::from_utf8_lossy(document).into_owned();
        Self { issuer: spec.record.issuer.clone(), source: spec.record.jwks_url.clone(), fetched_at, document }
    }

    /// The keys, when they are this issuer's. A moment that lies ahead counts as now.
    pub(super) fn open(bytes: &[u8], spec: &IssuerSpec, now: Timestamp) -> Result<Held, String> {
        let kept: Self = serde_json::from_slice(bytes).map_err(|error| format!("the kept keys cannot be read: {error}"))?;
        if kept.issuer != spec.record.issuer || kept.source != spec.record.jwks_url {
            return Err("the kept keys are those of another issuer".to_owned());
        }
        Ok(Held { keys: jwk::keys(kept.document.as_bytes())?, fetched_at: kept.fetched_at.min(now) })
    }
}

/// The key of a token.
pub(super) enum Found {
    /// This one of these keys.
    Key(Arc<Held>, usize),
    /// None, and asking does not help.
    Refused(&'static str),
    /// None of those that are held.
    Unknown,
    /// No keys are held, or only such as are too old.
    Nothing,
}

/// An issuer with its keys.
pub(super) struct Issuer {
    pub spec: IssuerSpec,
    held: ArcSwapOption<Held>,
    /// Whether a question is under way.
    asking: AtomicBool,
    /// When a key that was not known last led to a question: monotonic milliseconds and one; 0 for never.
    asked: AtomicU64,
    /// When any question began last, in the same count.
    began: AtomicU64,
    /// Whether the last question was answered.
    answered: AtomicBool,
    /// Counts what may have changed the keys.
    news: watch::Sender<u64>,
}

impl Issuer {
    pub(super) fn new(spec: IssuerSpec) -> Self {
        Self {
            spec,
            held: ArcSwapOption::empty(),
            asking: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            began: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            news: watch::Sender::new(0),
        }
    }

    pub(super) fn held(&self) -> Option<Arc<Held>> {
        self.held.load_full()
    }

    /// Takes keys in; whether they differ from those before.
    pub(super) fn hold(&self, held: Held) -> bool {
        let before = self.held.swap(Some(Arc::new(held)));
        let same = before.zip(self.held.load_full()).is_some_and(|(before, now)| before.keys == now.keys);
        self.news.send_modify(|count| *count += 1);
        !same
    }

    /// The key of a token with this header.
    pub(super) fn find(&self, header: &Header, now: Timestamp) -> Found {
        let Some(held) = self.held().filter(|held| now.millis() < held.end()) else { return Found::Nothing };
        let mut fitting = held.keys.iter().enumerate().filter(|(_, key)| key.fits(header.alg));
        let place = match &header.kid {
            Some(kid) => {
                let mut named = held.keys.iter().enumerate().filter(|(_, key)| key.kid.as_ref() == Some(kid)).peekable();
                if named.peek().is_none() {
                    return Found::Unknown;
                }
                match named.find(|(_, key)| key.fits(header.alg)) {
                    Some((place, _)) => place,
                    None => return Found::Refused("the key is not for this algorithm"),
                }
            }
            None => match (fitting.next(), fitting.next()) {
                (Some((place, _)), None) => place,
                (None, _) => return Found::Unknown,
                (Some(_), Some(_)) => return Found::Refused("the issuer has several keys and the token does not say which"),
            },
        };
        Found::Key(held, place)
    }

    /// Whether the time has come to ask at the steady pace: sooner again when the last question was not answered.
    pub(super) fn due(&self, monotonic: Duration) -> bool {
        let pace = if self.answered.load(Ordering::Relaxed) { REFRESH } else { ASK_AGAIN };
        since(&self.began, monotonic).is_none_or(|passed| passed >= pace)
    }

    /// Whether a key that is not known may lead to a question now; counts as one when it may.
    pub(super) fn may_ask(&self, monotonic: Duration) -> bool {
        let before = self.asked.load(Ordering::Relaxed);
        let allowed = since(&self.asked, monotonic).is_none_or(|passed| passed >= ASK_AGAIN);
        allowed && self.asked.compare_exchange(before, count(monotonic), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking.load(Ordering::Acquire)
    }

    /// Whether the last question was answered.
    pub(super) fn was_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Begins a question, unless one is under way. It is over when what this returns is dropped.
    pub(super) fn begin(self: &Arc<Self>, monotonic: Duration) -> Option<Asking> {
        let free = self.asking.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if free {
            self.began.store(count(monotonic), Ordering::Relaxed);
        }
        free.then(|| Asking { issuer: self.clone(), answered: false })
    }

    /// Says when there may be other keys, or a question is over.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}

/// A question that is under way.
pub(super) struct Asking {
    pub issuer: Arc<Issuer>,
    /// Whether it was answered.
    pub answered: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.issuer.answered.store(self.answered, Ordering::Relaxed);
        self.issuer.asking.store(false, Ordering::Release);
        self.issuer.news.send_modify(|count| *count += 1);
    }
}

fn count(monotonic: Duration) -> u64 {
    u64::try_from(monotonic.as_millis()).unwrap_or(u64::MAX - 1) + 1
}

fn since(moment: &AtomicU64, monotonic: Duration) -> Option<Duration> {
    let moment = moment.load(Ordering::Relaxed);
    (moment > 0).then(|| Duration::from_millis(count(monotonic).saturating_sub(moment)))
}
