//! Drawing the vmemmap of a region, or of a dump.

use crate::args::{ALIGN_FORM, HeadsArg, TablesArg, TailsArg};
use crate::dump::{self, Dump};
use crate::failure::Failure;
use crate::geometry::{NoPage, PageSize};
use crate::live::{Region, with_memory_online};
use crate::look::description::Described;
use crate::look::{Budget, Look, Unreadable};
use crate::need::Limits;
use crate::picture::of_look::picture;
use crate::picture::svg;
use crate::request::{memory, tables_name, tails_name};
use crate::size::ByteRange;
use clap::Args;
use hosted::BackendKind;
use mm_core::pagemap::{Heads, Tails};
use std::path::PathBuf;

/// Which memory is looked at, and how it was brought online.
#[derive(Clone, Debug, Args)]
pub struct LookArgs {
    /// The page tables; all but 'sim', which has none
    #[arg(long, value_name = "BACKEND", default_value = BackendKind::X86_64.name(), value_parser = crate::args::backend())]
    pub backend: BackendKind,
    /// Memory to bring online, as for online; may be repeated [default: 24G+16G]
    #[arg(long = "range", value_name = "START+SIZE", value_parser = crate::args::value_of::<ByteRange>)]
    pub ranges: Vec<ByteRange>,
    /// The size of the pages that it is used in [default: what a huge leaf maps: 2M; 32M with 16K pages, 512M with
    /// 64K pages]
    #[arg(long, value_name = ALIGN_FORM, value_parser = crate::args::value_of::<PageSize>)]
    pub align: Option<PageSize>,
    /// What tail pages share [default: per-compound; none with base pages]
    #[arg(long, value_enum, value_name = "POLICY")]
    pub tails: Option<TailsArg>,
    /// What page tables share
    #[arg(long, value_enum, value_name = "POLICY", default_value = "private")]
    pub tables: TablesArg,
    /// Where the heads of compound pages are
    #[arg(long, value_enum, value_name = "PLACE", default_value = "in-place")]
    pub heads: HeadsArg,
}

/// Options of `draw`.
#[derive(Debug, Args)]
pub struct DrawArgs {
    /// Where the picture goes
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Draw the vmemmap that is described in this dump of memory instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["backend", "ranges", "align", "tails", "tables", "heads"])]
    pub dump: Option<PathBuf>,
    /// The memory.
    #[command(flatten)]
    pub look: LookArgs,
}

impl LookArgs {
    /// What is asked for.
    ///
    /// # Errors
    ///
    /// [`NoPage`] where the backend has no pages of the size of `--align`.
    pub fn region(&self) -> Result<Region, NoPage> {
        let (align, ranges) = memory(self.backend, self.align, self.ranges.clone())?;
        Ok(Region {
            backend: self.backend,
            ranges,
            align,
            tails: self.tails.map_or(Tails::PerCompound, Tails::from),
            tables: self.tables.into(),
            heads: self.heads.into(),
        })
    }
}

impl From<Unreadable> for Failure {
    fn from(error: Unreadable) -> Self {
        Self {
            kind: "unreadable",
            message: error.to_string(),
        }
    }
}

/// The picture of `region`, as SVG.
///
/// # Errors
///
/// A [`Failure`] where it does not come online, or has no tables.
pub fn live(region: &Region, limits: &Limits) -> Result<String, Failure> {
    with_memory_online(region, limits, &mut |machine| {
        let bytes = machine.description.ok_or_else(|| {
            let name = region.backend.name();
            Failure::host(format_args!(
                "{name} has no page tables to look at; take another --backend"
            ))
        })?;
        let described = Described::parse(bytes)?;
        let look = Look::new(
            machine.memory,
            machine.elf_machine,
            described,
            Budget::USUAL,
        )?;
        let ranges: Vec<String> = region.ranges.iter().map(ToString::to_string).collect();
        let is_compound = region.align.0 > region.backend.model().granule().bytes();
        let tables = tables_name(region.tables);
        let how = match (region.heads, is_compound) {
            (_, false) => String::new(),
            (Heads::Packed, _) => format!("heads packed, tables {tables}; "),
            _ => format!("tails {}, tables {tables}; ", tails_name(region.tails)),
        };
        let title = format!(
            "The vmemmap of {} in pages of {} on {}",
            ranges.join(", "),
            region.align,
            region.backend.name()
        );
        Ok(svg::draw(&picture(&look, title, &how)))
    })
}

/// The picture of what the dump `file` has, as SVG.
///
/// # Errors
///
/// A [`Failure`] where that cannot be read.
pub fn dumped(file: &std::path::Path) -> Result<String, Failure> {
    let dump = Dump::open(file)?;
    let look = dump::look(&dump, Budget::USUAL)?;
    let name = file.file_name().unwrap_or(file.as_os_str()).display();
    let title = format!("The vmemmap in {name}");
    let machine = format!("{}; ", dump.machine_name());
    Ok(svg::draw(&picture(&look, title, &machine)))
}
