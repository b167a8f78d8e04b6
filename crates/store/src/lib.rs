//! Ports to durable things, each with an embedded and a remote adapter.
