//! The modules of a crate, from its source.
//!
//! Read from the source, since the compiler knows one architecture at a time. What there is in tests
//! only is left out.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use syn::{Attribute, Item, Visibility};

/// A module without the modules in it.
pub(crate) struct Module {
    /// Its name; none for the crate.
    pub(crate) name: String,
    /// The one that it is in.
    pub(crate) parent: Option<usize>,
    /// Whether it says `pub`.
    pub(crate) is_public: bool,
    /// The file, from the crate's directory.
    pub(crate) file: String,
    pub(crate) items: Vec<Item>,
}

/// A crate's modules. The first is the crate.
pub(crate) struct Source {
    modules: Vec<Module>,
}

impl Source {
    /// Of the library in `directory`.
    ///
    /// # Errors
    ///
    /// Where a source cannot be read.
    pub(crate) fn of_crate(directory: &Path) -> Result<Self> {
        let mut source = Self { modules: vec![] };
        let below = directory.join("src");
        let top = source.begin(String::new(), None, true);
        source.add_file(top, directory, &below.join("lib.rs"), &below)?;
        Ok(source)
    }

    /// Of one file without further files.
    #[cfg(test)]
    pub(crate) fn of_text(text: &str) -> Result<Self> {
        let mut source = Self { modules: vec![] };
        let nowhere = Path::new("");
        let top = source.begin(String::new(), None, true);
        source.add_items(top, nowhere, nowhere, nowhere, syn::parse_file(text)?.items)?;
        Ok(source)
    }

    pub(crate) fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// Makes room for a module before those in it.
    fn begin(&mut self, name: String, parent: Option<usize>, is_public: bool) -> usize {
        self.modules.push(Module {
            name,
            parent,
            is_public,
            file: String::new(),
            items: vec![],
        });
        self.modules.len() - 1
    }

    /// Fills `module` from `file`; files of modules in it are below `modules`.
    fn add_file(&mut self, module: usize, root: &Path, file: &Path, modules: &Path) -> Result<()> {
        let mut add = || {
            let text = fs::read_to_string(file)?;
            self.add_items(module, root, file, modules, syn::parse_file(&text)?.items)
        };
        let name = file.strip_prefix(root).unwrap_or(file);
        add().with_context(|| name.display().to_string())
    }

    fn add_items(
        &mut self,
        module: usize,
        root: &Path,
        file: &Path,
        modules: &Path,
        items: Vec<Item>,
    ) -> Result<()> {
        let mut own = Vec::new();
        for item in items {
            let Item::Mod(inner) = item else {
                own.push(item);
                continue;
            };
            if is_test(&inner.attrs) {
                continue;
            }
            let name = inner.ident.to_string();
            let below = modules.join(&name);
            let index = self.begin(name, Some(module), is_public(&inner.vis));
            if let Some((_, items)) = inner.content {
                self.add_items(index, root, file, &below, items)?;
                continue;
            }
            let beside = below.with_extension("rs");
            let file = match beside.is_file() {
                true => beside,
                false => below.join("mod.rs"),
            };
            self.add_file(index, root, &file, &below)?;
        }
        if let Some(module) = self.modules.get_mut(module) {
            let name = file.strip_prefix(root).unwrap_or(file);
            module.file = name.display().to_string();
            module.items = own;
        }
        Ok(())
    }
}

pub(crate) const fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Whether an item is there in tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|condition| condition == "test")
    })
}
