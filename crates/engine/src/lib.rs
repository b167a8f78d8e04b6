//! The Backend contract, the runner process with its channel, and the backends.
