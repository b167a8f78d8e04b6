//! From names to addresses, remembered.
//!
//! Invariants: a name is asked for once at a time and again only when what is known is old; when nobody answers, the last known
//! addresses stand, so an upstream stays reachable while DNS is down; the memory is bounded. Whether an address may be dialled is
//! the [`Guard`](super::Guard)'s to say, each time.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::error::{Kind, OutboundError, Stage};

/// Asks for the addresses of a name.
pub trait Lookup: Send + Sync {
    /// All addresses of `host`, at best in the order in which to try them.
    fn lookup(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Asks the system (`getaddrinfo`).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// How names are remembered.
#[derive(Debug, Clone, Copy)]
pub struct ResolverOptions {
    /// How long an answer counts. The system does not say how long it may.
    pub ttl: Duration,
    /// How long an answer may take when nothing is known of the name.
    pub timeout: Duration,
    /// How long it may take when old addresses are there.
    pub refresh_timeout: Duration,
    /// How long after a failure the name is not asked for again.
    pub retry: Duration,
    /// The names that are remembered.
    pub max_names: usize,
    /// The addresses of one name.
    pub max_addresses: usize,
}

impl Default for ResolverOptions {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            timeout: Duration::from_secs(2),
            refresh_timeout: Duration::from_millis(250),
            retry: Duration::from_secs(5),
            max_names: 1024,
            max_addresses: 64,
        }
    }
}

/// Resolves names. Cheap to clone; clones share what is known.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    options: ResolverOptions,
    lookup: Box<dyn Lookup>,
    names: Mutex<HashMap<String, Arc<Name>>>,
}

struct Name {
    /// Held by the one who asks.
    asking: Semaphore,
    known: Mutex<Known>,
}

struct Known {
    addresses: Arc<[IpAddr]>,
    /// Until when nobody asks.
    fresh_until: Instant,
    used: Instant,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(ResolverOptions::default(), SystemLookup)
    }
}

impl Resolver {
    /// A resolver that knows nothing yet.
    #[must_use]
    pub fn new(options: ResolverOptions, lookup: impl Lookup + 'static) -> Self {
        Self(Arc::new(Inner { options, lookup: Box::new(lookup), names: Mutex::default() }))
    }

    /// The addresses of a name: at least one.
    ///
    /// Cancel safe: the next caller asks again.
    ///
    /// # Errors
    /// `Resolve` or `Timeout(Resolve)` when nobody says which they are and none are known.
    pub async fn resolve(&self, host: &str) -> Result<Arc<[IpAddr]>, OutboundError> {
        let name = self.name(host);
        if let Some(known) = name.fresh() {
            return found(known);
        }
        let old = name.addresses();
        let asking = async {
            // The semaphore is never closed.
            let _one = name.asking.acquire().await;
            if let Some(known) = name.fresh() {
                return found(known);
            }
            let answer = self.0.lookup.lookup(host).await;
            self.learn(&name, answer)
        };
        let options = &self.0.options;
        let patience = if old.is_empty() { options.timeout } else { options.refresh_timeout };
        let Ok(answer) = timeout(patience, asking).await else {
            name.not_before(options.retry);
            return if old.is_empty() { Err(OutboundError::unsent(Kind::Timeout(Stage::Resolve))) } else { Ok(old) };
        };
        answer
    }

    fn name(&self, host: &str) -> Arc<Name> {
        let now = Instant::now();
        let mut names = self.0.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = names.get(host) {
            name.known().used = now;
            return name.clone();
        }
        if names.len() >= self.0.options.max_names {
            let oldest = names.iter().min_by_key(|(_, name)| name.known().used).map(|(host, _)| host.clone());
            oldest.map(|host| names.remove(&host));
        }
        let known = Known { addresses: Arc::default(), fresh_until: now, used: now };
        let name = Arc::new(Name { asking: Semaphore::new(1), known: Mutex::new(known) });
        names.insert(host.to_owned(), name.clone());
        name
    }

    fn learn(&self, name: &Name, answer: io::Result<Vec<IpAddr>>) -> Result<Arc<[IpAddr]>, OutboundError> {
        let options = &self.0.options;
        let failure = match answer {
            Ok(addresses) if !addresses.is_empty() => {
                let mut known = name.known();
                known.addresses = addresses.into_iter().take(options.max_addresses).collect();
                known.fresh_until = Instant::now() + options.ttl;
                return Ok(known.addresses.clone());
            }
            Ok(_) => io::Error::other("the answer has no address"),
            Err(error) => error,
        };
        name.not_before(options.retry);
        found(name.addresses()).map_err(|error| error.source(failure))
    }
}

fn found(addresses: Arc<[IpAddr]>) -> Result<Arc<[IpAddr]>, OutboundError> {
    if addresses.is_empty() { Err(OutboundError::unsent(Kind::Resolve)) } else { Ok(addresses) }
}

impl Name {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addresses(&self) -> Arc<[IpAddr]> {
        self.known().addresses.clone()
    }

    /// What is known, if it is not to be asked for now. Empty after a failure.
    fn fresh(&self) -> Option<Arc<[IpAddr]>> {
        let known = self.known();
        (Instant::now() < known.fresh_until).then(|| known.addresses.clone())
    }

    fn not_before(&self, wait: Duration) {
        self.known().fresh_until = Instant::now() + wait;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Answers from a list; never, when it is at its end.
    #[derive(Clone, Default)]
    struct Script {
        answers: Arc<Mutex<VecDeque<io::Result<Vec<IpAddr>>>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Script {
        fn of(answers: impl IntoIterator<Item = Result<&'static str, ()>>) -> Self {
            let answer = |answer: Result<&str, ()>| answer.map(|ip| vec![ip.parse().unwrap()]).map_err(|()| io::Error::other("down"));
            Self { answers: Arc::new(Mutex::new(answers.into_iter().map(answer).collect())), ..Self::default() }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    impl Lookup for Script {
        fn lookup(&self, _host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let answer = self.answers.lock().unwrap().pop_front();
            Box::pin(async move {
                let Some(answer) = answer else { return std::future::pending().await };
                tokio::time::sleep(Duration::from_millis(10)).await;
                answer
            })
        }
    }

    async fn ask(resolver: &Resolver, host: &str) -> Result<String, Kind> {
        resolver.resolve(host).await.map(|addresses| addresses[0].to_string()).map_err(|error| error.kind)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_for_a_while_and_is_asked_for_once() {
        let script = Script::of([Ok("192.0.2.1"), Ok("192.0.2.2")]);
        let resolver = Resolver::new(ResolverOptions::default(), script.clone());
        let both = tokio::join!(ask(&resolver, "a"), ask(&resolver, "a"));
        assert_eq!((both.0.unwrap(), both.1.unwrap(), script.asked()), ("192.0.2.1".into(), "192.0.2.1".into(), 1));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(ask(&resolver, "a").await.unwrap(), "192.0.2.1");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(ask(&resolver, "a").await.unwrap(), "192.0.2.2");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_addresses_stand_while_dns_is_down() {
        let script = Script::of([Ok("192.0.2.1"), Err(())]);
        let resolver = Resolver::new(ResolverOptions::default(), script.clone());
        ask(&resolver, "a").await.unwrap();
        for hour in 0..3 {
            tokio::time::advance(Duration::from_secs(3600)).await;
            let start = Instant::now();
            assert_eq!(ask(&resolver, "a").await.unwrap(), "192.0.2.1", "{hour}");
            assert!(start.elapsed() <= Duration::from_millis(251), "a request does not wait long for what it does not need");
            assert_eq!(ask(&resolver, "a").await.unwrap(), "192.0.2.1");
        }
        assert_eq!(script.asked(), 4, "after a failure nobody asks for some seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_name_is_an_error_for_some_seconds() {
        let script = Script::of([Err(()), Ok("192.0.2.1")]);
        let resolver = Resolver::new(ResolverOptions::default(), script.clone());
        assert_eq!((ask(&resolver, "a").await, ask(&resolver, "a").await), (Err(Kind::Resolve), Err(Kind::Resolve)));
        assert_eq!(script.asked(), 1);
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(ask(&resolver, "a").await.is_ok());
        assert_eq!(ask(&resolver, "never").await, Err(Kind::Timeout(Stage::Resolve)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let script = Script::of((0..9).map(|_| Ok("192.0.2.1")));
        let resolver = Resolver::new(ResolverOptions { max_names: 4, ..ResolverOptions::default() }, script.clone());
        for host in ["a", "b", "c", "d", "a", "e", "f"] {
            ask(&resolver, host).await.unwrap();
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(resolver.0.names.lock().unwrap().len(), 4);
        ask(&resolver, "a").await.unwrap();
        assert_eq!(script.asked(), 6, "what is used stays");
    }
}
