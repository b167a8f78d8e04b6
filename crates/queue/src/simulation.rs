//! The ledger of jobs in simulated time (being written).
