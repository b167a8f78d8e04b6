//! What does an upstream cost over the bare client: choice, breaker, load, limit, budget, headers, metrics?
//!
//! Unit: nanoseconds of processor time of the calling thread for each request, and requests a second. One thread asks, on a runtime of
//! its own, with so many requests at a time; another thread answers. Both ways are measured in turn, in the same run; the median counts.
//!
//! `cargo run --release -p plinth-gateway --example forward_echo [callers] [requests] [rounds] [which: both, bare, forward]`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use plinth_gateway::upstream::{Forward, ForwardedFor, Upstream, Upstreams, UpstreamsOptions};
use plinth_net::outbound::{Deadlines, Endpoint, Guard, OutBody, Outbound, OutboundMetrics, OutboundOptions, Resolver};
use plinth_net::{BodyLimits, BodyMemory, RequestBody};
use plinth_runtime::{Clock, OnEnd, SystemClock, TaskGroup, World};
use plinth_store::resources::gateway::{BalanceWord, EndpointSpec, UpstreamRecord};
use plinth_telemetry::{BuildInfo, Catalogue};
use plinth_types::{ByteSize, TenantName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";
const ENDPOINTS: usize = 2;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is measured of a round.
struct Round {
    cpu: Duration,
    wall: Duration,
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual: usize| arguments.next().map_or(Ok(usual), |text| text.parse());
    let (callers, requests, rounds) = (number(64)?, number(100_000)?, number(7)?);
    let which = std::env::args().nth(4).unwrap_or_else(|| "both".into());
    let addresses = serve()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let tasks = TaskGroup::new("example");
        let bare = bare(addresses[0], &tasks)?;
        let upstream = upstream(&addresses, &tasks)?;
        let (mut plain, mut forwarded) = (Vec::new(), Vec::new());
        for _ in 0..=rounds {
            if which != "forward" {
                plain.push(measure(callers, requests, || send(&bare)).await?);
            }
            if which != "bare" {
                forwarded.push(measure(callers, requests, || forward(&upstream)).await?);
            }
        }
        let plain = report("Endpoint::send", plain, requests);
        let forwarded = report("Upstream::forward", forwarded, requests);
        say(&format!("added: {} ns of processor time", forwarded.saturating_sub(plain)));
        tasks.cancel();
        Ok(())
    })
}

/// The first round warms up. Returns the median.
fn report(name: &str, rounds: Vec<Round>, requests: usize) -> u64 {
    let each = |time: Duration| time.as_nanos() as u64 / requests as u64;
    let mut rounds: Vec<_> = rounds.into_iter().skip(1).collect();
    rounds.sort_by_key(|round| round.cpu);
    let Some(median) = rounds.get(rounds.len() / 2) else { return 0 };
    let range = rounds.first().zip(rounds.last()).map_or((0, 0), |(a, b)| (each(a.cpu), each(b.cpu)));
    let per_second = requests as f64 / median.wall.as_secs_f64();
    say(&format!("{name}: {} ns (from {} to {}), {per_second:.0} requests/s", each(median.cpu), range.0, range.1));
    each(median.cpu)
}

#[allow(clippy::print_stdout, reason = "an example says what it has measured")]
fn say(text: &str) {
    println!("{text}");
}

async fn measure<F: Future<Output = Result<(), Failure>>>(callers: usize, requests: usize, ask: impl Fn() -> F) -> Result<Round, Failure> {
    let caller = async || {
        for _ in 0..requests / callers {
            ask().await?;
        }
        Ok::<_, Failure>(())
    };
    let (cpu, wall) = (cpu()?, SystemClock.monotonic());
    futures_util::future::try_join_all((0..callers).map(|_| caller())).await?;
    Ok(Round { cpu: self::cpu()?.saturating_sub(cpu), wall: SystemClock.monotonic().saturating_sub(wall) })
}

/// The processor time of this thread.
fn cpu() -> Result<Duration, Failure> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?))
}

fn head() -> http::request::Builder {
    Request::get("/v1/echo?x=1")
        .header("host", "api.example")
        .header("user-agent", "example/1")
        .header("accept", "*/*")
        .header("x-request-id", "0123456789abcdef")
}

async fn send(endpoint: &Endpoint) -> Result<(), Failure> {
    let answer = endpoint.send(head().body(OutBody::empty())?, &Deadlines::default()).await?;
    check(answer.status().is_success() && answer.body().len() == Some(5))
}

async fn forward(upstream: &Upstream) -> Result<(), Failure> {
    let host = Some(http::HeaderValue::from_static("api.example"));
    let forwarded = ForwardedFor::direct([192, 0, 2, 7].into(), "https", host);
    let how = Forward {
        deadline: None,
        sticky: None,
        extra: true,
        urgency: plinth_gateway::Urgency::default(),
        idempotent: None,
        forwarded,
        pass_authorization: false,
    };
    let (answer, _) = upstream.forward(head().body(RequestBody::empty())?, how).await?;
    check(answer.status().is_success() && answer.body().len() == Some(5))
}

fn check(holds: bool) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err("not the answer that was expected".into()) }
}

fn bare(address: SocketAddr, tasks: &TaskGroup) -> Result<Endpoint, Failure> {
    let guard = Guard::new(["127.0.0.0/8".parse()?]);
    let outbound = Outbound::new(OutboundOptions::default(), guard, Resolver::default(), OutboundMetrics::default(), tasks)?;
    Ok(outbound.endpoint(format!("http://{address}").parse()?))
}

fn upstream(addresses: &[SocketAddr], tasks: &TaskGroup) -> Result<Arc<Upstream>, Failure> {
    let record = UpstreamRecord {
        description: String::new(),
        endpoints: addresses.iter().map(|address| EndpointSpec { url: format!("http://{address}"), weight: 1 }).collect(),
        balance: BalanceWord::LeastLoaded,
        allow_networks: vec!["127.0.0.0/8".into()],
        connect_timeout_ms: None,
        response_timeout_ms: None,
        idle_timeout_ms: None,
        max_connections: None,
        breaker: None,
        attempts: None,
        hedge: false,
        idempotent: false,
        adaptive_concurrency: true,
        health: None,
    };
    let (minute, memory) = (Duration::from_secs(60), BodyMemory::new(ByteSize::mib(64)));
    let bodies = BodyLimits { max: ByteSize::mib(1), min_rate: ByteSize::kib(1), window: minute, timeout: minute, memory };
    let catalogue = Arc::new(Catalogue::new(BuildInfo { version: "0", commit: "0" }));
    let upstreams = Upstreams::new(UpstreamsOptions::new(bodies), &World::real(), catalogue, tasks)?;
    let (tenant, name) = (TenantName::default_tenant(), "echo".parse()?);
    upstreams.apply([(&tenant, &name, &record)].into_iter());
    upstreams.get(&tenant, &name).ok_or_else(|| "there is no upstream".into())
}

/// Servers that always say the same, on a thread of their own.
fn serve() -> Result<[SocketAddr; ENDPOINTS], Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut addresses = [SocketAddr::from(([127, 0, 0, 1], 0)); ENDPOINTS];
    let mut listeners = Vec::new();
    for address in &mut addresses {
        let listener = runtime.block_on(TcpListener::bind(*address))?;
        *address = listener.local_addr()?;
        listeners.push(listener);
    }
    std::thread::spawn(move || {
        let tasks = TaskGroup::new("servers");
        runtime.block_on(futures_util::future::join_all(listeners.into_iter().map(|listener| accept(listener, tasks.clone()))));
    });
    Ok(addresses)
}

async fn accept(listener: TcpListener, tasks: TaskGroup) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tasks.spawn("connection", OnEnd::Ignore, async move {
            let _ = stream.set_nodelay(true);
            let mut head = Vec::with_capacity(4096);
            while let Ok(1..) = stream.read_buf(&mut head).await {
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    if stream.write_all(ANSWER).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}
