//! File and environment to validated values; the only reader of the environment.
