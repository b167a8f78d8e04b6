//! What does an answer in the memory cache cost? Bytes of resident memory beside the value, and nanoseconds of a hit.
//!
//! `cargo run --release -p plinth-store --example cache_memory`. Times are of the processor, for each thread, so that a busy
//! machine counts little. Values have 256 bytes, keys 32; the keys of the look-ups are drawn evenly from what is there, so with
//! many entries most of a hit is waiting for the machine's memory.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement prints")]

use std::hint::black_box;
use std::time::Duration;

use plinth_runtime::{TaskGroup, World};
use plinth_store::cache::{Cache, MemoryCache};
use plinth_telemetry::CacheMetrics;
use plinth_types::cache_key::CacheScope;
use plinth_types::{ByteSize, CacheKey, DataType, Digest, Parameters, Shape, Tensor};

const VALUE: usize = 256;
const ROUNDS: usize = 5_000_000;

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Nanoseconds that this thread has run.
fn on_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::main]
async fn main() {
    let (tasks, world) = (TaskGroup::new("measure"), World::real());
    let scope = CacheScope::new(&"tenant".parse().unwrap(), &"model".parse().unwrap(), &[Digest::of(b"x")]);
    let input = |n: usize| {
        let mut data = vec![0u8; VALUE];
        data[..8].copy_from_slice(&n.to_le_bytes());
        Tensor::new("image", DataType::Fp32, Shape::new(vec![1, 64]).unwrap(), data.into()).unwrap()
    };
    let inputs: Vec<_> = (0..1000).map(|n| [input(n)]).collect();
    let start = on_cpu();
    for n in 0..1_000_000 {
        black_box(scope.key(&inputs[n % 1000], &[], &Parameters::new()));
    }
    println!("key of 256 bytes of input: {} ns", (on_cpu() - start) / 1_000_000);

    let cache = MemoryCache::open(ByteSize::mib(4096), CacheMetrics::default(), &world, &tasks);
    for entries in [1_000, 10_000, 100_000, 500_000] {
        let keys: Vec<CacheKey> = (0..entries).map(|n| scope.key(&[input(n + entries)], &[], &Parameters::new())).collect();
        let before = resident();
        for key in &keys {
            cache.put(key, vec![0u8; VALUE].into(), Duration::from_secs(600)).await;
        }
        cache.usage();
        let each = resident().saturating_sub(before) as usize / entries;
        let hits = |offset: usize| {
            let start = on_cpu();
            for n in 0..ROUNDS {
                let at = (n.wrapping_mul(0x9E37_79B9) ^ offset) % entries;
                black_box(cache.peek(&keys[at]).unwrap());
            }
            (on_cpu() - start) / ROUNDS as u64
        };
        let alone = hits(0);
        let both = std::thread::scope(|s| {
            let threads = [s.spawn(|| hits(1)), s.spawn(|| hits(2))];
            threads.map(|t| t.join().unwrap())
        });
        println!("{entries} entries: {} bytes each beside the value; a hit {alone} ns, on two threads {both:?} ns", each - VALUE);
    }
}
