//! What `inspect` finds in a dump is what is online; what is damaged is told, in one line.

use crate::program::{Ran, online, run};
use explorer::dump::{Dump, core};
use explorer::failure::Failure;
use explorer::look::Budget;
use explorer::look::description::Described;
use explorer::look::pages::TailsShare;
use hosted::{Backend, BackendKind, Machine, MachineConfig, X86_64};
use mm_core::addr::{Granule, NodeId, Pfn, PfnRange};
use mm_core::descriptor::{Mask, Page, Pointer, TailEncoding};
use mm_core::pagemap::{DevPagemap, Geometry};
use mm_core::vmemmap::Vmemmap;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

static FILES: AtomicU64 = AtomicU64::new(0);

/// A file that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(ending: &str) -> Self {
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let name = format!("explorer-{}-{number}.{ending}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A dump of a machine with `line` online.
fn dump(line: &str) -> Scratch {
    let file = Scratch::new("elf");
    let ran = run(&format!("dump {line} --out {}", file.name()));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
    file
}

fn inspect(file: &Scratch) -> Ran {
    run(&format!("inspect {} --format json", file.name()))
}

/// What is found in a dump with `line` online, with nothing wrong.
fn inspected(line: &str) -> Value {
    let ran = inspect(&dump(line));
    assert_eq!(
        (ran.code, ran.stderr.as_str()),
        (0, ""),
        "{line}: {}",
        ran.stdout
    );
    let found = ran.json();
    assert_eq!(
        found["findings"].as_array().map(Vec::len),
        Some(0),
        "{line}"
    );
    found
}

#[test]
fn a_dump_has_the_pages_and_frames_that_are_online() {
    for backend in BackendKind::ALL
        .into_iter()
        .filter(|kind| kind.has_tables())
    {
        let name = backend.name();
        let granule = backend.model().granule().bytes();
        let [small, large] = explorer::geometry::natural(backend.model().granule());
        for (size, policies) in [
            (granule, ""),
            (small, "--tails none"),
            (small, "--tails per-compound"),
            (small, "--tails per-order"),
            (large, "--tails per-compound --tables shared"),
            (large, "--tails per-order --tables shared"),
        ] {
            let bytes = if size == granule { 128 << 20 } else { 2 * size };
            let start = 64_u64 << 30;
            let line =
                format!("--backend {name} --align {size} --range {start}+{bytes} {policies}");
            let found = inspected(&line);
            let costs = online(&line);
            for key in ["descriptors", "leaf_tables", "upper_tables", "total"] {
                assert_eq!(found["frames"][key], costs["frames"][key], "{line}: {key}");
            }
            let pages = found["pages"].as_array().unwrap();
            assert_eq!(pages.len(), 1, "{line}: {pages:?}");
            let page = &pages[0];
            assert_eq!(page["start"], start, "{line}");
            assert_eq!(page["size"], size, "{line}");
            assert_eq!(page["count"], bytes / size, "{line}");
            let tails = costs["tails"].as_str().unwrap();
            let heads = if size == granule {
                Value::Null
            } else {
                "in-place".into()
            };
            assert_eq!(
                (&page["tails"], &page["heads"]),
                (&tails.into(), &heads),
                "{line}"
            );
        }
    }
}

#[test]
fn packed_heads_are_found_and_counted() {
    for (backend, size) in [
        ("x86_64", "2M"),
        ("aarch64-16k", "32M"),
        ("riscv64-sv57", "1G"),
    ] {
        let line = format!("--backend {backend} --align {size} --range 64G+4G --heads packed");
        let found = inspected(&line);
        let pages = found["pages"].as_array().unwrap();
        assert_eq!(pages.len(), 1, "{line}");
        assert_eq!(pages[0]["heads"], "packed", "{line}");
        assert_eq!(pages[0]["tails"], "per-order", "{line}");
    }
}

#[test]
fn several_ranges_are_several_runs_of_pages() {
    let found = inspected("--align 2M --range 40G+64M --range 24G+2M --range 64G+128M");
    let starts: Vec<u64> = found["pages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["start"].as_u64().unwrap() >> 30)
        .collect();
    assert_eq!(starts, [24, 40, 64]);
}

#[test]
fn a_dump_is_told_and_drawn_for_people() {
    let file = dump("--range 24G+1G --align 2M");
    let ran = run(&format!("inspect {}", file.name()));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for said in [
        "x86-64, pages of 4K, 4 levels of tables, described in a note",
        "0x600000",
        "per-compound",
        "findings      none",
    ] {
        assert!(ran.stdout.contains(said), "{said}: {}", ran.stdout);
    }
    let picture = Scratch::new("svg");
    let ran = run(&format!(
        "draw --dump {} --out {}",
        file.name(),
        picture.name()
    ));
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let drawn = fs::read_to_string(&picture.0).unwrap();
    assert!(
        drawn.starts_with("<svg") && drawn.contains("512 pages of 2M"),
        "{drawn}"
    );
}

/// What is said of a dump of these bytes: one line, exit 1.
fn refused(bytes: &[u8]) -> String {
    let file = Scratch::new("elf");
    fs::write(&file.0, bytes).unwrap();
    let ran = inspect(&file);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(
        ran.stderr.starts_with("error: unreadable: "),
        "{}",
        ran.stderr
    );
    ran.stderr
}

#[test]
fn what_is_no_dump_is_told_in_one_line() {
    assert!(refused(b"").contains("is no ELF file"));
    assert!(refused(&[7; 4096]).contains("is no ELF file"));
    let whole = fs::read(dump("--range 24G+64M").0.as_path()).unwrap();
    // Wherever it is cut off.
    for length in [63, 64, 100, 4096, whole.len() / 2, whole.len() - 1] {
        let said = refused(&whole[..length]);
        assert!(
            said.contains("cut off") || said.contains("too short"),
            "{length}: {said}"
        );
    }
    let mut other = whole.clone();
    other[4] = 1;
    assert!(refused(&other).contains("64-bit"));
    let machine = |number: u16| {
        let mut other = whole.clone();
        other[18..20].copy_from_slice(&number.to_le_bytes());
        refused(&other)
    };
    assert!(machine(2).contains("no tables of 4 levels"));
    let nothing = core::file(62, &[], &[(0, vec![0; 8192])]);
    assert!(refused(&nothing).contains("no description of a vmemmap"));
    assert!(refused(&core::file(62, &[], &[])).contains("no memory in it"));
    let wild = core::file(62, &[], &[(u64::MAX - 100, vec![0; 8192])]);
    assert!(refused(&wild).contains("beyond all addresses"));
    let ran = run("inspect /nowhere/at/all.elf");
    assert_eq!((ran.code, ran.stderr.lines().count()), (1, 1));
    let ran = run("inspect /");
    assert_eq!((ran.code, ran.stderr.lines().count()), (1, 1));
}

/// Where the word `needle` lies in `bytes`, at a multiple of 8.
fn find(bytes: &[u8], needle: &[u8]) -> usize {
    let mut places = (0..bytes.len() - needle.len()).step_by(4);
    places.find(|at| bytes[*at..].starts_with(needle)).unwrap()
}

#[test]
fn a_damaged_description_is_told() {
    let whole = fs::read(dump("--range 24G+64M").0.as_path()).unwrap();
    let at = find(&whole, b"vmemmap-describe");
    for word in 2..22 {
        let mut damaged = whole.clone();
        damaged[at + word * 8 + 1] ^= 0x40;
        let said = refused(&damaged);
        assert!(
            said.contains("description") || said.contains("version"),
            "{word}: {said}"
        );
    }
}

#[test]
fn what_is_wrong_in_tables_and_descriptors_is_found() {
    let line = "--range 24G+64M --align 2M";
    let whole = fs::read(dump(line).0.as_path()).unwrap();
    let dump_of = |bytes: Vec<u8>| -> Result<Vec<String>, Failure> {
        let look = explorer::dump::look(&Dump::of_bytes(bytes)?, Budget::USUAL)?;
        Ok(look.findings)
    };
    assert_eq!(dump_of(whole.clone()).unwrap(), [""; 0]);
    // Each byte of a head, of the tail frame, and of the leaf table.
    let dump = Dump::of_bytes(whole.clone()).unwrap();
    let look = explorer::dump::look(&dump, Budget::USUAL).unwrap();
    let file_offset = |frame: u64| {
        let at = frame << 12;
        let load = dump
            .loads()
            .iter()
            .find(|load| (load.physical..load.physical + load.bytes).contains(&at));
        let load = load.unwrap();
        (load.offset + at - load.physical) as usize
    };
    let leaves = look.vmemmap();
    let (head, tail) = (
        file_offset(leaves[0].frame.get()),
        file_offset(leaves[1].frame.get()),
    );
    let table = file_offset(leaves[0].table.get());
    // The words and the order of a `Page`: 8 and 24.
    for (place, bit, what) in [
        (head + 8, 0x20, "no head's"),
        (head + 64 + 8, 0x20, "does not lead to its head"),
        (head + 24, 0x20, "no order that there is"),
        (tail + 8, 0x20, "does not say so"),
        (tail + 24, 0x01, "does not say so"),
        // The entry of the head leads to the next head, and the first one is gone.
        (table + 1, 0x20, "mapped more than once"),
        (table, 0x01, "not aligned to it"),
    ] {
        let mut damaged = whole.clone();
        damaged[place] ^= bit;
        match dump_of(damaged) {
            Ok(findings) => {
                assert!(!findings.is_empty(), "{place:#x}");
                assert!(
                    findings.iter().any(|found| found.contains(what)),
                    "{what}: {findings:?}"
                );
            }
            Err(failure) => panic!("{failure}"),
        }
    }
}

#[test]
fn a_description_is_found_in_a_page_where_there_is_no_note() {
    let whole = fs::read(dump("--range 24G+64M").0.as_path()).unwrap();
    let noted = Dump::of_bytes(whole.clone()).unwrap();
    let at = find(&whole, b"vmemmap-describe");
    let description = whole[at..at + explorer::look::description::BYTES].to_vec();
    let mut parts: Vec<(u64, Vec<u8>)> = noted
        .loads()
        .iter()
        .map(|load| {
            let start = load.offset as usize;
            (
                load.physical,
                whole[start..start + load.bytes as usize].to_vec(),
            )
        })
        .collect();
    let end = parts
        .iter()
        .map(|part| part.0 + part.1.len() as u64)
        .max()
        .unwrap();
    parts.push((end.next_multiple_of(4096), description));
    let dump = Dump::of_bytes(core::file(62, &[], &parts)).unwrap();
    let look = explorer::dump::look(&dump, Budget::USUAL).unwrap();
    assert_eq!(look.findings, [""; 0]);
    assert_eq!(look.pages[0].count, 32);
}

#[test]
fn tables_that_lead_back_to_themselves_come_to_an_end() {
    let whole = fs::read(dump("--range 24G+64M").0.as_path()).unwrap();
    let dump = Dump::of_bytes(whole.clone()).unwrap();
    let look = explorer::dump::look(&dump, Budget::USUAL).unwrap();
    let root = look.described.root.get() << 12;
    let load = dump
        .loads()
        .iter()
        .find(|load| (load.physical..load.physical + load.bytes).contains(&root))
        .unwrap();
    let offset = (load.offset + root - load.physical) as usize;
    let mut damaged = whole.clone();
    for entry in damaged[offset..offset + 4096].chunks_mut(8) {
        entry.copy_from_slice(&(root | 0x623).to_le_bytes());
    }
    let budget = Budget {
        entries: 1 << 16,
        runs: 1 << 12,
    };
    let damaged = Dump::of_bytes(damaged).unwrap();
    let failure = explorer::dump::look(&damaged, budget).unwrap_err();
    assert!(failure.message.contains("damaged"), "{failure}");
}

/// A dump of a machine with 64 MiB in pages of 2 MiB online, with tails by `E`, whose description is in a page; three frames are
/// marked. With `fold`, it came online in base pages.
fn marked_dump<E: TailEncoding>(fold: bool) -> Dump {
    let frame = |number| Pfn::new(number).unwrap();
    let device = PfnRange::new(frame(24 << 18), 64 << 8).unwrap();
    let machine = Machine::<X86_64>::new(&MachineConfig {
        devices: vec![device],
        ram_frames: 1 << 14,
        ..MachineConfig::default()
    });
    let machine = machine.unwrap();
    let mut table = machine.take_table().unwrap();
    let model = X86_64::MODEL;
    // SAFETY: 1: nothing else is mapped on this machine. 2: its memory has all RAM. 3: it has one table. 4: nothing is online.
    let vmemmap =
        unsafe { Vmemmap::<Page<E>, _, _>::new(model, machine.frames(), machine.memory()) };
    let mut vmemmap = vmemmap.unwrap();
    let ranges = [device];
    let geometry = Geometry::from_bytes(2 << 20, Granule::Size4K).unwrap();
    let huge = DevPagemap::new(&model, &ranges, geometry).unwrap();
    let region = match fold {
        false => vmemmap.online(&mut table, &huge).unwrap(),
        true => {
            let base = DevPagemap::new(&model, &ranges, Geometry::BASE_PAGES).unwrap();
            let region = vmemmap.online(&mut table, &base).unwrap();
            let folded = vmemmap.fold(&mut table, &huge, device).unwrap();
            assert_eq!(folded.changed, 32);
            region
        }
    };
    for marked in [
        device.start(),
        device.start().saturating_add(700),
        device.last(),
    ] {
        assert_eq!(vmemmap.mark(&table, marked, NodeId::new(0)), Ok(true));
    }
    let description = vmemmap.describe(&X86_64::tree(&machine).unwrap());
    let bytes = Described::bytes_of(&description);
    let dump = core::of_memory(machine.memory(), 62, core::Told::Page(&bytes));
    vmemmap.offline(&mut table, region).unwrap();
    Dump::of_bytes(dump).unwrap()
}

#[test]
fn marks_and_both_encodings_are_found() {
    for (fold, dump) in [
        (false, marked_dump::<Mask>(false)),
        (false, marked_dump::<Pointer>(false)),
        (true, marked_dump::<Mask>(true)),
        (true, marked_dump::<Pointer>(true)),
    ] {
        let look = explorer::dump::look(&dump, Budget::USUAL).unwrap();
        assert_eq!(look.findings, [""; 0]);
        assert_eq!((look.pages.len(), look.pages[0].count), (1, 32));
        assert_eq!(look.pages[0].tails, TailsShare::PerCompound, "{fold}");
        assert_eq!((look.marked.frames, look.marked.bitmaps), (3, 1));
        assert_eq!(look.marked.in_runs, [3]);
    }
}
