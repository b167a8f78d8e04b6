//! Models, immutable versions, aliases, signatures and the audit of every change.
