//! How many entries have to be written to bring memory online in an empty tree, and to take it offline again:
//! none more than once, but for entries of new upper tables, which are zeroed first. And how many looks into
//! tables are enough: an operation on many pages goes down to each table a few times, and neither walks from the
//! root nor looks over a table again for each page.

use super::Counts;
use super::operations::Geometry;
use hosted::BackendKind;
use mm_core::addr::Order;
use mm_core::pagemap::{Piece, Tails};
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
    let model = kind.model();
    let assert_is = |what: &str, is: u64, expected: u64| {
        let of = format!("{}, {}", kind.name(), geometry.name(&model));
        assert!(
            is == expected,
            "{of}, pieces of {piece:?}: {what}: {is}, by the formula {expected}"
        );
    };
    let [written, looks_online, ..] = online.0;
    let [cleared, looks_offline, allocate, _, _, flushes, frames] = offline.0;
    assert_is("calls of offline that allocate", allocate, 0);
    assert_is("frames after offline", frames, 0);
    if kind.table_levels() == 0 {
        assert_is("entries written", written + cleared, 0);
        return;
    }
    assert_is("flushes of offline", flushes, 1);

    let sizes = Sizes::of(model);
    let cost = Costs::of(kind, &model).report(&[geometry.used()], geometry.tables);
    let table = sizes.table().frames();
    let spans = geometry.frames.frames().div_ceil(table);
    // Each span is linked, or a huge leaf, and each upper table is linked.
    let links = spans + cost.upper_tables;
    // Each link is made not present, and the root's is zeroed: all else goes with what it links.
    assert_is("entries that offline writes", cleared, links + 1);

    // With the root. In several steps there is a walk for each, and one more at its end. No compound page that
    // shares its tails is in two of them.
    let tables = 1 + cost.leaf_tables + cost.upper_tables;
    let step = match (piece, geometry.tails) {
        (Piece::Section, Tails::None) => model.section(),
        (Piece::Section, _) => model.section().max(geometry.order),
        _ => Order::MAX,
    };
    let steps = geometry.frames.frames().div_ceil(step.frames());
    let walks = if steps > 1 { 2 * steps } else { 0 };
    let enough = 3 * tables + walks * u64::from(kind.table_levels());
    assert_is(
        "looks of online, or enough",
        looks_online.max(enough),
        enough,
    );
    let enough = 5 * tables;
    assert_is(
        "looks of offline, or enough",
        looks_offline.max(enough),
        enough,
    );

    let whole = sizes.entries() * (cost.leaf_tables + cost.upper_tables);
    // The first step of a table writes all of it, each other one its own.
    let again = steps.saturating_sub(spans) * sizes.pages(step);
    assert_is("entries that online writes", written, whole + links + again);
}
