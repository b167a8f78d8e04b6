//! The step with real modules: what requests see of them, and how versions follow one another.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE};
use http::{Method, StatusCode};
use plinth_filters::{Host, HostOptions, Limits};
use plinth_net::{Body, BodyLimits, BodyMemory, Request, RequestBody};
use plinth_store::resources::gateway::{FilterSettings, OnFilterError};
use plinth_telemetry::BuildInfo;
use plinth_types::{ByteSize, Digest, Error, Reason, Timestamp};
use tokio::sync::Semaphore;

use super::exchange::Asked;
use super::*;

/// Modules by what they do; the digest of the word stands for the module.
const MODULES: [(&str, &str); 8] = [
    ("pass", "i64.const 0"),
    ("loop", "(loop br 0) i64.const 0"),
    ("trap", "unreachable"),
    // Answer with the record that stands at 16: its value's length is at 24.
    (
        "say",
        "(i64.or (i64.const 0x1000000000) (i64.add (i64.const 12) (i64.add (i64.load32_u (i32.const 20)) (i64.load32_u (i32.const 24)))))",
    ),
    ("echo", "(i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32)) (i64.extend_i32_u (local.get $size)))"),
    ("garbage", "i64.const 0x1000000001"),
    ("outside", "i64.const 0x7fffffff00000004"),
    ("bad", ""),
];

/// Compiles as a node does, when it is let.
struct Source {
    host: Host,
    let_through: Semaphore,
    loads: AtomicUsize,
}

#[async_trait]
impl FilterSource for Source {
    async fn load(&self, facts: FilterFacts<'_>, version: &FilterVersion) -> Result<Filter> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.let_through.acquire().await.map_err(|_| Error::internal("closed"))?.forget();
        let word = version.description.split(' ').next().unwrap_or_default();
        let (_, does) = MODULES.iter().find(|(name, _)| *name == word).ok_or_else(|| Error::internal("unknown"))?;
        if does.is_empty() {
            return Err(Error::new(Reason::SignatureMissing, format!("{} is not signed", facts.name)));
        }
        // What it says: `say 3 name value`.
        let mut words = version.description.splitn(4, ' ').skip(1);
        let kind: u32 = words.next().and_then(|kind| kind.parse().ok()).unwrap_or(0);
        let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut record: Vec<u8> = [kind, name.len() as u32, value.len() as u32].iter().flat_map(|number| number.to_le_bytes()).collect();
        record.extend_from_slice(name.as_bytes());
        record.extend_from_slice(value.as_bytes());
        let data: String = record.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let hook = if version.description.contains("answers") { "plinth_on_response" } else { "plinth_on_request" };
        let text = format!(
            r#"(module (memory (export "memory") 2) (data (i32.const 16) "{data}")
                (func (export "plinth_abi") (result i32) i32.const 1)
                (func (export "plinth_alloc") (param i32) (result i32) i32.const 4096)
                (func (export "{hook}") (param $at i32) (param $size i32) (result i64) {does}))"#
        );
        let limits = Limits { time: Duration::from_millis(2), memory: ByteSize::mib(1), body: ByteSize(64) };
        Ok(self.host.compile(&wat::parse_str(text).unwrap(), limits).unwrap())
    }
}

struct Setup {
    filters: Arc<Filters>,
    source: Arc<Source>,
    catalogue: Arc<Catalogue>,
}

fn setup() -> Setup {
    let host = Host::start(HostOptions { calls: 4, memory: ByteSize::mib(8) }).unwrap();
    let source = Arc::new(Source { host, let_through: Semaphore::new(0), loads: AtomicUsize::new(0) });
    let catalogue = Arc::new(Catalogue::new(BuildInfo { version: "0", commit: "unknown" }));
    let filters = Filters::new(source.clone(), catalogue.clone(), World::real(), TaskGroup::new("filters"));
    Setup { filters, source, catalogue }
}

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

fn version(does: &str, on_error: OnFilterError) -> FilterVersion {
    FilterVersion {
        description: does.to_owned(),
        module: Digest::of(does.as_bytes()),
        size: 1,
        settings: FilterSettings { on_error, ..FilterSettings::default() },
        signature: None,
        created_by: "a".to_owned(),
        created_at: Timestamp::from(std::time::UNIX_EPOCH),
    }
}

fn number(n: u64) -> VersionNumber {
    VersionNumber::try_from(n).unwrap()
}

impl Setup {
    /// Follows a ledger in which the filter `f` has these versions, and a route names these.
    fn follow(&self, versions: &[(u64, &str)], named: &[&str], on_error: OnFilterError) {
        let all: BTreeMap<_, _> = versions.iter().map(|(n, does)| (number(*n), version(does, on_error))).collect();
        let mut filters = BTreeMap::new();
        if let Some(last) = all.last_key_value().map(|(number, _)| *number) {
            let created_at = Timestamp::from(std::time::UNIX_EPOCH);
            let record = FilterRecord { versions: all, last_version: last, created_by: "a".to_owned(), created_at };
            filters.insert("f".parse().unwrap(), Arc::new(record));
        }
        let route = serde_json::json!({"targets": [{"to": {"upstream": "u"}}], "filters": named});
        let routes: BTreeMap<Label, _> = [("r".parse().unwrap(), Arc::new(serde_json::from_value(route).unwrap()))].into();
        self.filters.follow(&Arc::new([(tenant(), Arc::new(filters))].into()), &Arc::new([(tenant(), Arc::new(routes))].into()));
    }

    fn handle(&self, named: &str) -> Handle {
        self.filters.handle(&tenant(), &named.parse().unwrap())
    }

    /// Loads one version and gives the chain of a request.
    async fn one(does: &str, on_error: OnFilterError) -> (Self, Chain) {
        let setup = setup();
        setup.follow(&[(1, does)], &["f"], on_error);
        setup.source.let_through.add_permits(1);
        let chain = Chain::of(&[setup.handle("f")]).await.unwrap();
        (setup, chain)
    }

    fn counted(&self, outcome: &str) -> u64 {
        self.catalogue.filter_calls.get(["default", "f", outcome]).value()
    }
}

fn limits() -> BodyLimits {
    BodyLimits {
        max: ByteSize::mib(1),
        min_rate: ByteSize(1),
        window: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        memory: BodyMemory::new(ByteSize::mib(1)),
    }
}

fn request(body: &'static str) -> Request {
    let request = http::Request::post("/chat?x=1").header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, body.len());
    let request = request.header(AUTHORIZATION, "Bearer secret").header(COOKIE, "secret=1").header("x-b", "2");
    request.body(RequestBody::from(Bytes::from_static(body.as_bytes()))).unwrap()
}

async fn pass(chain: &Chain, request: Request) -> Result<Passed> {
    chain.request("r", &limits(), request).await
}

async fn body_of(request: &mut Request) -> Bytes {
    plinth_net::read_body(request, &limits()).await.unwrap()
}

fn reason<T>(result: Result<T>) -> Reason {
    result.err().expect("a refusal").reason()
}

#[tokio::test]
async fn a_request_goes_through_as_it_is_or_changed() {
    let (setup, chain) = Setup::one("pass", OnFilterError::Refuse).await;
    let Passed::On(mut same, _) = pass(&chain, request("{}")).await.unwrap() else { panic!("it goes on") };
    assert_eq!((body_of(&mut same).await, &same.headers()[AUTHORIZATION]), (Bytes::from("{}"), &"Bearer secret".parse().unwrap()));
    assert_eq!(setup.counted("unchanged"), 1);

    let (_, chain) = Setup::one("say 4  [\"masked\"]", OnFilterError::Refuse).await;
    let Passed::On(mut changed, _) = pass(&chain, request("{}")).await.unwrap() else { panic!("it goes on") };
    assert_eq!(changed.headers()[CONTENT_LENGTH], "10");
    assert_eq!(body_of(&mut changed).await, "[\"masked\"]");

    let (_, chain) = Setup::one("say 3 x-b 3", OnFilterError::Refuse).await;
    let Passed::On(changed, _) = pass(&chain, request("{}")).await.unwrap() else { panic!("it goes on") };
    assert_eq!(changed.headers()["x-b"], "3");

    let (_, chain) = Setup::one("say 5  403", OnFilterError::Refuse).await;
    let Passed::Answered(answer) = pass(&chain, request("{}")).await.unwrap() else { panic!("it answers") };
    assert_eq!(answer.status(), 403);
}

#[tokio::test]
async fn failures_are_answered_as_the_filter_says() {
    for (does, outcome) in
        [("trap", "trap"), ("loop", "time"), ("garbage", "answer"), ("outside", "answer"), ("say 3 connection x", "answer")]
    {
        let (setup, chain) = Setup::one(does, OnFilterError::Refuse).await;
        let refused = pass(&chain, request("{}")).await.err().expect("it fails");
        assert_eq!(refused.reason(), Reason::FilterFailed, "{does}");
        assert_eq!(setup.counted(outcome), 1, "{does}");
        let (_, chain) = Setup::one(does, OnFilterError::Skip).await;
        let Passed::On(mut same, _) = pass(&chain, request("{}")).await.unwrap() else { panic!("it goes on") };
        assert_eq!(body_of(&mut same).await, "{}", "{does}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_not_passed_by() {
    let long = "{\"a\":\"0123456789012345678901234567890123456789012345678901234567890123456789\"}";
    let grpc = || {
        let request = http::Request::post("/s/M").header(CONTENT_TYPE, "application/grpc+proto");
        request.body(RequestBody::from(Bytes::from_static(b"x"))).unwrap()
    };
    let (_, chain) = Setup::one("pass", OnFilterError::Refuse).await;
    assert_eq!(reason(pass(&chain, request(long)).await), Reason::BodyTooLarge);
    assert_eq!(reason(pass(&chain, grpc()).await), Reason::UnsupportedEncoding);
    let mut unannounced = request(long);
    unannounced.headers_mut().remove(CONTENT_LENGTH);
    assert_eq!(reason(pass(&chain, unannounced).await), Reason::BodyTooLarge);
    let (setup, chain) = Setup::one("trap", OnFilterError::Skip).await;
    let Passed::On(mut whole, _) = pass(&chain, request(long)).await.unwrap() else { panic!("it goes on") };
    assert_eq!(body_of(&mut whole).await, long);
    assert!(matches!(pass(&chain, grpc()).await, Ok(Passed::On(..))));
    assert_eq!((setup.counted("body"), setup.counted("trap")), (2, 0));
}

#[tokio::test]
async fn answers_come_back_changed() {
    let asked = || Asked { route: "r".into(), method: Method::POST, uri: "/chat".parse().unwrap() };
    let answer = |kind: &str, body: Body| http::Response::builder().header(CONTENT_TYPE, kind).header("etag", "x").body(body).unwrap();
    let streamed = |text: &'static str| Body::stream(futures_util::stream::iter([Ok(Bytes::from_static(text.as_bytes()))]));
    // The record says of itself in its name that it is about answers.
    let (_, chain) = Setup::one("say 4 answers [1]", OnFilterError::Refuse).await;
    for body in [Body::full("{}"), streamed("{}")] {
        let changed = chain.response(&asked(), answer("application/json", body)).await.unwrap();
        assert_eq!((&changed.headers()[CONTENT_LENGTH], changed.headers().contains_key("etag")), (&"3".parse().unwrap(), false));
        assert_eq!(changed.into_body().into_bytes().await.unwrap(), "[1]");
    }
    let (_, chain) = Setup::one("say 5 answers 202", OnFilterError::Refuse).await;
    let events = chain.response(&asked(), answer("text/event-stream", streamed("data: 1\n\n"))).await.unwrap();
    assert_eq!((events.status(), events.into_body().into_bytes().await.unwrap()), (StatusCode::ACCEPTED, Bytes::from("data: 1\n\n")));
    let long = "[\"0123456789012345678901234567890123456789012345678901234567890123456789\"]";
    for body in [Body::full(long), streamed(long)] {
        assert_eq!(reason(chain.response(&asked(), answer("application/json", body)).await), Reason::FilterFailed);
    }
    let (_, chain) = Setup::one("trap answers", OnFilterError::Skip).await;
    for text in ["{}", long] {
        let same = chain.response(&asked(), answer("application/json", streamed(text))).await.unwrap();
        assert_eq!(same.into_body().into_bytes().await.unwrap(), text);
    }
}

#[tokio::test]
async fn a_request_waits_for_what_is_loaded_and_a_newer_version_for_nobody() {
    let setup = setup();
    setup.follow(&[(1, "say 5  201")], &["f"], OnFilterError::Refuse);
    let route = [setup.handle("f")];
    let status = async |route: &[Handle]| match pass(&Chain::of(route).await?, request("{}")).await? {
        Passed::Answered(answer) => Ok::<_, Error>(answer.status().as_u16()),
        Passed::On(..) => Ok(0),
    };
    let waiting = status(&route);
    let letting = async {
        tokio::task::yield_now().await;
        setup.source.let_through.add_permits(1);
    };
    assert_eq!(tokio::join!(waiting, letting).0.unwrap(), 201);
    let state = |n| setup.filters.state(FilterFacts { tenant: &tenant(), name: &"f".parse().unwrap(), version: number(n) }).word;
    assert_eq!((state(1), state(2)), ("ready", "idle"));

    // The next one comes: until it is loaded the old one answers, and who pins the old one keeps it.
    setup.follow(&[(1, "say 5  201"), (2, "say 5  202")], &["f", "f@1"], OnFilterError::Refuse);
    assert_eq!((status(&route).await.unwrap(), state(2)), (201, "loading"));
    setup.source.let_through.add_permits(1);
    let pinned = [setup.handle("f@1")];
    while state(2) != "ready" {
        tokio::task::yield_now().await;
    }
    assert_eq!((status(&route).await.unwrap(), status(&pinned).await.unwrap()), (202, 201));

    // One that cannot be loaded leaves all as it is.
    setup.follow(&[(1, "say 5  201"), (2, "say 5  202"), (3, "bad")], &["f", "f@1"], OnFilterError::Refuse);
    setup.source.let_through.add_permits(1);
    while state(3) != "failed" {
        tokio::task::yield_now().await;
    }
    assert_eq!(status(&route).await.unwrap(), 202);
    assert_eq!(reason(status(&[setup.handle("f@3")]).await), Reason::FilterUnavailable);
    assert_eq!(setup.catalogue.filter_load_failures.value(), 1);

    // Gone: who has it in an older table of routes still finds it, others are refused.
    setup.follow(&[], &[], OnFilterError::Refuse);
    assert_eq!(status(&route).await.unwrap(), 202);
    assert_eq!(reason(status(&[setup.handle("f")]).await), Reason::FilterUnavailable);
    assert_eq!(setup.source.loads.load(Ordering::SeqCst), 3, "each version once");
}

#[tokio::test]
async fn a_filter_that_loops_is_left_alone() {
    let (setup, chain) = Setup::one("loop", OnFilterError::Refuse).await;
    let mut reasons = Vec::new();
    for _ in 0..12 {
        reasons.push(reason(pass(&chain, request("{}")).await));
    }
    assert_eq!(reasons.last(), Some(&Reason::FilterUnavailable), "{reasons:?}");
    assert!(setup.counted("time") < 12 && setup.counted("held") > 0);
    let state = setup.filters.state(FilterFacts { tenant: &tenant(), name: &"f".parse().unwrap(), version: number(1) });
    assert_eq!(state.word, "held");
}

#[test]
fn a_filter_sees_no_credentials() {
    let asked = Asked { route: "r".into(), method: Method::POST, uri: "/chat?x=1".parse().unwrap() };
    let headers = request("{}").headers().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_, chain) = runtime.block_on(Setup::one("pass", OnFilterError::Refuse));
    let message = exchange::message(&asked, None, &headers, &chain.0[0], Some(Bytes::from_static(b"{}")));
    let text = format!("{message:?}");
    let said = |word: &str| {
        let bytes: Vec<String> = word.bytes().map(|byte| byte.to_string()).collect();
        text.contains(&bytes.join(", "))
    };
    assert!(said("x-b") && said("/chat?x=1") && said("content-type"));
    assert!(!said("secret") && !said("Bearer") && !said("cookie"));
}
