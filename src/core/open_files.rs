//! How the open files of a process are shared out: no connection of a stranger takes what the process itself needs.

/// What the process opens besides: listeners, timers, signals, its log, and the files that it reads and writes.
const OWN: usize = 40;
/// For each source and each target: connections, and files that are read together.
const EACH: usize = 4;
/// Connections of operators at once: probes, scrapes and people.
const OPERATOR: usize = 64;

/// How many connections each listener may have open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    pub public: usize,
    /// As many again may be ending.
    pub operator: usize,
    own: usize,
}

impl OpenFiles {
    /// Shares out `limit` files where there are so many sources and targets, and up to `wanted` connections of
    /// relying parties. Where there are too few, everybody gets some.
    #[must_use]
    pub fn share(limit: u64, places: usize, wanted: usize) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let operator = (limit / 16).clamp(2, OPERATOR);
        let own = OWN + EACH * places;
        let rest = limit.saturating_sub(own + 2 * operator);
        Self { public: rest.clamp(1, wanted), operator, own }
    }

    /// The files that so many connections of relying parties would need.
    #[must_use]
    pub fn needed(&self, wanted: usize) -> usize {
        wanted + self.own + 2 * OPERATOR
    }
}

#[cfg(test)]
mod tests;
