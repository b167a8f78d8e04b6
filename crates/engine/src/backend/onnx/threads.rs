//! The threads of ONNX Runtime's pool, started by somebody whose priority they may inherit.

use std::thread::JoinHandle;

use ort::environment::ThreadManager;

use crate::backend::Spawner;

/// Starts the pool's threads through a [`Spawner`].
pub(super) struct Threads(pub Spawner);

impl ThreadManager for Threads {
    type Thread = JoinHandle<()>;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<JoinHandle<()>> {
        (self.0)(Box::new(work)).map_err(ort::Error::wrap)
    }

    fn join(thread: JoinHandle<()>) -> ort::Result<()> {
        thread.join().map_err(|_| ort::Error::new("a thread of the pool has panicked"))
    }
}
