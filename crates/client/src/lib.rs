//! The typed client of the admin API and its wire types.
