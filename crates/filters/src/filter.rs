//! A compiled filter, and how it is called.
//!
//! Invariant: a call sees only its own message; what the module says of places in its memory is checked before it is used; the
//! instance is gone when the call ends, also when nobody waits for it any more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::{Extern, ExternType, Instance, InstancePre, Memory, Module, ModuleExport, Store, Trap, TypedFunc, WasmParams, WasmResults};

use crate::abi;
use crate::call::{self, Call};
use crate::failure::{Failure, Invalid, shown};
use crate::host::{Limits, Shared};
use crate::message::{Answer, MAX_BESIDE, Message};

/// How long a call waits for a place in the pool.
const PLACE: Duration = Duration::from_secs(1);

/// When a filter is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// With a request, before its target is asked.
    Request,
    /// With the answer.
    Response,
}

/// What a filter wants to be called with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wants {
    /// Requests.
    pub requests: bool,
    /// … with their bodies.
    pub request_bodies: bool,
    /// Answers.
    pub responses: bool,
    /// … with their bodies.
    pub response_bodies: bool,
}

/// What a call came to.
#[derive(Debug)]
pub struct Called {
    /// The answer; `None`: all stays as it is.
    pub result: Result<Option<Answer>, Failure>,
    /// Lines for the log with their levels. They may hold anything that is in the message.
    pub lines: Vec<(i32, String)>,
}

/// A module that was compiled and has passed its trial.
pub struct Filter {
    host: Arc<Shared>,
    linked: InstancePre<Call>,
    exports: Exports,
    limits: Limits,
    wants: Wants,
}

/// Where a module has what filters export. Of functions only the names are looked at here, and their types at the trial.
pub(crate) struct Exports {
    memory: ModuleExport,
    abi: ModuleExport,
    alloc: ModuleExport,
    on_request: Option<ModuleExport>,
    on_response: Option<ModuleExport>,
    wants: Option<ModuleExport>,
}

impl Exports {
    pub fn of(module: &Module) -> Result<Self, Invalid> {
        let is_memory = matches!(module.get_export(abi::MEMORY), Some(ExternType::Memory(_)));
        let memory = module.get_export_index(abi::MEMORY).filter(|_| is_memory);
        let (on_request, on_response) = (module.get_export_index(abi::ON_REQUEST), module.get_export_index(abi::ON_RESPONSE));
        if on_request.is_none() && on_response.is_none() {
            return Err(Invalid::Export("'plinth_on_request' or 'plinth_on_response', of type (i32, i32) -> i64"));
        }
        Ok(Self {
            memory: memory.ok_or(Invalid::Export("its memory as 'memory'"))?,
            abi: module.get_export_index(abi::ABI).ok_or(Invalid::Export("'plinth_abi', of type () -> i32"))?,
            alloc: module.get_export_index(abi::ALLOC).ok_or(Invalid::Export("'plinth_alloc', of type (i32) -> i32"))?,
            on_request,
            on_response,
            wants: module.get_export_index(abi::WANTS),
        })
    }
}

/// What a call runs in.
struct Running {
    store: Store<Call>,
    instance: Instance,
}

impl Filter {
    pub(crate) fn new(host: Arc<Shared>, linked: InstancePre<Call>, exports: Exports, limits: Limits) -> Self {
        Self { host, linked, exports, limits, wants: Wants::default() }
    }

    /// What it wants to be called with.
    #[must_use]
    pub const fn wants(&self) -> Wants {
        self.wants
    }

    /// What it may take for one call.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Calls it. Cancel safe: a call that nobody waits for ends at its next tick.
    pub async fn call(&self, hook: Hook, message: &Message) -> Called {
        let function = match hook {
            Hook::Request => &self.exports.on_request,
            Hook::Response => &self.exports.on_response,
        };
        let Some(function) = function else { return Called { result: Ok(None), lines: Vec::new() } };
        let place = match self.host.places.try_acquire() {
            Ok(place) => Ok(place),
            Err(_) => tokio::time::timeout(PLACE, self.host.places.acquire()).await.map_err(drop).and_then(|place| place.map_err(drop)),
        };
        let Ok(_place) = place else { return Called { result: Err(Failure::Busy), lines: Vec::new() } };
        let _ticking = self.host.ticker.hold();
        let mut store = self.store();
        let result = self.run(&mut store, function, message).await;
        let call = store.into_data();
        Called { result: result.map_err(|failure| told(failure, &call)), lines: call.lines }
    }

    async fn run(&self, store: &mut Store<Call>, function: &ModuleExport, message: &Message) -> Result<Option<Answer>, Failure> {
        let instance = self.linked.instantiate_async(&mut *store).await.map_err(failed)?;
        let size = i32::try_from(message.len()).map_err(|_| Failure::Memory)?;
        let memory = self.memory(&instance, store)?;
        let alloc = typed::<i32, i32>(&instance, store, &self.exports.alloc).ok_or(Failure::Answer(TYPE))?;
        let at = alloc.call_async(&mut *store, size).await.map_err(failed)?;
        let from = at.cast_unsigned() as usize;
        if at == 0 {
            return Err(Failure::Memory);
        }
        let room = memory.data_mut(&mut *store).get_mut(from..from.saturating_add(message.len()));
        message.write(room.ok_or(Failure::Answer("plinth_alloc gave a place outside of its memory"))?);
        let function = typed::<(i32, i32), i64>(&instance, store, function).ok_or(Failure::Answer(TYPE))?;
        let said = function.call_async(&mut *store, (at, size)).await.map_err(failed)?.cast_unsigned();
        if said == 0 {
            return Ok(None);
        }
        let (from, size) = ((said >> 32) as usize, (said & 0xffff_ffff) as usize);
        if size > self.limits.body.as_usize().saturating_add(MAX_BESIDE) {
            return Err(Failure::Answer("it is larger than it may be"));
        }
        let bytes = memory.data(&*store).get(from..from.saturating_add(size)).ok_or(Failure::Answer("it lies outside of its memory"))?;
        let answer = Answer::read(Bytes::copy_from_slice(bytes)).map_err(Failure::Answer)?;
        if answer.body.as_ref().is_some_and(|body| body.len() as u64 > self.limits.body.0) {
            return Err(Failure::Answer("its body is larger than it may be"));
        }
        Ok(Some(answer))
    }

    /// Starts it once and asks what it is. Every function must have its type.
    pub(crate) async fn try_out(&mut self) -> Result<(), Invalid> {
        let host = self.host.clone();
        let _ticking = host.ticker.hold();
        let mut store = self.store();
        let started = self.linked.instantiate_async(&mut store).await;
        let trial = |error, store: &Store<Call>| Invalid::Trial(told(failed(error), store.data()));
        let instance = match started {
            Ok(instance) => instance,
            Err(error) => return Err(trial(error, &store)),
        };
        let mut running = Running { store, instance };
        let version = running.ask(&self.exports.abi, "'plinth_abi' with the type () -> i32").await?;
        if version != abi::VERSION {
            return Err(Invalid::Version(version));
        }
        running.must_have::<i32, i32>(Some(&self.exports.alloc), "'plinth_alloc' with the type (i32) -> i32")?;
        running.must_have::<(i32, i32), i64>(self.exports.on_request.as_ref(), "'plinth_on_request' with the type (i32, i32) -> i64")?;
        running.must_have::<(i32, i32), i64>(self.exports.on_response.as_ref(), "'plinth_on_response' with the type (i32, i32) -> i64")?;
        let bodies = match &self.exports.wants {
            None => abi::wants::REQUEST_BODY | abi::wants::RESPONSE_BODY,
            Some(wants) => running.ask(wants, "'plinth_wants' with the type () -> i32").await?,
        };
        let (requests, responses) = (self.exports.on_request.is_some(), self.exports.on_response.is_some());
        self.wants = Wants {
            requests,
            request_bodies: requests && bodies & abi::wants::REQUEST_BODY != 0,
            responses,
            response_bodies: responses && bodies & abi::wants::RESPONSE_BODY != 0,
        };
        Ok(())
    }

    fn store(&self) -> Store<Call> {
        let mut store = Store::new(&self.host.engine, Call::new(&self.limits));
        store.limiter(|call| call);
        store.epoch_deadline_callback(call::on_tick);
        store.set_epoch_deadline(1);
        store
    }

    fn memory(&self, instance: &Instance, store: &mut Store<Call>) -> Result<Memory, Failure> {
        let found = instance.get_module_export(&mut *store, &self.exports.memory).and_then(Extern::into_memory);
        found.ok_or(Failure::Answer("it has no memory"))
    }
}

impl Running {
    /// Calls a function that says a number.
    async fn ask(&mut self, export: &ModuleExport, what: &'static str) -> Result<i32, Invalid> {
        let function = typed::<(), i32>(&self.instance, &mut self.store, export).ok_or(Invalid::Export(what))?;
        let said = function.call_async(&mut self.store, ()).await;
        said.map_err(|error| Invalid::Trial(told(failed(error), self.store.data())))
    }

    fn must_have<P: WasmParams, R: WasmResults>(&mut self, export: Option<&ModuleExport>, what: &'static str) -> Result<(), Invalid> {
        match export {
            Some(export) if typed::<P, R>(&self.instance, &mut self.store, export).is_none() => Err(Invalid::Export(what)),
            _ => Ok(()),
        }
    }
}

const TYPE: &str = "a function of it has another type";

fn typed<P: WasmParams, R: WasmResults>(instance: &Instance, store: &mut Store<Call>, export: &ModuleExport) -> Option<TypedFunc<P, R>> {
    instance.get_module_export(&mut *store, export)?.into_func()?.typed(&*store).ok()
}

/// Why a call ended.
fn failed(error: wasmtime::Error) -> Failure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failure::Time,
        Some(trap) => Failure::Trap(shown(&trap.to_string())),
        None => Failure::Trap(shown(&error.root_cause().to_string())),
    }
}

/// Who crashes because there was no more memory, crashes for want of memory.
fn told(failure: Failure, call: &Call) -> Failure {
    match failure {
        Failure::Trap(_) if call.wanted_memory => Failure::Memory,
        failure => failure,
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("limits", &self.limits).field("wants", &self.wants).finish_non_exhaustive()
    }
}
