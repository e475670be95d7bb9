//! What is surveyed: which backends, and pages of which sizes.

use crate::args::SurveyArgs;
use crate::geometry::{NoPage, PageSize, natural};
use hosted::BackendKind;

/// The backends to survey, each with the sizes of pages, in bytes, smallest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// A backend that has none of the sizes is here without any.
    pub(super) backends: Vec<(BackendKind, Vec<u64>)>,
}

impl Selection {
    /// What the command line asks for, in the order of the list of backends.
    ///
    /// # Errors
    ///
    /// [`NoPage`] where none of the backends has pages of a size.
    pub fn from_args(args: &SurveyArgs) -> Result<Self, NoPage> {
        let wanted = |kind: &BackendKind| args.backends.is_empty() || args.backends.contains(kind);
        let kinds: Vec<BackendKind> = BackendKind::ALL.into_iter().filter(wanted).collect();
        for align in &args.aligns {
            // One that has it is enough: the others are surveyed for the other sizes.
            let has_it = |kind: &BackendKind| align.on(*kind).is_ok();
            if let Some(first) = kinds.first().filter(|_| !kinds.iter().any(has_it)) {
                align.on(*first)?;
            }
        }
        let backends = kinds
            .into_iter()
            .map(|kind| (kind, sizes(kind, &args.aligns)));
        Ok(Self {
            backends: backends.collect(),
        })
    }
}

/// The sizes of `aligns` that `kind` has; all that are natural if nothing is said.
fn sizes(kind: BackendKind, aligns: &[PageSize]) -> Vec<u64> {
    let granule = kind.model().granule();
    let mut sizes: Vec<u64> = match aligns {
        [] => std::iter::once(granule.bytes())
            .chain(natural(granule))
            .collect(),
        aligns => {
            let there = aligns.iter().filter_map(|align| align.on(kind).ok());
            there.map(|size| size.0).collect()
        }
    };
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}
