//! The thread that owns the model: loads it, then executes one request after another.
//!
//! Invariants: every request that is taken from the queue is answered, unless the process dies; a panic of a backend is
//! such a death, because nobody knows in which state it leaves the model.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use plinth_runtime::{Clock, SystemClock};

use super::leave::leave;
use super::queue::{Job, Queue};
use crate::backend::{Backend, BackendError, Loader};
use crate::channel::child::Answers;
use crate::channel::frame::FrameError;
use crate::channel::message::{FromRunner, Refusal, StartFailure};
use crate::check;
use crate::spec::SandboxReport;

/// Graphs may be deep, and engines recurse.
const STACK: usize = 8 << 20;
/// The status after a backend has panicked: the one that Rust uses for it.
const PANICKED: u8 = 101;
/// The status when the node cannot be answered (`EX_IOERR`).
const NO_CHANNEL: u8 = 74;

pub(super) struct Executor {
    pub loader: Loader,
    pub sandbox: SandboxReport,
    pub queue: Arc<Queue>,
    pub answers: Arc<Answers>,
}

pub(super) fn spawn(executor: Executor) -> io::Result<()> {
    std::thread::Builder::new().name("execute".to_owned()).stack_size(STACK).spawn(move || executor.run()).map(drop)
}

impl Executor {
    fn run(self) {
        let Self { loader, sandbox, queue, answers } = self;
        let mut backend = match catch_unwind(AssertUnwindSafe(|| loader.load())) {
            Ok(Ok(backend)) => backend,
            Ok(Err(BackendError::Load(text) | BackendError::Input(text) | BackendError::Execution(text))) => {
                fail(&answers, text);
            }
            // The panic's text is on standard error, in the log; it is not for users.
            Err(_) => fail(&answers, "the backend gave up on the model; the node's log says where".to_owned()),
        };
        let metadata = Box::new(backend.metadata().clone());
        if let Err(error) = answers.send(&FromRunner::Ready { metadata, sandbox }, &[]) {
            fail(&answers, format!("the model's inputs and outputs cannot be described: {error}"));
        }
        loop {
            let job = queue.pop();
            if execute(&mut *backend, job, &answers).is_err() {
                leave(NO_CHANNEL);
            }
        }
    }
}

fn fail(answers: &Answers, text: String) -> ! {
    let sent = answers.failed(StartFailure::Load(text));
    leave(if sent.is_ok() { 1 } else { NO_CHANNEL })
}

fn execute(backend: &mut dyn Backend, job: Job, answers: &Answers) -> Result<(), FrameError> {
    let Job { id, inputs, mut outputs, expires, .. } = job;
    if SystemClock.monotonic() >= expires {
        return answers.refuse(id, Refusal::Expired);
    }
    if let Err(text) = check::request(backend.metadata(), &inputs, &outputs) {
        return answers.refuse(id, Refusal::Input(text));
    }
    if outputs.is_empty() {
        outputs = backend.metadata().outputs.iter().map(|spec| spec.name().to_owned()).collect();
    }
    match catch_unwind(AssertUnwindSafe(|| backend.execute(inputs, &outputs))) {
        Ok(Ok(tensors)) => answers.answer(id, &tensors),
        Ok(Err(BackendError::Input(text))) => answers.refuse(id, Refusal::Input(text)),
        Ok(Err(BackendError::Execution(text) | BackendError::Load(text))) => answers.refuse(id, Refusal::Execution(text)),
        Err(_) => leave(PANICKED),
    }
}
