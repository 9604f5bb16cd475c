//! Nearly valid inputs.

use crate::support::dice::Dice;

/// Largest input, in bytes, so that none grows without limit.
const MAX_SIZE: usize = 8192;
/// Accepted mutations that are mutated again, besides the corpus.
const POOL: usize = 64;

/// Mutations of a corpus, and of accepted mutations.
pub(super) struct Mutations {
    pool: Vec<Vec<u8>>,
    corpus: usize,
    words: Vec<Vec<u8>>,
    dice: Dice,
}

impl Mutations {
    pub(super) fn of(corpus: Vec<Vec<u8>>, words: Vec<Vec<u8>>) -> Self {
        Self { corpus: corpus.len(), pool: corpus, words, dice: Dice::new(20_261_121) }
    }

    pub(super) fn next(&mut self) -> Vec<u8> {
        let mut bytes = self.dice.one_of(&self.pool).clone();
        for _ in 0..=self.dice.below(3) {
            self.mutate(&mut bytes);
        }
        bytes.truncate(MAX_SIZE);
        bytes
    }

    /// Adds an accepted mutation to the pool: mutating a rejected one reveals little more.
    pub(super) fn keep(&mut self, bytes: Vec<u8>) {
        if self.pool.len() < self.corpus + POOL {
            self.pool.push(bytes);
        } else {
            let at = self.corpus + self.dice.below(POOL);
            self.pool[at] = bytes;
        }
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let dice = &mut self.dice;
        let at = dice.below(bytes.len() + 1);
        let end = (at + 1 + dice.below(16)).min(bytes.len()).max(at);
        match dice.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = *dice.one_of(b"\0\x1b\x7f\xff\"\\{}[]:,-.=\n 0"),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                let times = dice.below(200);
                bytes.splice(at..at, piece.repeat(times));
            }
            4 => drop(bytes.splice(at..end, dice.one_of(&self.words).clone())),
            5 => drop(bytes.splice(at..at, dice.one_of(&self.words).clone())),
            _ => {
                let other = dice.one_of(&self.pool);
                let from = dice.below(other.len() + 1);
                let to = (from + dice.below(200)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
}
