//! Kinds of errors, for code that reacts to any of them.

use core::fmt;

/// What went wrong, without the particulars.
///
/// Every error of an operation has one of these, by its `kind()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing was asked for.
    Empty,
    /// A start or a length is not a multiple of what it has to be.
    Misaligned,
    /// Two parts of the request, the request and something online, or the request and what an altmap
    /// reserves, cover the same frames.
    Overlap,
    /// Frames outside the model, or outside the pagemap.
    OutOfRange,
    /// A compound page larger than the model's largest.
    UnsupportedOrder,
    /// Descriptors of the range are mapped already.
    AlreadyOnline,
    /// Descriptors of the range are not mapped.
    NotOnline,
    /// Somebody else has references to the memory, or has frozen it.
    Busy,
    /// RAM for descriptors or page tables ran out.
    OutOfFrames,
    /// The altmap ran out.
    AltmapExhausted,
    /// The altmap leaves no memory that compound pages could be made of.
    NoCompoundPage,
    /// The parts do not belong together: another model, or a page table that cannot do it.
    Unsupported,
}

impl ErrorKind {
    /// A name in lower case with hyphens, stable across versions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Misaligned => "misaligned",
            Self::Overlap => "overlap",
            Self::OutOfRange => "out-of-range",
            Self::UnsupportedOrder => "unsupported-order",
            Self::AlreadyOnline => "already-online",
            Self::NotOnline => "not-online",
            Self::Busy => "busy",
            Self::OutOfFrames => "out-of-frames",
            Self::AltmapExhausted => "altmap-exhausted",
            Self::NoCompoundPage => "no-compound-page",
            Self::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
