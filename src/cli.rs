//! What the person at the terminal writes and reads.

pub mod report;
