//! The command line.

use crate::size::{ByteRange, ByteSize};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hosted::BackendKind;

const EXAMPLES: &str = "\
Without a command: brings 1 TiB online for each geometry and policy, on each backend, and prints one table.

Examples:
  explorer
  explorer online --align 1G
  explorer online --backend x86_64-la57 --range 24G+16G --align 2M --format json
  explorer plan --range 0x600000000+0x40000000 --align 1G";

const ONLINE_EXAMPLES: &str = "\
Exit status: 0 done, 1 the operation failed, 2 bad arguments.

Examples:
  explorer online --range 24G+16G --align 1G
  explorer online --range 40G+1G --range 24G+512M --align 2M --piece range
  explorer online --align 4K --huge-leaves no --range 24G+1G --altmap 32M
  explorer online --align 1G --fail-after 20 --format json";

const PLAN_EXAMPLES: &str = "\
Takes the options of 'online'; --fail-after and --node change nothing here, since nothing is allocated.

Examples:
  explorer plan --range 24G+4M --align 2M
  explorer plan --range 24G+1T --align 1G --limit 20
  explorer plan --range 24G+1G --align 4K --format json";

/// Brings device memory online as compound pages on a simulated machine, and shows what its descriptors cost and save.
#[derive(Debug, Parser)]
#[command(
    name = "explorer",
    version,
    disable_help_subcommand = true,
    after_help = EXAMPLES
)]
pub struct Cli {
    /// What to do; the survey if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring memory online, recount every reference, and take it offline again
    #[command(after_help = ONLINE_EXAMPLES)]
    Online(RegionArgs),
    /// Print the runs that the vmemmap would be populated with, without touching memory
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(PlanArgs),
}

/// Options of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The region.
    #[command(flatten)]
    pub region: RegionArgs,
    /// Print at most this many runs as text
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub limit: Option<u64>,
}

/// A region, and how it is brought online.
#[derive(Debug, Args)]
pub struct RegionArgs {
    /// The page tables
    #[arg(long, value_enum, value_name = "BACKEND", default_value = "x86_64")]
    pub backend: BackendArg,
    /// Memory to bring online: where it starts and how much; may be repeated, in any order. Bytes, decimal or 0x hex, with an
    /// optional suffix K, M, G, T or P
    #[arg(
        long = "range",
        value_name = "START+SIZE",
        default_value = "24G+16G",
        value_parser = value_of::<ByteRange>,
        allow_negative_numbers = true
    )]
    pub ranges: Vec<ByteRange>,
    /// The size of the pages that the memory is used in
    #[arg(
        long,
        value_enum,
        value_name = "SIZE",
        default_value = "2M",
        ignore_case = true
    )]
    pub align: Align,
    /// What tail pages share [default: per-compound; none with --align 4K]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub tails: Option<TailsArg>,
    /// What page tables share
    #[arg(long, value_enum, value_name = "POLICY", default_value = "private")]
    pub tables: TablesArg,
    /// How much is populated at a time
    #[arg(long, value_enum, value_name = "PIECE", default_value = "section")]
    pub piece: PieceArg,
    /// Whether vmemmap of base pages is mapped by 2 MiB leaves where aligned
    #[arg(long, value_enum, value_name = "YES/NO", default_value = "yes")]
    pub huge_leaves: YesNo,
    /// Take descriptor frames from this much memory at the start of the first range
    #[arg(long, value_name = "SIZE", value_parser = value_of::<ByteSize>, allow_negative_numbers = true)]
    pub altmap: Option<ByteSize>,
    /// The NUMA node that frames are taken from, 0 to 63. Nodes 0 and 1 have RAM; others get it from the nearest of these
    #[arg(long, value_name = "N", default_value = "0", value_parser = node, allow_negative_numbers = true)]
    pub node: u32,
    /// Let the first N allocations of RAM frames succeed and all later ones fail
    #[arg(long, value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub fail_after: Option<u64>,
    /// How to print the result; json is one object on standard output
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
}

/// `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    /// a plain map, the oracle
    #[value(name = "sim")]
    Sim,
    /// 4-level tables in hardware format
    #[value(name = "x86_64")]
    X86_64,
    /// 5-level tables in hardware format
    #[value(name = "x86_64-la57")]
    X86_64La57,
}

impl BackendArg {
    /// The backend.
    pub const fn kind(self) -> BackendKind {
        match self {
            Self::Sim => BackendKind::Sim,
            Self::X86_64 => BackendKind::X86_64,
            Self::X86_64La57 => BackendKind::X86_64La57,
        }
    }
}

/// `--align`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Align {
    /// base pages
    #[value(name = "4K")]
    Size4K,
    /// compound pages of 2 MiB
    #[value(name = "2M")]
    Size2M,
    /// compound pages of 1 GiB
    #[value(name = "1G")]
    Size1G,
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
    /// 2 MiB of memory
    #[value(name = "subsection")]
    Subsection,
    /// 128 MiB of memory
    #[value(name = "section")]
    Section,
    /// each range in one go
    #[value(name = "range")]
    Range,
}

/// A choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    /// yes
    #[value(name = "yes")]
    Yes,
    /// no
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

fn value_of<T: std::str::FromStr>(text: &str) -> Result<T, T::Err> {
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
