//! The end of a runner's process.
#![allow(unsafe_code, reason = "the standard library's exit runs the engine's destructors while its threads still compute")]

/// Ends the process at once, without destructors. Nothing in a runner must be saved.
pub(super) fn leave(status: u8) -> ! {
    // SAFETY: always sound; it only ends the process.
    unsafe { libc::_exit(i32::from(status)) }
}
