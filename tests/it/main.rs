//! Everything that is tested from outside the library.

mod target_conformance;
