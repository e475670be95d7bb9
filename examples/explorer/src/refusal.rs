//! Why the library refuses or fails, in the units and options of the command line: bytes instead of
//! frames, and what to give instead.

use crate::failure::Failure;
use crate::size::{ByteRange, ByteSize};
use mm_core::addr::{Granule, PfnRange, RangeError};
use mm_core::error::ErrorKind;
use mm_core::frame::{AltmapError, OutOfFrames};
use mm_core::pagemap::PagemapError;
use mm_core::vmemmap::{FoldError, OnlineError};
use std::fmt;

/// `what`, named in bytes, is no range of whole pages of `granule`.
pub fn no_range(what: impl fmt::Display, error: RangeError, granule: Granule) -> Failure {
    match error {
        RangeError::Misaligned { .. } => Failure::new(
            error.kind(),
            format_args!(
                "{what}: start and size must be multiples of a base page, {}",
                ByteSize(granule.bytes())
            ),
        ),
        _ => Failure::range(what, error),
    }
}

/// Why ranges cannot be used so.
pub fn of_pagemap(error: PagemapError, granule: Granule) -> Failure {
    let bytes = |frames: PfnRange| ByteRange::of(frames, granule);
    let size = |frames: u64| ByteSize(frames.saturating_mul(granule.bytes()));
    let message = match error {
        PagemapError::Misaligned {
            range,
            order,
            aligned,
        } => {
            let instead = match aligned.map(bytes) {
                Some(part) => format!("the aligned part is {part}"),
                None => "no part of it does; take a larger range, or smaller pages".to_owned(),
            };
            let (range, unit) = (bytes(range), size(order.frames()));
            format!("range {range} does not start and end at multiples of {unit}; {instead}")
        }
        PagemapError::Overlap { first, second } => format!(
            "ranges {} and {} overlap; name all memory once",
            bytes(first),
            bytes(second)
        ),
        PagemapError::OutOfModel { range, room } => {
            let ByteRange { start, size } = bytes(room);
            format!(
                "range {} is not within the memory that the vmemmap has room for, from {} to {}; take a range that ends there at most",
                bytes(range),
                ByteSize(start),
                ByteSize(start.saturating_add(size))
            )
        }
        PagemapError::AltmapElsewhere { reserved, range } => format!(
            "altmap {} is not the start of the first range, {}",
            bytes(reserved),
            bytes(range)
        ),
        PagemapError::NoCompoundPage { reserved, range } => format!(
            "an altmap of {} leaves no whole compound page of the first range, {}; make that range larger or --align smaller",
            size(reserved),
            bytes(range)
        ),
        PagemapError::AltmapTooLarge { reserved, range } => format!(
            "an altmap of {} is larger than the first range, {}; make that range larger, or name a larger one first",
            size(reserved),
            bytes(range)
        ),
        other => other.to_string(),
    };
    Failure::new(error.kind(), message)
}

/// Why a part of the first range cannot be an altmap.
pub fn of_altmap(error: AltmapError, granule: Granule) -> Failure {
    let message = match error {
        AltmapError::Misaligned {
            reserved,
            subsection,
        } => {
            let size = |frames: u64| ByteSize(frames.saturating_mul(granule.bytes()));
            let whole = reserved.frames().next_multiple_of(subsection);
            format!(
                "altmap {} is not whole subsections of {}; take {}, or auto",
                ByteRange::of(reserved, granule),
                size(subsection),
                size(whole)
            )
        }
        other => other.to_string(),
    };
    Failure::new(error.kind(), message)
}

/// The altmap that is `reserved` is used up. `enough` says what would suffice.
pub fn altmap_exhausted(
    reserved: PfnRange,
    enough: Result<PfnRange, Failure>,
    granule: Granule,
) -> Failure {
    let size = |frames: PfnRange| ByteSize(frames.frames().saturating_mul(granule.bytes()));
    let instead = match enough {
        Ok(enough) => format!(
            "{} is enough: take --altmap {}, or --altmap auto for as little as suffices",
            size(enough),
            size(enough)
        ),
        Err(_) => {
            "no altmap in the first range is enough: make that range larger, or leave --altmap out"
                .to_owned()
        }
    };
    let frames = reserved.frames();
    Failure::new(
        ErrorKind::AltmapExhausted,
        format_args!(
            "the altmap of {} has {frames} frames, too few for the descriptors; {instead}",
            size(reserved)
        ),
    )
}

/// What is known of an operation whose frames may run out.
pub struct Running<'a> {
    /// The page size.
    pub granule: Granule,
    /// How many allocations were let succeed.
    pub fail_after: Option<u64>,
    /// What an altmap would have to reserve.
    pub enough: &'a dyn Fn() -> Result<PfnRange, Failure>,
}

impl fmt::Debug for Running<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

impl Running<'_> {
    /// Why memory did not come online.
    pub fn online(&self, error: OnlineError) -> Failure {
        match error {
            OnlineError::OutOfFrames(error) => self.out_of_frames(error),
            OnlineError::AltmapExhausted { reserved } => self.exhausted(reserved),
            other => other.into(),
        }
    }

    /// Why memory was not folded or unfolded.
    pub fn fold(&self, error: FoldError) -> Failure {
        match error {
            FoldError::OutOfFrames(error) => self.out_of_frames(error),
            FoldError::AltmapExhausted { reserved } => self.exhausted(reserved),
            other => other.into(),
        }
    }

    fn exhausted(&self, reserved: PfnRange) -> Failure {
        altmap_exhausted(reserved, (self.enough)(), self.granule)
    }

    /// A machine has more RAM than is needed, so it is the option that makes allocations fail.
    fn out_of_frames(&self, error: OutOfFrames) -> Failure {
        let OutOfFrames { order, node } = error;
        let message = match self.fail_after {
            Some(allocations) => format!(
                "{} of node {node} was refused as --fail-after {allocations} demands; take a larger number, or leave it out",
                what(order.frames())
            ),
            None => error.to_string(),
        };
        Failure::new(ErrorKind::OutOfFrames, message)
    }
}

fn what(frames: u64) -> String {
    match frames {
        1 => "a frame".to_owned(),
        frames => format!("a block of {frames} frames"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::addr::{NodeId, Order};

    #[test]
    fn blocks_are_named_by_their_frames() {
        assert_eq!(what(1), "a frame");
        assert_eq!(what(512), "a block of 512 frames");
    }

    #[test]
    fn a_frame_that_is_missing_is_the_option_s_if_there_is_one() {
        let error = OutOfFrames {
            order: Order::BASE,
            node: NodeId::new(1),
        };
        let enough = || Err(Failure::host("none"));
        let message = |fail_after| {
            let running = Running {
                granule: Granule::Size4K,
                fail_after,
                enough: &enough,
            };
            running.online(OnlineError::OutOfFrames(error)).message
        };
        assert!(message(Some(3)).contains("--fail-after 3"));
        assert_eq!(message(None), error.to_string());
    }
}
