//! The engine: compiles modules, and holds what all calls share.
//!
//! Invariants: a module is compiled once, away from requests; it is accepted only after it was started on trial within its
//! limits; memory and stacks of calls come from a pool of fixed size, whose slots are wiped between calls. Compiled code is never
//! read from a file: it would have to be trusted blindly.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use plinth_types::ByteSize;
use tokio::sync::Semaphore;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, OptLevel, PoolingAllocationConfig};

use crate::abi;
use crate::call::{self, Call};
use crate::clock::Ticker;
use crate::failure::{Invalid, shown};
use crate::filter::{Exports, Filter};

/// The largest module, in bytes.
pub const MAX_MODULE: usize = 4 << 20;
/// The most elements of a table.
pub(crate) const TABLE: usize = 10_000;
/// How deep a module may call, in bytes of stack.
const STACK: usize = 256 << 10;
/// Slots of the pool for modules that are started on trial, beside those of calls.
const TRIALS: u32 = 8;

/// What the node allows.
#[derive(Debug, Clone, Copy)]
pub struct HostOptions {
    /// The most calls at a time; each keeps 4 GiB of addresses (not of memory).
    pub calls: u32,
    /// No call gets more memory than this.
    pub memory: ByteSize,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self { calls: 64, memory: ByteSize::mib(64) }
    }
}

/// What a filter may take for one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Processor time.
    pub time: Duration,
    /// Memory.
    pub memory: ByteSize,
    /// The largest body that it may answer with.
    pub body: ByteSize,
}

/// Compiles modules and runs them. Cheap to clone.
#[derive(Clone)]
pub struct Host(Arc<Shared>);

pub(crate) struct Shared {
    pub engine: Engine,
    linker: Linker<Call>,
    pub ticker: Ticker,
    pub places: Semaphore,
}

impl Host {
    /// Starts the engine and its clock.
    ///
    /// # Errors
    /// [`Invalid::Host`] when the machine has not the addresses for the pool, or no thread.
    pub fn start(options: HostOptions) -> Result<Self, Invalid> {
        let host = |error: wasmtime::Error| Invalid::Host(shown(&error.to_string()));
        let engine = Engine::new(&config(options)).map_err(host)?;
        let mut linker = Linker::new(&engine);
        linker.func_wrap(abi::IMPORTS, abi::LOG, call::log).map_err(host)?;
        let ticker = Ticker::start(engine.weak()).map_err(|error| Invalid::Host(error.to_string()))?;
        Ok(Self(Arc::new(Shared { engine, linker, ticker, places: Semaphore::new(options.calls as usize) })))
    }

    /// Compiles a module and starts it on trial. Blocking, and takes processor time: milliseconds for a small module, seconds for
    /// one of the largest.
    ///
    /// # Errors
    /// [`Invalid`] with a text for who pushed it.
    pub fn compile(&self, module: &[u8], limits: Limits) -> Result<Filter, Invalid> {
        if module.len() > MAX_MODULE {
            return Err(Invalid::TooLarge(module.len()));
        }
        let malformed = |error: wasmtime::Error| Invalid::Malformed(shown(&error.root_cause().to_string()));
        let module = Module::from_binary(&self.0.engine, module).map_err(malformed)?;
        if let Some(import) = module.imports().find(|import| (import.module(), import.name()) != (abi::IMPORTS, abi::LOG)) {
            return Err(Invalid::Import(shown(&format!("{}.{}", import.module(), import.name()))));
        }
        let exports = Exports::of(&module)?;
        // All names are known, so only their types can be wrong.
        let linked: InstancePre<Call> = self.0.linker.instantiate_pre(&module).map_err(|_| Invalid::Import("plinth.log".to_owned()))?;
        let mut filter = Filter::new(self.0.clone(), linked, exports, limits);
        block_on(filter.try_out())?;
        Ok(filter)
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").finish_non_exhaustive()
    }
}

fn config(options: HostOptions) -> Config {
    let slots = options.calls.saturating_add(TRIALS);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(slots).total_memories(slots).total_tables(slots).total_stacks(slots);
    pool.max_memories_per_module(1).max_tables_per_module(1).table_elements(TABLE);
    pool.max_memory_size(options.memory.as_usize());
    let mut config = Config::new();
    config.epoch_interruption(true).cranelift_opt_level(OptLevel::Speed);
    config.max_wasm_stack(STACK).async_stack_size(2 * STACK);
    // One memory of 32 bits, one thread: what the interface speaks of.
    config.wasm_multi_memory(false).wasm_memory64(false).wasm_relaxed_simd(false);
    config.wasm_backtrace_max_frames(None).generate_address_map(false).native_unwind_info(false);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Waits for a call on this thread. A call waits for nothing but its turn, so it is asked again at once.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::yield_now();
    }
}
