//! A limit that all nodes share, without asking a central store for every request.
//!
//! A central counter ([`central`]) hands out **leases**: some tokens, for some time. A node takes requests from the tokens that it
//! holds ([`Leased`]) and asks for more before they are used up. When the store is gone a node goes on with its share of the rate,
//! from where its tokens stood; when the store is back it goes on leasing, and the store's refill of that time is not paid twice.
//!
//! **The bound.** Let L be the largest lease: [`LeaseSettings::size`], or the largest single cost where that is more. Then in every span
//! of time w, however nodes die, answers get lost and the store goes and comes back, all N nodes together admit (less what they
//! give back) at most
//!
//! ```text
//! burst + rate × w + N × L
//! ```
//!
//! that is, the limit and at most one lease for each node. Why: tokens that are used in w were held at its beginning (at most L
//! by each node, what requests gave back included) or granted in it, and the central rule grants at most `burst + rate × w`. While the store is away each of N nodes
//! earns rate / N, and the central counter, asked again, lets that time not count.
//!
//! Three cases are outside of it, because nobody can know of them in time: nodes that live without the store while others do not (yet,
//! or any more) earn their rate / N on top for as long as that lasts; a store that loses its memory hands out one burst again (and
//! believes the L tokens that each node then brings back); and if no node that lived without the store lives to tell it, the store
//! has earned one burst in that time. More expected nodes than there are only make it stricter while the store is away.
//! `lease::tests` counts all that, over all spans of random histories.
//!
//! Tokens of a node that died are not handed back by anyone. With a rate they come back at once as time passes, since a lease is
//! paid for when it is granted; with a daily cap they are missing until midnight, one lease for each death: a hard cap is hard.

pub mod central;
mod leased;
mod settings;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::leased::Leased;
pub use self::settings::LeaseSettings;

/// What a node asks of the central counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Tokens wanted. Less is a good answer; zero when the node only brings tokens back.
    pub want: u64,
    /// Tokens of earlier leases that were not used and that the node no longer holds.
    pub unused: u64,
    /// The window from which `unused` is; [`LeaseAnswer::window`] of the last answer.
    pub window: u64,
    /// How long the node has lived without the store since it was last asked.
    pub lost_for: Duration,
    /// What it admitted in that time.
    pub spent: u64,
    /// When it asked, on the node's clock. Not sent.
    pub sent: Duration,
}

/// What the central counter answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseAnswer {
    /// Tokens granted, at most what was wanted.
    pub granted: u64,
    /// What is left at the centre.
    pub left: u64,
    /// When it is worth to ask again, if less was granted than wanted.
    pub retry_after: Duration,
    /// The lease ends so long after it was asked for, at the latest.
    pub lasts: Duration,
    /// Tokens count in this window only: a day's number for a cap, always 0 for a rate.
    pub window: u64,
}
