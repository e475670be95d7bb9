//! The sizes of pages that memory is used in: `base`, `2M`, `16G`.

use crate::size::ByteSize;
use hosted::BackendKind;
use mm_core::addr::Granule;
use std::fmt;
use std::str::FromStr;

/// The compound pages that are natural on `granule`, the smaller first, in bytes: what one huge
/// leaf maps, and what one leaf of the level above maps (1 GiB) or 32 huge leaves with the
/// contiguous bit do.
pub const fn natural(granule: Granule) -> [u64; 2] {
    match granule {
        Granule::Size4K => [2 << 20, 1 << 30],
        Granule::Size16K => [32 << 20, 1 << 30],
        Granule::Size64K => [512 << 20, 16 << 30],
    }
}

/// The size of a page as it is asked for. Whether there are such pages, the backend says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// Base pages, whatever their size.
    Base,
    /// Pages of this size.
    Bytes(ByteSize),
}

impl FromStr for PageSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("base") {
            return Ok(Self::Base);
        }
        text.parse()
            .map(Self::Bytes)
            .map_err(|error| format!("{error}; or base for base pages"))
    }
}

impl PageSize {
    /// The size on `backend`.
    ///
    /// # Errors
    ///
    /// [`NoPage`] where that is not a power of two of base pages, or larger than the largest page.
    pub fn on(self, backend: BackendKind) -> Result<ByteSize, NoPage> {
        let base = backend.model().granule().bytes();
        let sizes = base..=largest(backend);
        match self {
            Self::Base => Ok(ByteSize(base)),
            Self::Bytes(size) if size.0.is_power_of_two() && sizes.contains(&size.0) => Ok(size),
            Self::Bytes(size) => Err(NoPage { size, backend }),
        }
    }
}

/// The size of the largest page of `backend`, in bytes.
fn largest(backend: BackendKind) -> u64 {
    let model = backend.model();
    let bytes = model.max_order().bytes(model.granule());
    bytes.unwrap_or(u64::MAX)
}

/// A size that no page of a backend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPage {
    size: ByteSize,
    backend: BackendKind,
}

impl fmt::Display for NoPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.backend.model();
        let base = ByteSize(model.granule().bytes());
        let largest = ByteSize(largest(self.backend));
        let [natural, large] = natural(model.granule()).map(ByteSize);
        write!(
            f,
            "pages of {} do not exist on {}; takes base or {base} for base pages, or a power of two up to {largest}, like {natural} or {large}",
            self.size,
            self.backend.name(),
        )
    }
}

impl std::error::Error for NoPage {}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(text: &str, backend: BackendKind) -> Option<u64> {
        let size = text.parse::<PageSize>().ok()?.on(backend).ok()?;
        Some(size.0)
    }

    #[test]
    fn sizes_are_those_of_the_backend() {
        let cases = [
            ("base", [Some(4 << 10), Some(16 << 10), Some(64 << 10)]),
            ("BASE", [Some(4 << 10), Some(16 << 10), Some(64 << 10)]),
            ("4K", [Some(4 << 10), None, None]),
            ("16k", [Some(16 << 10), Some(16 << 10), None]),
            ("0x10000", [Some(64 << 10); 3]),
            ("1T", [Some(1 << 40); 3]),
            ("2T", [None; 3]),
            ("8192P", [None; 3]),
            ("2K", [None; 3]),
            ("3M", [None; 3]),
            ("0", [None; 3]),
            ("base pages", [None; 3]),
            ("", [None; 3]),
        ];
        for (text, sizes) in cases {
            let backends = [
                BackendKind::X86_64,
                BackendKind::AArch64_16K,
                BackendKind::AArch64_64K,
            ];
            assert_eq!(backends.map(|backend| on(text, backend)), sizes, "{text}");
        }
    }

    #[test]
    fn the_smaller_natural_page_is_what_a_huge_leaf_maps() {
        for backend in BackendKind::ALL {
            let granule = backend.model().granule();
            let leaf = granule.bytes() * granule.entries_per_table() as u64;
            assert_eq!(natural(granule)[0], leaf, "{}", backend.name());
        }
    }
}
