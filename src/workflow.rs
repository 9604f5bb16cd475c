//! The verbs: ask an edge, let core decide, act through an edge.
//!
//! [`keeper`] owns what is known of an issuer, [`asking`] brings it what the sources say, [`placing`]
//! carries its publication to the targets. [`sync`] does all of it once, [`watching`] for ever; [`telling`]
//! tells operators what became of it.

pub mod asking;
pub mod gate;
pub mod keeper;
pub mod placing;
pub mod sync;
pub mod telling;
pub mod verifying;
pub mod watching;
