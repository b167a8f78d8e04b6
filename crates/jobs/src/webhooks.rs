//! Telling a tenant's address that something happened: one signed `POST`.
//!
//! Invariants: only an address that the guard of [`plinth_net::outbound`] let pass is dialled, and exactly that one; a redirect is
//! never followed; a delivery takes at most [`TOTAL`] and reads at most [`MAX_ANSWER`] of its answer, and one host has at most
//! [`PER_HOST`] at a time. What a tenant can see ([`Attempt`], [`Sent::error`]) is the same for an address that is not allowed, a
//! name that is not found and a port where nobody listens; which it was is in [`Sent::diagnostic`], for the log. No record holds a
//! secret or a body.
//!
//! Signatures, retries and what to do with an answer follow the Standard Webhooks specification 1.0.0. Pure: [`sign`], [`verify`],
//! [`judge`], [`next_wait`], [`Address::parse`]. The only effect is [`Sender::send`]. Keeping deliveries, their attempts and their
//! secrets, and deciding which are due, are left to the queue.

mod address;
mod answer;
mod attempt;
mod backoff;
mod hosts;
mod secret;
mod sender;
mod signature;

pub use address::{Address, AddressError, MAX_URL};
pub use answer::{LONGEST_WISH, Outcome, judge};
pub use attempt::{Attempt, Ended, Failure};
pub use backoff::{GIVE_UP, LONGEST_WAIT, next_wait};
pub use hosts::PER_HOST;
pub use secret::{Secret, SecretError, Secrets};
pub use sender::{BodyTooLarge, Delivery, MAX_ANSWER, MAX_BODY, Sender, SenderParts, Sent, TOTAL};
pub use signature::{MessageId, MessageIdError, Signed, TOLERANCE, VerifyError, sign, verify};

#[cfg(test)]
mod tests;
