//! What a node tells the person who started it. How it looks is for the command line to decide.

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announcement {
    /// The first start made an admin key; it is told this one time.
    AdminKey(String),
    /// The node listens.
    Listening {
        /// The address of the HTTP listener.
        http: String,
        /// The address of the gRPC listener.
        grpc: Option<String>,
        /// The address of the metrics listener.
        metrics: Option<String>,
        /// The address of the admin listener, when it has its own.
        admin: Option<String>,
        /// Whether everybody may do everything (`--dev`).
        open: bool,
    },
    /// Everything that is wished is loaded, or has failed once.
    Ready {
        /// Versions that answer.
        ready: usize,
        /// Versions that could not be loaded.
        failed: usize,
        /// Milliseconds since the start of the process's work.
        took_ms: u64,
    },
    /// A signal came; the node ends in order.
    Stopping {
        /// Which signal.
        signal: &'static str,
    },
}

/// Takes announcements.
pub type Announce = Box<dyn Fn(Announcement) + Send + Sync>;
