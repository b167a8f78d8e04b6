//! The request path as one visible, ordered list of steps.
