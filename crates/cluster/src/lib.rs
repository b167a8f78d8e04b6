//! The snapshot: all that a node needs in order to serve, on local disk.
