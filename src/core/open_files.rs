//! Divides the open files of a process: client connections must not exhaust those that the process itself
//! needs.

/// Other files of the process: listeners, timers, signals, its log, and files that it reads and writes.
const OWN: usize = 40;
/// For each source and target: connections, and files that are read together.
const EACH: usize = 4;
/// Most connections of operators at once: probes, scrapes and people.
const OPERATOR: usize = 64;

/// The connection limit of each listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    pub public: usize,
    /// As many again may be closing.
    pub operator: usize,
    own: usize,
}

impl OpenFiles {
    /// Divides `limit` files, given the number of sources and targets and up to `wanted` connections of
    /// relying parties. If there are too few, each gets some.
    #[must_use]
    pub fn share(limit: u64, places: usize, wanted: usize) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let operator = (limit / 16).clamp(2, OPERATOR);
        let own = OWN + EACH * places;
        let rest = limit.saturating_sub(own + 2 * operator);
        Self { public: rest.clamp(1, wanted), operator, own }
    }

    /// Number of files needed for `wanted` connections of relying parties.
    #[must_use]
    pub fn needed(&self, wanted: usize) -> usize {
        wanted + self.own + 2 * OPERATOR
    }
}

#[cfg(test)]
mod tests;
