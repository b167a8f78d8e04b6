//! How an attempt at an upstream ended, in the few words that the decisions need.
//!
//! Invariant: every outcome is either a failure of the upstream, an answer of it, or neither (the client went away).

/// The end of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An answer as it was meant: 1xx to 3xx, and all of it came.
    Success,
    /// 4xx except 429: the request was at fault.
    ClientError,
    /// 429: the upstream is well and wants less. See [`throttled`](super::throttled).
    Throttled,
    /// The client went away, or another copy of the request won.
    Cancelled,
    /// No connection came to be, so the upstream has seen nothing.
    ConnectFailed,
    /// The upstream said that it did not begin: HTTP/2 `REFUSED_STREAM`, or above the last stream of a `GOAWAY`.
    RefusedStream,
    /// No answer in time.
    Timeout,
    /// The connection broke while an answer was due.
    Reset,
    /// 5xx.
    ServerError,
    /// An answer that broke the protocol or the contract: a wrong shape, NaN outputs.
    BadAnswer,
}

impl Outcome {
    /// All of them, for tables.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::ClientError,
        Self::Throttled,
        Self::Cancelled,
        Self::ConnectFailed,
        Self::RefusedStream,
        Self::Timeout,
        Self::Reset,
        Self::ServerError,
        Self::BadAnswer,
    ];

    /// From an HTTP status whose body came whole.
    #[must_use]
    pub const fn from_status(status: u16) -> Self {
        match status {
            429 => Self::Throttled,
            400..=499 => Self::ClientError,
            0..=399 => Self::Success,
            _ => Self::ServerError,
        }
    }

    /// Whether it speaks against the upstream. 4xx, 429 and a client's cancelling do not.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !self.is_answer() && !matches!(self, Self::Cancelled)
    }

    /// Whether the upstream answered as it should, be it with a refusal.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(self, Self::Success | Self::ClientError | Self::Throttled)
    }

    /// Whether the upstream certainly did not begin with it, so that even what must not happen twice may be sent again.
    #[must_use]
    pub const fn never_began(self) -> bool {
        matches!(self, Self::ConnectFailed | Self::RefusedStream)
    }

    /// Its name in metrics and logs.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ClientError => "client_error",
            Self::Throttled => "throttled",
            Self::Cancelled => "cancelled",
            Self::ConnectFailed => "connect_failed",
            Self::RefusedStream => "refused_stream",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::ServerError => "server_error",
            Self::BadAnswer => "bad_answer",
        }
    }
}
