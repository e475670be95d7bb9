//! The README's table of backends is the list.

use hosted::BackendKind;

const README: &str = include_str!("../../../README.md");

/// A number of bytes in the largest unit that it is whole of.
fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (bytes.trailing_zeros() / 10).min(units.len() as u32 - 1);
    format!("{} {}", bytes >> (10 * unit), units[unit as usize])
}

/// The row of a backend.
fn row(kind: BackendKind) -> String {
    let model = kind.model();
    let granule = model.granule();
    let table = granule.entries_per_table() as u64;
    let leaf = match kind.has_tables() {
        true => bytes(table * model.descriptors_per_page() * granule.bytes()),
        false => "-".to_owned(),
    };
    format!(
        "| `{}` | {} | {} | {} | {leaf} |",
        kind.name(),
        kind.about(),
        bytes(granule.bytes()),
        bytes(model.descriptors_per_page() * granule.bytes()),
    )
}

#[test]
fn the_readme_has_a_row_for_each_backend_and_no_other() {
    let rows: Vec<String> = BackendKind::ALL.into_iter().map(row).collect();
    let header =
        "| backend | what it is | page | a vmemmap page describes | a leaf table describes |";
    let table = README.lines().skip_while(|line| *line != header).skip(2);
    let found: Vec<&str> = table.take_while(|line| line.starts_with('|')).collect();
    assert!(
        rows == found,
        "README.md has another table of backends than hosted/src/list.rs; it should be\n{header}\n|---|---|---|---|---|\n{}",
        rows.join("\n")
    );
}
