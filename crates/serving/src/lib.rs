//! Keeps the wished versions loaded in runners and answers inferences.
