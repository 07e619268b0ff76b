//! Stands empty for a moment.
