//! Decisions without IO: state, event and time in, state and decision out.
