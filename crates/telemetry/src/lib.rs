//! The catalogue of metrics and the set-up of logs.
