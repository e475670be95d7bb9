//! What a function needs of an archive: the sections that it reaches, as a linker that drops unused
//! ones would keep them. The compiler gives each function and each constant its own.

use anyhow::{Context, Result};
use object::read::archive::ArchiveFile;
use object::{
    File, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SectionKind,
    SymbolKind, SymbolSection,
};
use std::collections::{BTreeMap, BTreeSet};

/// A section by its object, and by its number there.
type Place = (usize, usize);

/// Whose code it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Library,
    /// Rust's own library, of which a kernel has its copy.
    Core,
}

/// What is in a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Code,
    Data,
}

/// A section that counts.
struct Section {
    owner: Owner,
    kind: Kind,
    bytes: u64,
    /// The functions in it, with the bytes of each.
    functions: Vec<(String, u64)>,
    needs: BTreeSet<Place>,
    /// What it needs by name.
    names: BTreeSet<String>,
}

/// The objects of an archive.
#[derive(Default)]
pub(super) struct Objects {
    sections: BTreeMap<Place, Section>,
    defined: BTreeMap<String, Place>,
}

/// Sections that are reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached(BTreeSet<Place>);

impl Objects {
    /// Of the archive `bytes`.
    ///
    /// # Errors
    ///
    /// Where it is none.
    pub(super) fn of_archive(bytes: &[u8]) -> Result<Self> {
        let mut objects = Self::default();
        let archive = ArchiveFile::parse(bytes)?;
        for (index, member) in archive.members().enumerate() {
            let member = member?;
            let name = String::from_utf8_lossy(member.name()).into_owned();
            let data = member.data(bytes)?;
            let mut add = || objects.add_object(index, owner(&name), &File::parse(data)?);
            add().with_context(|| name.clone())?;
        }
        Ok(objects)
    }

    fn add_object(&mut self, object: usize, owner: Owner, file: &File<'_>) -> Result<()> {
        for section in file.sections() {
            let kind = match section.kind() {
                SectionKind::Text => Kind::Code,
                SectionKind::Data
                | SectionKind::ReadOnlyData
                | SectionKind::ReadOnlyDataWithRel
                | SectionKind::ReadOnlyString
                | SectionKind::UninitializedData => Kind::Data,
                _ => continue,
            };
            let mut own = Section {
                owner,
                kind,
                bytes: section.size(),
                functions: vec![],
                needs: BTreeSet::new(),
                names: BTreeSet::new(),
            };
            for (_, relocation) in section.relocations() {
                match relocation.target() {
                    RelocationTarget::Symbol(index) => {
                        let symbol = file.symbol_by_index(index)?;
                        match symbol.section() {
                            SymbolSection::Section(SectionIndex(index)) => {
                                own.needs.insert((object, index));
                            }
                            _ => {
                                own.names.insert(symbol.name()?.to_owned());
                            }
                        }
                    }
                    RelocationTarget::Section(SectionIndex(index)) => {
                        own.needs.insert((object, index));
                    }
                    _ => {}
                }
            }
            self.sections.insert((object, section.index().0), own);
        }
        for symbol in file.symbols() {
            let SymbolSection::Section(SectionIndex(index)) = symbol.section() else {
                continue;
            };
            let name = symbol.name()?.to_owned();
            if symbol.kind() == SymbolKind::Text
                && let Some(section) = self.sections.get_mut(&(object, index))
            {
                section.functions.push((name.clone(), symbol.size()));
            }
            if symbol.is_global() {
                self.defined.entry(name).or_insert((object, index));
            }
        }
        Ok(())
    }

    /// What `functions` need, themselves included.
    ///
    /// # Errors
    ///
    /// Where one of them is not there.
    pub(super) fn reach(&self, functions: &[&str]) -> Result<Reached> {
        let mut reached = BTreeSet::new();
        let mut next = Vec::new();
        for &name in functions {
            let place = self.defined.get(name);
            next.push(*place.with_context(|| format!("{name} is not in the archive"))?);
        }
        while let Some(place) = next.pop() {
            let Some(section) = self.sections.get(&place) else {
                continue;
            };
            if reached.insert(place) {
                next.extend(&section.needs);
                next.extend(
                    section
                        .names
                        .iter()
                        .filter_map(|name| self.defined.get(name)),
                );
            }
        }
        Ok(Reached(reached))
    }

    /// The bytes of what is `reached` of `owner` and of `kind`.
    pub(super) fn bytes(&self, reached: &Reached, owner: Owner, kind: Kind) -> u64 {
        self.of(reached)
            .filter(|section| section.owner == owner && section.kind == kind)
            .map(|section| section.bytes)
            .sum()
    }

    /// The library's functions in what is `reached`, as the compiler calls them, with their bytes.
    pub(super) fn functions(&self, reached: &Reached) -> impl Iterator<Item = (&str, u64)> {
        self.of(reached)
            .filter(|section| section.owner == Owner::Library)
            .flat_map(|section| &section.functions)
            .map(|(name, bytes)| (name.as_str(), *bytes))
    }

    fn of<'s>(&'s self, reached: &Reached) -> impl Iterator<Item = &'s Section> {
        reached
            .0
            .iter()
            .filter_map(|place| self.sections.get(place))
    }
}

/// By the name of an object, which begins with its crate's. Those of `compiler_builtins` that are not
/// written in Rust have none.
fn owner(object: &str) -> Owner {
    let crate_name = object.split(['-', '.']).next().unwrap_or_default();
    let is_hash = crate_name.len() == 16 && crate_name.chars().all(|c| c.is_ascii_hexdigit());
    match crate_name {
        "core" | "alloc" | "compiler_builtins" => Owner::Core,
        _ if is_hash => Owner::Core,
        _ => Owner::Library,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_of_rusts_own_library_are_told_by_their_names() {
        for name in [
            "core-0123.core.89ab-cgu.0.rcgu.o",
            "compiler_builtins-01.o",
            "45c91108d938afe8-absvdi2.o",
        ] {
            assert_eq!(owner(name), Owner::Core, "{name}");
        }
        for name in ["mm_core-01.mm_core.23-cgu.0.rcgu.o", "footprint-45.o"] {
            assert_eq!(owner(name), Owner::Library, "{name}");
        }
    }

    #[test]
    fn what_is_reached_is_counted_once_and_nothing_else() {
        let section = |kind, bytes, needs: &[Place], names: &[&str]| Section {
            owner: Owner::Library,
            kind,
            bytes,
            functions: vec![],
            needs: needs.iter().copied().collect(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let mut objects = Objects::default();
        objects.sections.extend([
            (
                (0, 1),
                section(Kind::Code, 1, &[(0, 2)], &["two", "memcpy"]),
            ),
            ((0, 2), section(Kind::Data, 10, &[], &[])),
            ((1, 1), section(Kind::Code, 100, &[], &["one"])),
            ((1, 2), section(Kind::Code, 1000, &[(0, 1)], &[])),
        ]);
        let defined = [("one", (0, 1)), ("two", (1, 1)), ("three", (1, 2))];
        objects.defined = defined.map(|(name, place)| (name.to_owned(), place)).into();
        let bytes = |names: &[&str], kind| {
            let reached = objects.reach(names).unwrap();
            objects.bytes(&reached, Owner::Library, kind)
        };
        assert_eq!(bytes(&["one"], Kind::Code), 101);
        assert_eq!(bytes(&["one", "two"], Kind::Code), 101);
        assert_eq!(bytes(&["one"], Kind::Data), 10);
        assert_eq!(bytes(&["three"], Kind::Code), 1101);
        assert!(objects.reach(&["four"]).is_err());
    }
}
