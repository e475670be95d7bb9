//! Making every allocation of a call fail.

use super::Testbed;
use mm_core::error::ErrorKind;
use mm_core::vmemmap::{
    FoldError, Folded, MarkError, Note, Notes, OfflineError, Offlined, OnlineError, Region,
};

/// Where allocations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// In RAM.
    Ram,
    /// In the altmap with this number.
    Altmap(usize),
}

impl Faults {
    const fn kind(self) -> ErrorKind {
        match self {
            Self::Ram => ErrorKind::OutOfFrames,
            Self::Altmap(_) => ErrorKind::AltmapExhausted,
        }
    }
}

/// Which of them.
#[derive(Clone, Copy, Debug)]
enum Failing {
    /// All after so many.
    AllAfter(u64),
    /// One after so many.
    OnlyAfter(u64),
}

/// An error with a kind.
pub trait Fails {
    /// The kind.
    fn kind(&self) -> ErrorKind;
}

macro_rules! fails {
    ($($error:ty),*) => {$(
        impl Fails for $error {
            fn kind(&self) -> ErrorKind {
                <$error>::kind(self)
            }
        }
    )*};
}

fails!(OnlineError, OfflineError, FoldError, MarkError);

/// What a call answers with.
pub trait Outcome {
    /// What was done otherwise than asked.
    fn notes(&self) -> Notes {
        Notes::default()
    }
}

impl Outcome for Region<'_> {
    fn notes(&self) -> Notes {
        *Region::notes(self)
    }
}

impl Outcome for Notes {
    fn notes(&self) -> Notes {
        *self
    }
}

impl Outcome for Folded {
    fn notes(&self) -> Notes {
        self.notes
    }
}

impl Outcome for Offlined {}
impl Outcome for bool {}

/// Does `call` with each of its allocations failing once, by itself and with all that come after
/// it. It has to answer with an error, leave everything as it was, and then succeed at the same
/// cost as if nothing had been. `undo` returns to where it began. Answers with how many allocations
/// the call makes.
///
/// Only for want of a block for a huge leaf may it go on, and says so.
pub fn fail_each<T: Outcome, E: Fails + std::fmt::Debug>(
    bed: &mut dyn Testbed<'_>,
    faults: Faults,
    mut call: impl FnMut(&mut dyn Testbed<'_>) -> Result<T, E>,
    mut undo: impl FnMut(&mut dyn Testbed<'_>, T),
) -> u64 {
    let before = bed.snapshot();
    let counted = allocations(bed, faults);
    let outcome = call(bed).unwrap();
    let needed = allocations(bed, faults) - counted;
    let cost = bed.stats();
    bed.audit();
    undo(bed, outcome);
    bed.assert_unchanged(&before, "after the call and its contrary");

    for failing in (0..=needed).flat_map(|n| [Failing::AllAfter(n), Failing::OnlyAfter(n)]) {
        let when = format!("{faults:?} {failing:?} of {needed}");
        if !arm(bed, faults, failing) {
            continue;
        }
        let outcome = call(bed);
        disarm(bed, faults);
        let (Failing::AllAfter(n) | Failing::OnlyAfter(n)) = failing;
        let outcome = match outcome {
            Err(error) => {
                assert!(n < needed, "{when}: {error:?}, though there was enough");
                assert_eq!(error.kind(), faults.kind(), "{when}: {error:?}");
                bed.assert_unchanged(&before, &when);
                let again = call(bed).unwrap_or_else(|error| panic!("{when}, again: {error:?}"));
                assert_eq!(
                    bed.stats(),
                    cost,
                    "{when}: the second time costs other than the first"
                );
                again
            }
            Ok(outcome) if n == needed => {
                assert_eq!(bed.stats(), cost, "{when}: enough costs other than plenty");
                outcome
            }
            Ok(outcome) => {
                let unavailable = |note| matches!(note, Note::HugeLeavesUnavailable { .. });
                let notes = outcome.notes();
                assert!(notes.iter().any(unavailable), "{when}: nothing was said");
                bed.audit();
                outcome
            }
        };
        undo(bed, outcome);
        bed.assert_unchanged(&before, &format!("{when}, and its contrary"));
    }
    needed
}

/// How many frames were taken so far, as far as `faults` are about them.
fn allocations(bed: &dyn Testbed<'_>, faults: Faults) -> u64 {
    match faults {
        Faults::Ram => bed.frames().allocations(),
        Faults::Altmap(index) => bed.altmaps()[index].granted(),
    }
}

/// Says whether it could.
fn arm(bed: &dyn Testbed<'_>, faults: Faults, failing: Failing) -> bool {
    match (faults, failing) {
        (Faults::Ram, Failing::AllAfter(n)) => bed.frames().fail_after(n),
        (Faults::Ram, Failing::OnlyAfter(n)) => bed.frames().fail_nth(n),
        (Faults::Altmap(index), Failing::AllAfter(n)) => bed.altmaps()[index].grant(Some(n)),
        // An altmap that has run out has run out.
        (Faults::Altmap(_), Failing::OnlyAfter(_)) => return false,
    }
    true
}

fn disarm(bed: &dyn Testbed<'_>, faults: Faults) {
    match faults {
        Faults::Ram => bed.frames().no_more_faults(),
        Faults::Altmap(index) => bed.altmaps()[index].grant(None),
    }
}
