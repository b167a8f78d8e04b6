//! The interface between a node and a filter, version 1. `docs/filters.md` says the same for authors.
//!
//! A module is a WebAssembly core module. It exports its memory, the functions below, and imports at most `plinth.log`.
//!
//! | export | type | |
//! |---|---|---|
//! | `memory` | memory | the only one |
//! | `plinth_abi` | `() -> i32` | answers 1 |
//! | `plinth_alloc` | `(size: i32) -> i32` | so many bytes for the message; 0: there are none |
//! | `plinth_on_request` | `(at: i32, size: i32) -> i64` | at least one of the two |
//! | `plinth_on_response` | `(at: i32, size: i32) -> i64` | |
//! | `plinth_wants` | `() -> i32` | may be left out; bits: 1 bodies of requests, 2 bodies of answers |
//!
//! A function `on_…` answers 0 for "as it is", or `at << 32 | size` of its answer. Message and answer are a list of records,
//! one after another:
//!
//! ```text
//! offset  size  what, all numbers are unsigned and little-endian
//!      0     4  kind
//!      4     4  n, the length of the name
//!      8     4  v, the length of the value
//!     12     n  name
//!   12+n     v  value
//! ```

/// The version that this node speaks.
pub const VERSION: i32 = 1;

/// The bytes before a record's name.
pub const HEAD: usize = 12;

/// The module that the one import belongs to.
pub const IMPORTS: &str = "plinth";
/// The one import: `(level: i32, at: i32, size: i32)`, a line for the log. Levels: 0 debug, 1 info, 2 warning.
pub const LOG: &str = "log";

/// The name of the memory.
pub const MEMORY: &str = "memory";
/// Says the version.
pub const ABI: &str = "plinth_abi";
/// Makes room for the message.
pub const ALLOC: &str = "plinth_alloc";
/// Called with each request.
pub const ON_REQUEST: &str = "plinth_on_request";
/// Called with each answer.
pub const ON_RESPONSE: &str = "plinth_on_response";
/// Says which bodies are wanted.
pub const WANTS: &str = "plinth_wants";

/// The kinds of records.
pub mod kind {
    /// The method of the request. Value: as in HTTP.
    pub const METHOD: u32 = 1;
    /// The path of the request, with its query.
    pub const PATH: u32 = 2;
    /// A header with its name in lower case. In an answer: put in place of all of that name.
    pub const HEADER: u32 = 3;
    /// The body. In an answer: put in place of it.
    pub const BODY: u32 = 4;
    /// The status of the answer, in decimal. In the answer to a request: the filter answers it itself.
    pub const STATUS: u32 = 5;
    /// A value of the filter's settings, with its name.
    pub const VALUE: u32 = 6;
    /// The name of the route.
    pub const ROUTE: u32 = 7;
    /// In an answer: a header put beside those of its name.
    pub const ADD_HEADER: u32 = 8;
    /// In an answer: all headers of this name go. Its value is empty.
    pub const REMOVE_HEADER: u32 = 9;
}

/// What `plinth_wants` says.
pub mod wants {
    /// Bodies of requests.
    pub const REQUEST_BODY: i32 = 1;
    /// Bodies of answers.
    pub const RESPONSE_BODY: i32 = 2;
}
