//! Why a module is no filter, and why a filter had no answer.

/// Why a module cannot be a filter. The texts may be shown to whoever pushed it; what they repeat of the module is short and
/// harmless to print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Larger than [`crate::MAX_MODULE`].
    #[error("the module has {0} bytes; a filter has at most {max}: strip it, or optimise it for size", max = crate::MAX_MODULE)]
    TooLarge(usize),
    /// Not WebAssembly, or not of the kind that is run here.
    #[error("the module cannot be compiled: {0}")]
    Malformed(String),
    /// It asks for more than filters get.
    #[error("the module imports '{0}', and a filter is given nothing but 'plinth.log': build it without a system interface")]
    Import(String),
    /// It lacks what filters export, or has it with another type.
    #[error("the module does not export {0}")]
    Export(&'static str),
    /// Another version of the interface.
    #[error("the module says that it speaks version {0} of the interface; this node speaks {known}", known = crate::abi::VERSION)]
    Version(i32),
    /// It did not pass the trial start.
    #[error("the module failed when it was started on trial: {0}")]
    Trial(Failure),
    /// This machine cannot run filters now.
    #[error("this node cannot run filters: {0}")]
    Host(String),
}

/// Why a call of a filter had no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It used up its time.
    #[error("it took more processor time than it may")]
    Time,
    /// It wanted more memory than it may have.
    #[error("it wanted more memory than it may have")]
    Memory,
    /// It crashed.
    #[error("it crashed: {0}")]
    Trap(String),
    /// It gave a place that is not in its memory, or an answer that is none.
    #[error("it answered with something that is not an answer: {0}")]
    Answer(&'static str),
    /// Too many calls of filters are under way.
    #[error("too many calls of filters are under way")]
    Busy,
}

impl Failure {
    /// The word in metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Memory => "memory",
            Self::Trap(_) => "trap",
            Self::Answer(_) => "answer",
            Self::Busy => "busy",
        }
    }

    /// Whether many of these would slow the node down.
    #[must_use]
    pub const fn is_dear(&self) -> bool {
        matches!(self, Self::Time | Self::Memory)
    }
}

/// A text of a module: short, and harmless to print.
pub fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}
