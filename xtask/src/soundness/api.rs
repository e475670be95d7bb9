//! The public functions and traits of a crate, from its source.
//!
//! `pub` in the source means public, whatever module it is in: the lint `unreachable_pub` sees to
//! that.

use crate::source::{Source, is_public};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use syn::{ImplItem, Item, ItemImpl, ItemTrait, TraitItem, Type};

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
        Self::of(&Source::of_crate(directory)?)
    }

    /// Of one source without further files.
    #[cfg(test)]
    pub(super) fn of_source(source: &str) -> Result<Self> {
        Self::of(&Source::of_text(source)?)
    }

    /// All names, each with whether it is unsafe and the file.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Safety, &str)> {
        let items = self.items.iter();
        items.map(|(name, (safety, file))| (name.as_str(), *safety, file.as_str()))
    }

    fn of(source: &Source) -> Result<Self> {
        let mut api = Self::default();
        for module in source.modules() {
            let add = |item| api.add_item(item, &module.file);
            let added: Result<()> = module.items.iter().try_for_each(add);
            added.with_context(|| module.file.clone())?;
        }
        Ok(api)
    }

    fn add_item(&mut self, item: &Item, file: &str) -> Result<()> {
        match item {
            Item::Fn(function) if is_public(&function.vis) => {
                let safety = Safety::of_function(&function.sig);
                self.add(function.sig.ident.to_string(), safety, file)
            }
            Item::Trait(own) if is_public(&own.vis) => self.add_trait(own, file),
            Item::Impl(block) if block.trait_.is_none() => self.add_methods(block, file),
            Item::Macro(item) => {
                let tokens = item.mac.tokens.to_string();
                if tokens.split_whitespace().any(|word| word == "pub") {
                    bail!("a macro makes public items, which cannot be seen; write them out");
                }
                Ok(())
            }
            _ => Ok(()),
        }
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
