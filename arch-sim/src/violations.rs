//! What went wrong: one log that all parts of a machine write to.
//!
//! A simulated machine does not stop at a broken rule, since the code under test may be in the
//! middle of anything: it writes down what happened, answers as harmlessly as it can, and the test
//! reads the log at its end.

use crate::translation::Translation;
use mm_core::addr::{Block, Pfn, VirtAddr};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many violations are kept in full; later ones are only counted.
const KEPT: usize = 4096;

/// What a translation cache holds a frame as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachedAs {
    /// A leaf translation points at it.
    Leaf,
    /// A paging-structure cache has it as a table.
    Table,
}

/// A broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The contents of a frame were asked for that no chunk of memory has.
    OutsideMemory {
        /// The frame.
        frame: Pfn,
    },
    /// An allocator was given a frame that is on none of its nodes.
    NotManaged {
        /// The frame.
        frame: Pfn,
    },
    /// References were given back of a block that is not out, or not out in this size.
    ReleasedNotOut {
        /// The block as it was named.
        block: Block,
    },
    /// More references were given back than there are.
    ReleasedTooMany {
        /// The first frame of the block.
        frame: Pfn,
        /// How many references there are.
        held: u64,
        /// How many were given back.
        released: u64,
    },
    /// A block was freed that is not out, or not out in this size: a double free is one.
    FreedNotOut {
        /// The block as it was named.
        block: Block,
    },
    /// A block was freed that still has references.
    FreedWithReferences {
        /// The block.
        block: Block,
        /// How many references there are.
        references: u64,
    },
    /// A block was split whose count is not 1.
    SplitShared {
        /// The block.
        block: Block,
        /// How many references there are; 0 for a block that is not out in this size.
        references: u64,
    },
    /// A frame was freed while a CPU could still translate by it.
    FreedWhileCached {
        /// The first such frame of what was freed.
        frame: Pfn,
        /// What the CPU takes it for.
        cached_as: CachedAs,
    },
    /// A CPU translated by something cached that the tables no longer say.
    StaleTranslation {
        /// The address.
        at: VirtAddr,
        /// What the CPU made of it; `None` where it found nothing.
        cached: Option<Translation>,
        /// What the tables say; `None` for not present.
        live: Option<Translation>,
    },
    /// A CPU has an upper entry cached that leads to another table than the tables say.
    StaleTable {
        /// The first address below the table.
        at: VirtAddr,
        /// Which table is cached.
        cached: Pfn,
        /// Which one the tables say; `None` for none.
        live: Option<Pfn>,
    },
    /// On a machine that demands break-before-make, a CPU came upon an entry that leads elsewhere,
    /// or is of another size, than one for the same address which it still had cached: the old
    /// one was not made invalid, or not flushed, before the new one was made valid.
    NotBroken {
        /// The first address that both translate.
        at: VirtAddr,
        /// The first frame of what is cached.
        cached: Pfn,
        /// The first frame of what the tables say.
        live: Pfn,
    },
}

/// A translation, or that there is none, in words.
struct Found(Option<Translation>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(translation) => translation.fmt(f),
            None => f.write_str("nothing"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideMemory { frame } => {
                write!(
                    f,
                    "frame {frame} was accessed, and no chunk of memory has it"
                )
            }
            Self::NotManaged { frame } => write!(
                f,
                "frame {frame} was given to an allocator that has it on none of its nodes"
            ),
            Self::ReleasedNotOut { block } => write!(
                f,
                "references of frame {} were released as a block of order {}, and no such block is out",
                block.first(),
                block.order()
            ),
            Self::ReleasedTooMany {
                frame,
                held,
                released,
            } => write!(
                f,
                "{released} references of frame {frame} were released, and there are only {held}"
            ),
            Self::FreedNotOut { block } => write!(
                f,
                "frame {} was freed as a block of order {}, and no such block is out",
                block.first(),
                block.order()
            ),
            Self::FreedWithReferences { block, references } => write!(
                f,
                "frame {} was freed as a block of order {} while there were {references} references to it",
                block.first(),
                block.order()
            ),
            Self::SplitShared { block, references } => write!(
                f,
                "the block of order {} at frame {} was split while there were {references} references to it, not 1",
                block.order(),
                block.first()
            ),
            Self::FreedWhileCached { frame, cached_as } => write!(
                f,
                "frame {frame} was freed while a CPU still had it cached as a {}",
                match cached_as {
                    CachedAs::Leaf => "mapped page",
                    CachedAs::Table => "table",
                }
            ),
            Self::StaleTranslation { at, cached, live } => write!(
                f,
                "a CPU translated {at} by its caches to {}, while the tables said {}",
                Found(*cached),
                Found(*live)
            ),
            Self::StaleTable { at, cached, live } => {
                write!(
                    f,
                    "a CPU has frame {cached} cached as the table for {at}, while the tables say "
                )?;
                match live {
                    Some(live) => write!(f, "frame {live}"),
                    None => f.write_str("nothing"),
                }
            }
            Self::NotBroken { at, cached, live } => write!(
                f,
                "the entry for {at} came to lead to frame {live} while a CPU had it cached as leading to frame {cached}: it was not broken before it was made"
            ),
        }
    }
}

#[derive(Debug, Default)]
struct Log {
    kept: Vec<Violation>,
    total: u64,
}

/// A log of violations; clones are handles on the same log.
#[derive(Clone, Debug, Default)]
pub struct Violations {
    log: Arc<Mutex<Log>>,
}

impl Violations {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes `violation` down.
    pub fn record(&self, violation: Violation) {
        let mut log = self.lock();
        log.total += 1;
        if log.kept.len() < KEPT {
            log.kept.push(violation);
        }
    }

    /// The violations so far, oldest first; the log is empty then. When there are very many, the
    /// last of them are left out.
    pub fn take(&self) -> Vec<Violation> {
        std::mem::take(&mut *self.lock()).kept
    }

    /// Whether nothing went wrong.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    /// How many violations there were since the log was last taken, those left out included.
    pub fn total(&self) -> u64 {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One violation a line.
impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.lock();
        for violation in &log.kept {
            writeln!(f, "{violation}")?;
        }
        match log.total - log.kept.len() as u64 {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(number: u64) -> Violation {
        Violation::OutsideMemory {
            frame: Pfn::new(number).unwrap(),
        }
    }

    #[test]
    fn clones_share_one_log() {
        let log = Violations::new();
        log.clone().record(outside(5));
        assert_eq!(log.take(), [outside(5)]);
        assert!(log.is_empty());
    }

    #[test]
    fn violations_beyond_the_limit_are_counted() {
        let log = Violations::new();
        for _ in 0..KEPT + 3 {
            log.record(outside(1));
        }
        assert_eq!(log.total(), KEPT as u64 + 3);
        assert!(log.to_string().ends_with("and 3 more\n"));
        assert_eq!(log.take().len(), KEPT);
        assert!(log.is_empty());
    }

    #[test]
    fn a_violation_names_frames_and_addresses() {
        assert_eq!(
            outside(0x123).to_string(),
            "frame 0x123 was accessed, and no chunk of memory has it"
        );
        let stale = Violation::StaleTranslation {
            at: VirtAddr::new(0xffff_8000_0000_1234),
            cached: None,
            live: None,
        };
        assert_eq!(
            stale.to_string(),
            "a CPU translated 0xffff800000001234 by its caches to nothing, while the tables said nothing"
        );
    }
}
