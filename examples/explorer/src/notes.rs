//! What was done otherwise than asked, in bytes and in good English. What is not named here is said
//! as the library says it.

use crate::size::{ByteRange, ByteSize};
use mm_core::addr::{Granule, Order};
use mm_core::pagemap::{HeadsFallback, TablesFallback, TailsFallback};
use mm_core::vmemmap::Note;

/// `note`, on pages of `granule`.
pub fn text(note: &Note, granule: Granule) -> String {
    let size = |order: Order| ByteSize(order.frames().saturating_mul(granule.bytes()));
    match *note {
        Note::Tails(TailsFallback::NothingToSave {
            order,
            vmemmap_pages,
        }) => format!(
            "the descriptors of a compound page of {} fill {}, too few to share tails; populated as base pages",
            size(order),
            counted(vmemmap_pages, "vmemmap page")
        ),
        Note::Heads(HeadsFallback::NoWholePage { order }) => format!(
            "the descriptors of a compound page of {} do not fill a vmemmap page; heads: in place",
            size(order)
        ),
        Note::Tables(TablesFallback::NoWholeTable { order }) => format!(
            "the tails of a compound page of {} do not fill a leaf table; tables: private",
            size(order)
        ),
        Note::HugeLeavesUnavailable { leaves: 1 } => {
            "1 huge leaf of vmemmap was not possible (no free block, or a table is there); base pages instead".to_owned()
        }
        Note::AltmapGap { frames } => format!(
            "{} lies between the altmap and the first compound page; populated as base pages",
            ByteRange::of(frames, granule)
        ),
        Note::RemoteFrames {
            frames: 1,
            asked,
            first,
        } => format!("1 descriptor frame is not on node {asked} but remote, on node {first}"),
        ref other => other.to_string(),
    }
}

/// What is said where `allocations` were let succeed, and that was enough.
pub fn never_failed(allocations: u64) -> String {
    format!(
        "--fail-after {allocations} made nothing fail: no more than that many allocations of RAM frames were needed"
    )
}

/// `number` of what is called `one` in the singular: `1 frame`, `1,024 frames`.
pub fn counted(number: u64, one: &str) -> String {
    let plural = match (number, one.strip_suffix('y')) {
        (1, _) => one.to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) => format!("{one}s"),
    };
    format!("{} {plural}", crate::table::number(Some(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::addr::NodeId;

    #[test]
    fn what_is_counted_agrees_in_number() {
        let cases = [
            (0, "entry", "0 entries"),
            (1, "entry", "1 entry"),
            (1, "vmemmap page", "1 vmemmap page"),
            (1024, "frame", "1,024 frames"),
        ];
        for (number, one, text) in cases {
            assert_eq!(counted(number, one), text);
        }
    }

    #[test]
    fn one_of_a_thing_is_said_in_the_singular() {
        let (asked, first) = (NodeId::new(2), NodeId::new(1));
        let of = |frames| Note::RemoteFrames {
            frames,
            asked,
            first,
        };
        let text = |note| text(&note, Granule::Size4K);
        assert!(text(of(1)).starts_with("1 descriptor frame is not"));
        assert_eq!(text(of(2)), of(2).to_string());
        let leaf = text(Note::HugeLeavesUnavailable { leaves: 1 });
        assert!(leaf.starts_with("1 huge leaf of vmemmap was not possible"));
    }
}
