//! The command line.

use crate::draw::DrawArgs;
use crate::dump::{DumpArgs, InspectArgs};
use crate::geometry::PageSize;
use crate::size::{ByteRange, ByteSize};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hosted::BackendKind;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Without a command: the survey. It brings up to 1 TiB online for each natural page size and policy, on each backend, and prints two tables for each of them, as soon as they are done: what it costs, and what folding and unfolding changes. All words are explained below the last.

Examples:
  explorer
  explorer --backend x86_64
  explorer --backend x86_64 --backend aarch64-64k --align 16G
  explorer help online
  explorer online --align 1G
  explorer online --backend x86_64-la57 --range 24G+16G --format json
  explorer online --backend aarch64-64k --align 16G --range 64G+64G
  explorer fold --range 24G+1G --align 2M --tails per-order
  explorer reorder --range 24G+1G --from 1G --to 2M --tails per-order
  explorer plan --range 0x600000000+0x40000000 --align 1G
  explorer draw --align 1G --tails per-order --out /tmp/vmemmap.svg";

/// What a simulation takes of the machine that it runs on: `Limits::HOST_BYTES` in words.
const HOST_MEMORY: &str = "\
Host memory: descriptors and tables are real memory of the machine that this runs on, 16 MiB for 1 GiB in base pages of 4K. A request that needs more than 8 GiB, or more than the machine has free, is refused before anything is done.";

const ONLINE_EXAMPLES: &str = "\
Examples:
  explorer online --range 24G+16G --align 1G
  explorer online --range 40G+1G --range 24G+512M --align 2M --piece range
  explorer online --align 2M --altmap auto
  explorer online --align base --huge-leaves no --range 24G+1G --altmap 32M
  explorer online --backend aarch64-16k --align 32M --tails per-order
  explorer online --range 1T+1T --align 2M --heads packed --tables shared
  explorer online --align 1G --fail-after 20 --format json";

const FOLD_EXAMPLES: &str = "\
The memory comes online in base pages, with huge leaves where --huge-leaves and --piece allow; --align, --tails and --tables say what it is folded as. \
What an altmap reserves stays base pages. --fail-after counts through all steps; the step in which memory runs out changes nothing.

Examples:
  explorer fold
  explorer fold --range 24G+1G --align 1G --tails per-order --tables shared
  explorer fold --backend aarch64-64k --range 64G+16G --format json
  explorer fold --range 24G+4G --align 2M --altmap auto
  explorer fold --range 24G+1G --align 2M --fail-after 12
  explorer fold --backend aarch64-4k --no-quiesce";

const REORDER_EXAMPLES: &str = "\
All frames come from a reserve that is filled before, and go back to it: no allocator is called within the changes. Frames are counted with all tables below the root, and without the reserve.

Examples:
  explorer reorder
  explorer reorder --range 24G+1G --tails per-order --tables shared
  explorer reorder --range 24G+1G --to base --part 24G+4K --tails per-order
  explorer reorder --range 24G+1G --from 2M --to 1G --format json
  explorer reorder --backend aarch64-64k --range 64G+16G";

const LAZY_EXAMPLES: &str = "\
RAM comes online from address 0 on, in pages of 1G (16G with 64K pages) that share their tails per order, and their tables. Where the first frame of a block is handed out, which is what a huge leaf maps (2M; 32M with 16K pages, 512M with 64K pages), \
the block becomes base pages, and the rest of its page the largest pages that fit. Frames for that come from a reserve, which is topped up before. Frames are counted with all tables below the root, and without the reserve.

Examples:
  explorer lazy
  explorer lazy --ram 64G --used 256M
  explorer lazy --backend aarch64-16k --ram 8G --format json
  explorer lazy --backend aarch64-64k --ram 64G";

const PLAN_EXAMPLES: &str = "\
Takes the options of 'online'; --fail-after and --node change nothing here, since nothing is allocated.

Examples:
  explorer plan --range 24G+4M --align 2M
  explorer plan --range 24G+1T --align 1G --limit 20
  explorer plan --range 24G+1G --align 4K --format json
  explorer plan --range 24G+1T --align 2M --heads packed --piece range
  explorer plan --backend aarch64-64k --align base --range 512G+512G";

const DRAW_EXAMPLES: &str = "\
Repeats are folded; the legend has all counts. The picture follows the reader's light or dark ground.

Examples:
  explorer draw --out /tmp/vmemmap.svg
  explorer draw --align 1G --tails per-order --tables shared --out /tmp/v.svg
  explorer draw --range 24G+1T --align 1G --heads packed --out /tmp/vmemmap.svg
  explorer draw --dump /tmp/memory.elf --out /tmp/vmemmap.svg";

const CHART_EXAMPLES: &str = "\
Memory is measured on simulated machines, instructions were counted in a kernel. Scales are logarithmic.

Examples:
  explorer chart --out /tmp/costs.svg";

const INSPECT_EXAMPLES: &str = "\
A kernel describes its vmemmap in a note of the dump, or at the start of a page of memory. Tables are read as the hardware reads them. \
Findings, if there are some, are listed, and the exit status is 1.

Examples:
  explorer inspect /tmp/memory.elf
  explorer inspect /tmp/memory.elf --format json";

const DUMP_EXAMPLES: &str = "\
The dump has the frames that hold something, and the description of the vmemmap in a note.

Examples:
  explorer dump --range 24G+1G --align 2M --out /tmp/memory.elf
  explorer dump --backend aarch64-16k --heads packed --out /tmp/memory.elf";

const EXIT_STATUS: &str = "\
Exit status: 0 done; 1 not done, or an audit found something: the reason is on standard error and in JSON, such as ranges or an altmap that are empty, misaligned, overlapping or too large or small, or memory that ran out; \
2 arguments that cannot be read, or a size of pages that the backend does not have.";

/// `help` with what a simulation takes, before the rest.
fn with_host_memory(help: &str) -> String {
    format!("{HOST_MEMORY}\n\n{}", with_exit_status(help))
}

/// `help` with what the program exits with, before its examples.
fn with_exit_status(help: &str) -> String {
    match help.split_once("Examples:") {
        Some((text, examples)) => format!("{text}{EXIT_STATUS}\n\nExamples:{examples}"),
        None => format!("{help}\n\n{EXIT_STATUS}"),
    }
}

/// What `--align` takes.
pub(crate) const ALIGN_FORM: &str = "base|SIZE";

/// Brings device memory online as compound pages on a simulated machine, and shows what its
/// descriptors cost and save.
#[derive(Debug, Parser)]
#[command(
    name = "explorer",
    version,
    args_conflicts_with_subcommands = true,
    after_help = with_exit_status(EXAMPLES)
)]
pub struct Cli {
    /// What is surveyed.
    #[command(flatten)]
    pub survey: SurveyArgs,
    /// What to do; the survey if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring memory online, recount every reference, and take it offline again
    #[command(after_help = with_host_memory(ONLINE_EXAMPLES))]
    Online(OnlineArgs),
    /// Bring memory online in base pages, share the tails of its compound pages at run time, and
    /// give each vmemmap page its own frame again
    #[command(after_help = with_host_memory(FOLD_EXAMPLES))]
    Fold(FoldArgs),
    /// Bring memory online in pages of one size, make them pages of another size without allocating,
    /// and change them back
    #[command(after_help = with_host_memory(REORDER_EXAMPLES))]
    Reorder(ReorderArgs),
    /// Bring a machine's own RAM online in large pages, make them base pages where frames are handed out,
    /// and compare that with base pages at once
    #[command(after_help = with_host_memory(LAZY_EXAMPLES))]
    Lazy(LazyArgs),
    /// Draw the vmemmap of a region as SVG: its pages, tables and frames, or that of a dump of memory
    #[command(after_help = with_host_memory(DRAW_EXAMPLES))]
    Draw(DrawArgs),
    /// Draw what descriptors cost by page size and policy as SVG, beside Linux
    #[command(after_help = with_host_memory(CHART_EXAMPLES))]
    Chart(ChartArgs),
    /// Read the vmemmap in a dump of a machine's memory: its pages, what they cost, and whether all is as it should be
    #[command(after_help = with_exit_status(INSPECT_EXAMPLES))]
    Inspect(InspectArgs),
    /// Write a dump of a simulated machine's memory as an ELF core, to be inspected and drawn
    #[command(after_help = with_host_memory(DUMP_EXAMPLES))]
    Dump(DumpArgs),
    /// Print the runs that the vmemmap would be populated with, without touching memory
    #[command(after_help = with_exit_status(PLAN_EXAMPLES))]
    Plan(PlanArgs),
}

/// Options of `chart`.
#[derive(Debug, Args)]
pub struct ChartArgs {
    /// Where the chart goes
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// Options without a command: of the survey.
#[derive(Debug, Args)]
pub struct SurveyArgs {
    /// Survey these page tables only; may be repeated [default: all]
    #[arg(long = "backend", value_name = "BACKEND", value_parser = backend())]
    pub backends: Vec<BackendKind>,
    /// Survey pages of these sizes only; may be repeated. 'base', or a power of two from the size
    /// of a base page to 1T [default: base pages, what a huge leaf maps, and 1G; 16G with 64K pages]
    #[arg(long = "align", value_name = ALIGN_FORM, value_parser = value_of::<PageSize>)]
    pub aligns: Vec<PageSize>,
}

/// Options of `online`.
#[derive(Debug, Args)]
pub struct OnlineArgs {
    /// The region.
    #[command(flatten)]
    pub region: RegionArgs,
    /// Print what each node has, as is done anyway where more than one has something. Json always
    /// has it
    #[arg(long)]
    pub stats: bool,
}

/// Options of `fold`.
#[derive(Debug, Args)]
pub struct FoldArgs {
    /// The region.
    #[command(flatten)]
    pub region: RegionArgs,
    /// A kernel that cannot keep CPUs away from addresses while their entries are exchanged. AArch64
    /// demands that (break-before-make), so it refuses to fold
    #[arg(long)]
    pub no_quiesce: bool,
    /// Print what each node has in each state, as is done anyway where more than one has something.
    /// Json always has it
    #[arg(long)]
    pub stats: bool,
}

/// Options of `reorder`.
#[derive(Debug, Args)]
pub struct ReorderArgs {
    /// The page tables
    #[arg(long, value_name = "BACKEND", default_value = BackendKind::X86_64.name(), value_parser = backend())]
    pub backend: BackendKind,
    /// Memory to bring online, as for online; may be repeated [default: 24G+16G]
    #[arg(
        long = "range",
        value_name = "START+SIZE",
        value_parser = value_of::<ByteRange>
    )]
    pub ranges: Vec<ByteRange>,
    /// The size of the pages that it comes online in: 'base', or a power of two from the size of a
    /// base page to 1T [default: 1G; 16G with 64K pages]
    #[arg(long, value_name = ALIGN_FORM, value_parser = value_of::<PageSize>)]
    pub from: Option<PageSize>,
    /// The size of the pages that it is changed to [default: what a huge leaf maps: 2M; 32M with 16K
    /// pages, 512M with 64K pages]
    #[arg(long, value_name = ALIGN_FORM, value_parser = value_of::<PageSize>)]
    pub to: Option<PageSize>,
    /// Change this part only: whole pages of the size of --to. The rest of a larger page becomes the
    /// largest pages that fit
    #[arg(long, value_name = "START+SIZE", value_parser = value_of::<ByteRange>)]
    pub part: Option<ByteRange>,
    /// What tail pages share [default: per-compound; none with base pages]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub tails: Option<TailsArg>,
    /// Where the heads of compound pages are
    #[arg(long, value_enum, value_name = "POLICY", default_value = "in-place")]
    pub heads: HeadsArg,
    /// What page tables share
    #[arg(long, value_enum, value_name = "POLICY", default_value = "private")]
    pub tables: TablesArg,
    /// Let the first N allocations of RAM frames succeed and all later ones fail; a note says so if
    /// there are none
    #[arg(long, value_name = "N", value_parser = count)]
    pub fail_after: Option<u64>,
    /// How to print the result; json is one object on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

/// Options of `lazy`.
#[derive(Debug, Args)]
pub struct LazyArgs {
    /// The page tables
    #[arg(long, value_name = "BACKEND", default_value = BackendKind::X86_64.name(), value_parser = backend())]
    pub backend: BackendKind,
    /// How much RAM there is: whole pages of those that it comes online in
    #[arg(long, value_name = "SIZE", default_value = "16G", value_parser = value_of::<ByteSize>)]
    pub ram: ByteSize,
    /// How much of it is handed out, from its start on: whole blocks, or the last one is rounded up
    /// [default: a sixteenth]
    #[arg(long, value_name = "SIZE", value_parser = value_of::<ByteSize>)]
    pub used: Option<ByteSize>,
    /// How to print the result; json is one object on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

/// Options of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The region.
    #[command(flatten)]
    pub region: RegionArgs,
    /// Print at most this many runs as text
    #[arg(long, value_name = "N", value_parser = count)]
    pub limit: Option<u64>,
}

/// A region, and how it is brought online.
#[derive(Debug, Args)]
pub struct RegionArgs {
    /// The page tables
    #[arg(long, value_name = "BACKEND", default_value = BackendKind::X86_64.name(), value_parser = backend())]
    pub backend: BackendKind,
    /// Memory to bring online: where it starts and how much; may be repeated, in any order. Bytes,
    /// decimal or 0x hex, with an optional suffix K, M, G, T or P [default: 24G+16G; pages
    /// larger than 8G: one, the first from 24G on]
    #[arg(
        long = "range",
        value_name = "START+SIZE",
        value_parser = value_of::<ByteRange>
    )]
    pub ranges: Vec<ByteRange>,
    /// The size of the pages that the memory is used in: 'base', or a power of two from the size
    /// of a base page (4K, 16K or 64K, by which output names base pages) to 1T [default: what
    /// a huge leaf maps: 2M; 32M with 16K pages, 512M with 64K pages]
    #[arg(
        long,
        value_name = ALIGN_FORM,
        value_parser = value_of::<PageSize>
    )]
    pub align: Option<PageSize>,
    /// What tail pages share [default: per-compound; none with base pages]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub tails: Option<TailsArg>,
    /// Where the heads of compound pages are
    #[arg(long, value_enum, value_name = "POLICY", default_value = "in-place")]
    pub heads: HeadsArg,
    /// What page tables share
    #[arg(long, value_enum, value_name = "POLICY", default_value = "private")]
    pub tables: TablesArg,
    /// How much is populated at a time
    #[arg(long, value_enum, value_name = "PIECE", default_value = "section")]
    pub piece: PieceArg,
    /// Whether vmemmap of base pages is mapped by huge leaves where a piece covers all that one
    /// describes: 128M with 4K pages, 8G with 16K pages, 512G with 64K pages. A note says so where
    /// a range covers that much and no piece does; where no range does, there is nothing to note
    #[arg(long, value_enum, value_name = "YES/NO", default_value = "yes")]
    pub huge_leaves: YesNo,
    /// Take descriptor frames from this much memory at the start of the first range; auto: from as
    /// little as suffices
    #[arg(long, value_name = "SIZE|auto", value_parser = value_of::<AltmapSize>)]
    pub altmap: Option<AltmapSize>,
    /// The NUMA node of the memory, 0 to 63, that frames are taken from. Nodes 0 and 1 have RAM;
    /// others get it from the nearest of these
    #[arg(long, value_name = "N", default_value = "0", value_parser = node)]
    pub node: u32,
    /// Let the first N allocations of RAM frames succeed and all later ones fail; a note says so if
    /// there are none
    #[arg(long, value_name = "N", value_parser = count)]
    pub fail_after: Option<u64>,
    /// How to print the result; json is one object on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

/// `--altmap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AltmapSize {
    /// The fewest subsections that suffice.
    Auto,
    /// So much.
    Bytes(ByteSize),
}

impl std::str::FromStr for AltmapSize {
    type Err = <ByteSize as std::str::FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::Bytes),
        }
    }
}

/// Reads `--backend`.
pub(crate) fn backend() -> impl TypedValueParser<Value = BackendKind> {
    let named = BackendKind::ALL.map(|kind| PossibleValue::new(kind.name()).help(kind.about()));
    PossibleValuesParser::new(named).try_map(|name| {
        let mut all = BackendKind::ALL.into_iter();
        all.find(|kind| kind.name() == name).ok_or("no backend")
    })
}

/// `--tails`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TailsArg {
    /// nothing: every vmemmap page has a frame of its own
    #[value(name = "none")]
    None,
    /// one frame for each compound page
    #[value(name = "per-compound")]
    PerCompound,
    /// one read-only frame for all compound pages of an order and node
    #[value(name = "per-order")]
    PerOrder,
}

/// `--heads`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HeadsArg {
    /// each in the first vmemmap page of its compound page
    #[value(name = "in-place")]
    InPlace,
    /// side by side in an array of their own; in the vmemmap, all compound pages of an order and
    /// node have one read-only frame, whatever --tails says
    #[value(name = "packed")]
    Packed,
}

/// `--tables`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TablesArg {
    /// nothing: every table is linked once
    #[value(name = "private")]
    Private,
    /// leaf tables of nothing but the same tail frame: linked, not copied
    #[value(name = "shared")]
    Shared,
}

/// `--piece`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PieceArg {
    /// 2 MiB of memory; 4 MiB with 16K pages, 64 MiB with 64K pages
    #[value(name = "subsection")]
    Subsection,
    /// 128 MiB of memory; 512 MiB with 64K pages
    #[value(name = "section")]
    Section,
    /// each range in one go
    #[value(name = "range")]
    Range,
}

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    /// by huge leaves where it can be, the rest by base pages
    #[value(name = "yes")]
    Yes,
    /// by base pages
    #[value(name = "no")]
    No,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// for people
    #[value(name = "table")]
    Table,
    /// one JSON object
    #[value(name = "json")]
    Json,
}

/// Attaches what starts with a minus and a digit to the option before it: no option looks like
/// that, so it is meant as the value, and what is wrong with it is said of that option.
pub fn attach_negative_values(args: impl IntoIterator<Item: Into<OsString>>) -> Vec<OsString> {
    let mut attached: Vec<OsString> = Vec::new();
    for arg in args.into_iter().map(Into::into) {
        let is_negative = match arg.as_encoded_bytes() {
            [b'-', digit, ..] => digit.is_ascii_digit(),
            _ => false,
        };
        match attached.last_mut() {
            Some(option) if is_negative && is_long_option(option) => {
                option.push("=");
                option.push(arg);
            }
            _ => attached.push(arg),
        }
    }
    attached
}

/// Leaves out `--help` behind the command `help`, which has no help of its own.
pub fn leave_out_help_of_help(mut args: Vec<OsString>) -> Vec<OsString> {
    if args.get(1).is_some_and(|command| command == "help") {
        args.retain(|arg| arg != "--help" && arg != "-h");
    }
    args
}

/// Whether `arg` is an option without a value.
fn is_long_option(arg: &OsStr) -> bool {
    let bytes = arg.as_encoded_bytes();
    bytes.len() > 2 && bytes.starts_with(b"--") && !bytes.contains(&b'=')
}

pub(crate) fn value_of<T: std::str::FromStr>(text: &str) -> Result<T, T::Err> {
    text.parse()
}

fn count(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("'{text}' is no number; takes a whole number from 0 on"))
}

fn node(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(node @ 0..=63) => Ok(node),
        _ => Err(format!(
            "'{text}' is no node; takes a whole number from 0 to 63"
        )),
    }
}
