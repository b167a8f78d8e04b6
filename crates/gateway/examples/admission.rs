//! What does it cost to pass an upstream's queue while nobody waits?
//!
//! Unit: nanoseconds for entering and leaving together, by one thread and by as many as there are processors at the same queue, and bytes allocated
//! for each. Command: `cargo run --release -p plinth-gateway --example admission`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, clippy::expect_used, reason = "a measuring tool reads clocks and prints")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use plinth_gateway::{Ask, Gate, Urgency};
use plinth_runtime::SystemClock;
use tikv_jemalloc_ctl::thread;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TIMES: u32 = 5_000_000;

/// Nanoseconds and bytes for each.
fn pass(gate: &Arc<Gate>) -> (f64, f64) {
    let ask = Ask { urgency: Urgency::default(), bytes: 0, left: None, limit: 128, latency: Duration::from_millis(5) };
    let allocated = thread::allocatedp::read().expect("jemalloc counts");
    let (before, began) = (allocated.get(), Instant::now());
    for _ in 0..TIMES {
        // Ready at once, because there is room.
        let pass = std::hint::black_box(gate).enter(ask).now_or_never().and_then(Result::ok).expect("there is room");
        drop(std::hint::black_box(pass));
    }
    let (took, bytes) = (began.elapsed(), allocated.get() - before);
    (took.as_nanos() as f64 / f64::from(TIMES), bytes as f64 / f64::from(TIMES))
}

fn main() {
    let gate = Gate::new(Arc::new(SystemClock));
    pass(&gate);
    let (ns, bytes) = pass(&gate);
    println!("one thread: {ns:.1} ns, {bytes:.3} bytes allocated");
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let all: Vec<_> = (0..threads)
        .map(|_| {
            std::thread::spawn({
                let gate = gate.clone();
                move || pass(&gate)
            })
        })
        .collect();
    for (number, thread) in all.into_iter().enumerate() {
        let (ns, bytes) = thread.join().expect("it measured");
        println!("thread {number} of {threads} at once: {ns:.1} ns, {bytes:.3} bytes allocated");
    }
}
