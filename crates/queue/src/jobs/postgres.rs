//! The ledger of jobs in PostgreSQL 15 or newer (being written).
