//! Puts the roles together: the order of start and of stop.
