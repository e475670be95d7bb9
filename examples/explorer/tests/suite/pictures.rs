//! Pictures have what they are about, and nothing that does not belong there.

use crate::program::run;
use std::fs;

/// The picture that `line` draws.
fn drawn(line: &str) -> String {
    let file = std::env::temp_dir().join(format!(
        "explorer-picture-{}-{}.svg",
        std::process::id(),
        line.replace([' ', '/'], "-")
    ));
    let ran = run(&format!("{line} --out {}", file.display()));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
    let picture = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(picture.contains("prefers-color-scheme:dark"), "{line}");
    picture
}

/// The texts of a picture.
fn texts(picture: &str) -> Vec<String> {
    let parts = picture.split("<text").skip(1);
    let inner = parts.filter_map(|part| part.split_once('>')?.1.split("</text>").next());
    inner.map(|text| text.trim().to_owned()).collect()
}

#[test]
fn a_legend_counts_what_online_counts() {
    for (line, counts) in [
        (
            "draw --align 2M --range 24G+16G",
            vec![
                "8,192 × a frame with a head",
                "8,192 × the tail frame of one",
                "128 × a leaf table",
            ],
        ),
        (
            "draw --align 1G --tails per-order --tables shared --range 24G+16G",
            vec![
                "16 × a frame with a head",
                "1 × the read-only tail frame",
                "16 × a leaf table",
                "1 × a leaf table that is linked",
            ],
        ),
        (
            "draw --align 1G --heads packed --tables shared --range 24G+16G",
            vec![
                "1 × the read-only frame of stubs",
                "1 × a frame with packed heads",
            ],
        ),
        (
            "draw --align base --range 24G+1G",
            vec!["8 × a block of frames"],
        ),
    ] {
        let texts = texts(&drawn(line));
        for count in counts {
            assert!(
                texts.iter().any(|text| text.starts_with(count)),
                "{line}: {count}: {texts:?}"
            );
        }
    }
}

#[test]
fn every_table_that_is_shared_is_drawn_once() {
    let picture = drawn("draw --align 1G --tails per-order --tables shared --range 24G+16G");
    let shared = texts(&picture);
    let shared: Vec<_> = shared
        .iter()
        .filter(|text| text.starts_with("shared leaf table"))
        .collect();
    assert_eq!(shared.len(), 1, "{shared:?}");
    assert!(shared[0].ends_with("112 links"), "{shared:?}");
}

#[test]
fn nothing_is_drawn_beyond_the_edges() {
    for line in [
        "draw --align 2M",
        "draw --align 1G --range 24G+1T",
        "draw --align base --range 24G+4G",
        "draw --backend aarch64-64k --align 16G --range 64G+64G",
        "draw --backend riscv64-sv57 --align 2M --heads packed --range 24G+1G",
        "draw --align 2M --range 24G+130M --range 40G+2M --range 48G+2M",
    ] {
        let picture = drawn(line);
        let numbers = |key: &str| -> Vec<f64> {
            let attribute = format!(" {key}=\"");
            let parts = picture.split(&attribute).skip(1);
            parts
                .filter_map(|part| part.split('"').next()?.parse().ok())
                .collect()
        };
        assert!(
            numbers("x").iter().all(|x| (0.0..=900.0).contains(x)),
            "{line}"
        );
        let height = numbers("height")[0].max(100.0);
        let total: f64 = picture
            .split("height=\"")
            .nth(1)
            .unwrap()
            .split('"')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            numbers("y")
                .iter()
                .all(|y| (0.0..=total.max(height)).contains(y)),
            "{line}"
        );
    }
}

#[test]
fn the_chart_has_a_mark_of_linux_beside_each_of_ours() {
    let picture = drawn("chart");
    let ours = picture.matches("class=\"ours\"").count();
    let linux = picture.matches("class=\"linux\"").count();
    assert_eq!(ours, linux);
    assert!(ours > 20, "{ours}");
}

#[test]
fn a_plan_is_drawn_before_its_runs() {
    let text = run("plan --range 24G+4M --align 2M").stdout;
    assert!(
        text.contains("vmemmap   [H][T][T][T][T][T][T][T] [H][T]"),
        "{text}"
    );
    assert!(
        text.contains("frames     H1          T1           H2          T2"),
        "{text}"
    );
    let text = run("plan --range 24G+1T --align 1G --limit 2 --tails per-order").stdout;
    assert!(text.contains("... 1,023 more pages"), "{text}");
    let text = run("plan --range 24G+1T --align base --limit 2").stdout;
    assert!(text.contains("more vmemmap pages"), "{text}");
}

#[test]
fn wrong_arguments_are_one_line_with_the_right_status() {
    for (line, code, said) in [
        ("draw", 2, "--out <FILE>"),
        ("chart", 2, "--out <FILE>"),
        ("dump", 2, "--out <FILE>"),
        ("inspect", 2, "<DUMP.elf>"),
        ("draw --out /x.svg --align 3M", 2, "--align"),
        ("draw --out /x.svg --heads up", 2, "in-place, packed"),
        (
            "draw --out /x.svg --dump a.elf --align 2M",
            2,
            "cannot be used with",
        ),
        ("inspect a.elf --format yaml", 2, "table, json"),
        ("inspect a.elf b.elf", 2, "b.elf"),
        ("draw --backend sim --out /tmp/x.svg", 1, "no page tables"),
        ("draw --range 24G+1M --out /tmp/x.svg", 1, "misaligned"),
        (
            "draw --out /nowhere/at/all.svg --range 24G+64M",
            1,
            "/nowhere/at/all.svg",
        ),
        (
            "draw --dump /nowhere/at/all.elf --out /tmp/x.svg",
            1,
            "/nowhere/at/all.elf",
        ),
        ("chart --out /nowhere/at/all.svg", 1, "/nowhere/at/all.svg"),
        ("drow --out x", 2, "did you mean 'draw'"),
    ] {
        let ran = run(line);
        assert_eq!(
            (ran.code, ran.stdout.as_str()),
            (code, ""),
            "{line}: {}",
            ran.stderr
        );
        assert_eq!(ran.stderr.lines().count(), 1, "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{line}: {}", ran.stderr);
    }
}

/// What the documents show, and what draws it.
const SHOWN: [(&str, &str); 3] = [
    (
        "shared-tables",
        "draw --align 1G --tails per-order --tables shared",
    ),
    (
        "packed-heads",
        "draw --align 2M --heads packed --range 24G+1G",
    ),
    ("costs", "chart"),
];

#[test]
fn the_documents_show_what_is_drawn() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/pictures");
    for (name, line) in SHOWN {
        let file = format!("{directory}/{name}.svg");
        let picture = drawn(line);
        if std::env::var("PICTURES").is_ok_and(|how| how == "renew") {
            fs::write(&file, &picture).unwrap();
        }
        let shown = fs::read_to_string(&file).unwrap();
        assert_eq!(
            shown, picture,
            "{name}: PICTURES=renew cargo test -p explorer pictures"
        );
    }
}
