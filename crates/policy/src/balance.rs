//! Which endpoint or target a request goes to.
//!
//! [`ewma`] estimates what an endpoint costs, [`p2c`] takes the cheaper of two, [`bounded`] keeps a key at its endpoint as long as that is not
//! overloaded, [`weighted`] splits between versions. All are pure: draws and keys come in as `u64`, endpoints as indices of a list that the caller
//! holds, and whether one is ready (breaker, ejection, throttle, limit) is the caller's to say. Invariant: nothing allocates on a request,
//! and whenever any endpoint is ready one is chosen. Which of them are ready is left to [`resilience`](crate::resilience).

pub mod bounded;
pub mod ewma;
pub mod hash;
pub mod p2c;
pub mod weighted;
