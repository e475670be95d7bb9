//! The public functions and traits of a crate, from its source.
//!
//! `pub` in the source means public, whatever module it is in: the lint `unreachable_pub` sees to
//! that. Read from the source, since the compiler knows one architecture at a time.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use syn::{Attribute, ImplItem, Item, ItemImpl, ItemTrait, TraitItem, Type, Visibility};

/// Whether a function or trait is `unsafe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Safety {
    Safe,
    Unsafe,
}

impl Safety {
    const fn of(is_unsafe: bool) -> Self {
        match is_unsafe {
            true => Self::Unsafe,
            false => Self::Safe,
        }
    }

    fn of_function(signature: &syn::Signature) -> Self {
        Self::of(matches!(signature.safety, syn::Safety::Unsafe(_)))
    }
}

impl fmt::Display for Safety {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safe => "safe",
            Self::Unsafe => "unsafe",
        })
    }
}

/// By name: `function`, `Type::function`, `Trait::function` and `trait Trait`. With the file of
/// each, from the crate's directory.
#[derive(Debug, Default)]
pub(super) struct Api {
    items: BTreeMap<String, (Safety, String)>,
}

impl Api {
    /// Of the library in `directory`.
    ///
    /// # Errors
    ///
    /// Where a source cannot be read, or has public items that are not to be seen in it.
    pub(super) fn of_crate(directory: &Path) -> Result<Self> {
        let mut api = Self::default();
        let source = directory.join("src");
        api.add_file(directory, &source.join("lib.rs"), &source)?;
        Ok(api)
    }

    /// Of one source without further files.
    #[cfg(test)]
    pub(super) fn of_source(source: &str) -> Result<Self> {
        let mut api = Self::default();
        let nowhere = Path::new("");
        let file = syn::parse_file(source)?;
        api.add_items(nowhere, nowhere, nowhere, &file.items)?;
        Ok(api)
    }

    /// All names, each with whether it is unsafe and the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Safety, &str)> {
        let items = self.items.iter();
        items.map(|(name, (safety, file))| (name.as_str(), *safety, file.as_str()))
    }

    /// Adds `file`, whose modules are in `modules`.
    fn add_file(&mut self, root: &Path, file: &Path, modules: &Path) -> Result<()> {
        let mut add = || {
            let source = fs::read_to_string(file)?;
            let parsed = syn::parse_file(&source)?;
            self.add_items(root, file, modules, &parsed.items)
        };
        let name = file.strip_prefix(root).unwrap_or(file);
        add().with_context(|| name.display().to_string())
    }

    fn add_items(
        &mut self,
        root: &Path,
        file: &Path,
        modules: &Path,
        items: &[Item],
    ) -> Result<()> {
        let name = file.strip_prefix(root).unwrap_or(file);
        let name = name.display().to_string();
        for item in items {
            match item {
                Item::Mod(module) if is_test(&module.attrs) => {}
                Item::Mod(module) => {
                    let below = modules.join(module.ident.to_string());
                    if let Some((_, items)) = &module.content {
                        self.add_items(root, file, &below, items)?;
                        continue;
                    }
                    let beside = below.with_extension("rs");
                    let own = match beside.is_file() {
                        true => beside,
                        false => below.join("mod.rs"),
                    };
                    self.add_file(root, &own, &below)?;
                }
                Item::Fn(function) if is_public(&function.vis) => {
                    let safety = Safety::of_function(&function.sig);
                    self.add(function.sig.ident.to_string(), safety, &name)?;
                }
                Item::Trait(own) if is_public(&own.vis) => self.add_trait(own, &name)?,
                Item::Impl(block) if block.trait_.is_none() => self.add_methods(block, &name)?,
                Item::Macro(item) => {
                    let tokens = item.mac.tokens.to_string();
                    if tokens.split_whitespace().any(|word| word == "pub") {
                        bail!("a macro makes public items, which cannot be seen; write them out");
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add_trait(&mut self, own: &ItemTrait, file: &str) -> Result<()> {
        let safety = Safety::of(own.unsafety.is_some());
        self.add(format!("trait {}", own.ident), safety, file)?;
        for item in &own.items {
            match item {
                TraitItem::Fn(method) => {
                    let safety = Safety::of_function(&method.sig);
                    let name = format!("{}::{}", own.ident, method.sig.ident);
                    self.add(name, safety, file)?;
                }
                TraitItem::Macro(_) => bail!("a macro in trait {} cannot be seen into", own.ident),
                _ => {}
            }
        }
        Ok(())
    }

    fn add_methods(&mut self, block: &ItemImpl, file: &str) -> Result<()> {
        let Type::Path(path) = block.self_ty.as_ref() else {
            return Ok(());
        };
        let Some(last) = path.path.segments.last() else {
            return Ok(());
        };
        for item in &block.items {
            match item {
                ImplItem::Fn(method) if is_public(&method.vis) => {
                    let safety = Safety::of_function(&method.sig);
                    let name = format!("{}::{}", last.ident, method.sig.ident);
                    self.add(name, safety, file)?;
                }
                ImplItem::Macro(_) => bail!("a macro in {} cannot be seen into", last.ident),
                _ => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, name: String, safety: Safety, file: &str) -> Result<()> {
        match self.items.insert(name.clone(), (safety, file.to_owned())) {
            Some((_, first)) => bail!("{name} is in {first} too; the tables tell them by name"),
            None => Ok(()),
        }
    }
}

const fn is_public(visibility: &Visibility) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_public_outside_of_tests_counts() {
        let api = Api::of_source(
            "
            fn private() {}
            pub(crate) fn of_the_crate() {}
            pub(super) trait Inner { fn method(&self); }
            pub trait Outer { unsafe fn method(&self); }
            impl Outer for Value { unsafe fn method(&self) {} }
            impl<T> Value<T> { pub fn get(&self) {} pub(crate) fn set(&self) {} }
            mod inner { pub const unsafe fn reached() {} }
            #[cfg(test)]
            mod tests { pub fn tried() {} }
            #[cfg(target_arch = \"none\")]
            mod elsewhere { pub fn other() {} }
            ",
        );
        let api = api.unwrap();
        let items: Vec<String> = api
            .iter()
            .map(|(name, safety, _)| format!("{safety} {name}"))
            .collect();
        assert_eq!(
            items,
            [
                "unsafe Outer::method",
                "safe Value::get",
                "safe other",
                "unsafe reached",
                "safe trait Outer",
            ]
        );
    }

    #[test]
    fn what_cannot_be_seen_is_an_error() {
        for source in [
            "make! { pub fn hidden() {} }",
            "impl Value { make! {} }",
            "pub trait Outer { make! {} }",
            "pub fn one() {} mod inner { pub fn one() {} }",
        ] {
            assert!(Api::of_source(source).is_err(), "{source}");
        }
        assert!(Api::of_source("const_assert!(true);").is_ok());
    }
}
