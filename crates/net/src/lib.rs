//! The accept loop, the HTTP server and the deny-by-default route table.
