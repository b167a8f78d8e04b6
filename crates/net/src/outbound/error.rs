//! What can go wrong on the way to an upstream, and how far a request had come.

use std::error::Error;
use std::fmt;
use std::io;

use super::guard::Refused;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The address may not be dialled.
    Refused(Refused),
    /// The name has no address, or nobody says which.
    Resolve,
    /// No connection: nobody listens, no way there.
    Connect,
    /// A connection, but no agreement on TLS, or a certificate that is not trusted.
    Tls,
    /// All connections to the upstream are in use.
    Busy,
    /// Something took too long.
    Timeout(Stage),
    /// The upstream ended the connection, or refused the request on HTTP/2.
    Reset,
    /// The upstream said what it must not say; the text says what.
    Protocol(&'static str),
    /// The head of the answer is larger than allowed.
    TooLarge,
    /// The request cannot be sent: its body broke off, or it cannot be written down.
    Request(&'static str),
}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// To find the address of the name.
    Resolve,
    /// To accept the connection.
    Connect,
    /// To agree on TLS.
    Tls,
    /// To begin the answer.
    FirstByte,
    /// To go on with the answer.
    Idle,
    /// Everything together.
    Total,
}

/// How far a request had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// The upstream certainly did nothing: to try again is safe.
    NotSent,
    /// The upstream may have seen the request.
    MaybeSent,
    /// The upstream has begun to answer.
    FirstByte,
}

/// A request that failed.
#[derive(Debug)]
pub struct OutboundError {
    /// What went wrong.
    pub kind: Kind,
    /// How far the request had come.
    pub reached: Reached,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl OutboundError {
    pub(super) const fn new(kind: Kind, reached: Reached) -> Self {
        Self { kind, reached, source: None }
    }

    pub(super) fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Before anything was sent.
    pub(super) const fn unsent(kind: Kind) -> Self {
        Self::new(kind, Reached::NotSent)
    }

    /// As an error of a body. [`Self::of`] finds it again.
    pub(super) fn into_io(self) -> io::Error {
        let kind = match self.kind {
            Kind::Timeout(_) => io::ErrorKind::TimedOut,
            Kind::Reset => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }

    /// What an error of an answer's body was about, if it came from here.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "its name could not be resolved in time",
            Self::Connect => "it did not accept the connection in time",
            Self::Tls => "it did not agree on TLS in time",
            Self::FirstByte => "it did not begin to answer in time",
            Self::Idle => "it stopped in the middle of its answer",
            Self::Total => "it did not answer before the deadline",
        })
    }
}

impl fmt::Display for OutboundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upstream failed: ")?;
        match self.kind {
            Kind::Refused(refused) => refused.fmt(f),
            Kind::Resolve => f.write_str("its name has no address"),
            Kind::Connect => f.write_str("it cannot be reached"),
            Kind::Tls => f.write_str("TLS was not agreed on"),
            Kind::Busy => f.write_str("all connections to it are in use"),
            Kind::Timeout(stage) => stage.fmt(f),
            Kind::Reset => f.write_str("it ended the connection"),
            Kind::Protocol(what) => write!(f, "it broke the protocol ({what})"),
            Kind::TooLarge => f.write_str("the head of its answer is too large"),
            Kind::Request(what) => write!(f, "the request could not be sent to it ({what})"),
        }
    }
}

impl Error for OutboundError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
