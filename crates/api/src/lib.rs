//! The protocols, a module each: translation only.
