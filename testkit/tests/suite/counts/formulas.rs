//! How many entries have to be written to bring memory online in an empty tree, and to take it offline again:
//! none more than once, but for entries of new upper tables, which are zeroed first.

use super::Counts;
use super::operations::Geometry;
use hosted::BackendKind;
use mm_core::pagemap::{Piece, Tables};
use testkit::testbed::{Costs, Sizes};

/// Checks what was counted while all of `geometry`, which starts with a leaf table, came online in pieces and
/// went offline.
pub(super) fn check(
    kind: BackendKind,
    geometry: &Geometry,
    piece: Piece,
    online: Counts,
    offline: Counts,
) {
    let [entries, ..] = online.0;
    let [cleared, _, allocate, _, _, flushes, frames] = offline.0;
    assert_eq!(
        (allocate, frames),
        (0, 0),
        "{geometry:?}: offline allocates nothing"
    );
    if kind.table_levels() == 0 {
        assert_eq!((entries, cleared), (0, 0));
        return;
    }
    assert_eq!(flushes, 1, "{geometry:?}: offline flushes once");
    let model = kind.model();
    let sizes = Sizes::of(model);
    let cost = Costs::of(kind, &model).report(&[geometry.used()], geometry.tables);
    let table = sizes.table().frames();
    let spans = geometry.frames.frames().div_ceil(table);
    // Each span is linked, or a huge leaf, and each upper table is linked.
    let links = spans + cost.upper_tables;
    // Each link is made not present, and the root's is zeroed: all else goes with what it links.
    assert_eq!(cleared, links + 1, "{geometry:?}: entries cleared");

    let whole = sizes.entries() * (cost.leaf_tables + cost.upper_tables);
    let section = model.section().frames();
    let again = match piece {
        // The first section of a table writes all of it, each other one its own.
        Piece::Section if section < table => {
            let pages = section / model.vmemmap_page_order().frames();
            let sections = geometry.frames.frames() / section;
            (sections - spans) * pages
        }
        _ => 0,
    };
    let small_pieces = piece == Piece::Section && section < table;
    if small_pieces && geometry.tables == Tables::Shared {
        return; // Private tables at first, which are merged.
    }
    assert_eq!(
        entries,
        whole + links + again,
        "{geometry:?}: entries written"
    );
}
