//! Keys of tenants: made once, kept as hashes, checked without a database.
