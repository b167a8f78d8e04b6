//! Runners as processes: the real program, the real sandbox, real deaths.

mod faults;
mod hostile;
mod life;
mod models;
mod sandbox;
mod support;
