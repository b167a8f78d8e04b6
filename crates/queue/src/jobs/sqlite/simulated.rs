//! The statements of the ledger over a database in memory, for the simulation (being written).
