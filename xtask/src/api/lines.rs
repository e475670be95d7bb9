//! The lines: one for each public item, sorted by path.
//!
//! Types are as they are written in the source. What `#[derive]` implements is there; what a macro of
//! the crate's implements is told by the macro's input.

use super::names::{Names, Target};
use super::text::{attributes, spaced, text};
use crate::source::{Source, is_public};
use anyhow::{Result, bail, ensure};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use syn::{
    Attribute, Fields, Generics, ImplItem, Item, ItemEnum, ItemImpl, ItemMacro, ItemStruct,
    ItemTrait, Signature, TraitItem, Type,
};

/// Sorts what is implemented behind what is in a type.
const LAST: char = '~';

/// The public API of `source`, line by line.
///
/// # Errors
///
/// Where public items are not to be seen in the source, or nobody reaches them.
pub(super) fn lines(source: &Source) -> Result<Vec<String>> {
    let mut lines = Lines {
        names: Names::of(source)?,
        lines: BTreeSet::new(),
    };
    for alias in lines.names.aliases() {
        let line = format!("use {} = {}", alias.path, alias.of);
        lines.lines.insert((alias.path.clone(), line));
    }
    let makers: BTreeSet<String> = source
        .modules()
        .iter()
        .flat_map(|module| &module.items)
        .filter_map(maker_of_impls)
        .collect();
    for (index, module) in source.modules().iter().enumerate() {
        for (number, item) in module.items.iter().enumerate() {
            lines.add_item(index, number, item, &makers)?;
        }
    }
    Ok(lines.lines.into_iter().map(|(_, line)| line).collect())
}

struct Lines<'a> {
    names: Names<'a>,
    /// Each behind what it is sorted by.
    lines: BTreeSet<(String, String)>,
}

impl Lines<'_> {
    fn add(&mut self, path: &str, line: String) {
        self.lines.insert((path.to_owned(), line));
    }

    fn add_item(
        &mut self,
        module: usize,
        number: usize,
        item: &Item,
        makers: &BTreeSet<String>,
    ) -> Result<()> {
        match item {
            Item::Impl(block) => return self.add_impl(module, block),
            Item::Macro(item) => return self.add_macro(item, makers),
            _ => {}
        }
        let Some(path) = self.names.path(Target::Item(module, number)) else {
            return Ok(());
        };
        let path = &path.to_owned();
        match item {
            Item::Const(item) => self.add(path, format!("const {path}: {}", text(&item.ty))),
            Item::Static(item) => self.add(path, format!("static {path}: {}", text(&item.ty))),
            Item::Fn(item) => {
                let line = format!(
                    "{}{}",
                    attributes(&item.attrs),
                    function("", &item.sig, path)
                );
                self.add(path, line);
            }
            Item::Type(item) => {
                let generics = generics(&item.generics);
                self.add(path, format!("type {path}{generics} = {}", text(&item.ty)));
            }
            Item::Struct(item) => self.add_struct(path, item),
            Item::Enum(item) => self.add_enum(path, item),
            Item::Trait(item) => self.add_trait(path, item)?,
            Item::Union(_) => bail!("{path} is a union, which docs/api has no lines for"),
            _ => {}
        }
        Ok(())
    }

    fn add_struct(&mut self, path: &str, item: &ItemStruct) {
        let is_whole = item.fields.iter().all(|field| is_public(&field.vis));
        let private = match (&item.fields, is_whole) {
            (_, true) => "",
            (Fields::Unnamed(_), false) => "(..)",
            (_, false) => " { .. }",
        };
        let line = format!(
            "{}struct {path}{}{private}{}",
            attributes(&item.attrs),
            generics(&item.generics),
            conditions(&item.generics)
        );
        self.add(path, line);
        for (number, field) in item.fields.iter().enumerate() {
            if is_public(&field.vis) {
                let name = field.ident.as_ref();
                let name = name.map_or_else(|| number.to_string(), ToString::to_string);
                let path = format!("{path}::{name}");
                self.add(&path, format!("field {path}: {}", text(&field.ty)));
            }
        }
        self.add_derived(path, &item.attrs);
    }

    fn add_enum(&mut self, path: &str, item: &ItemEnum) {
        let line = format!(
            "{}enum {path}{}{}",
            attributes(&item.attrs),
            generics(&item.generics),
            conditions(&item.generics)
        );
        self.add(path, line);
        for variant in &item.variants {
            let within = match &variant.fields {
                fields @ Fields::Named(_) => spaced(&text(fields)),
                fields => text(fields),
            };
            let value = variant.discriminant.as_ref();
            let value = value.map_or_else(String::new, |value| format!(" = {}", text(&value.1)));
            let path = format!("{path}::{}", variant.ident);
            let attributes = attributes(&variant.attrs);
            self.add(&path, format!("{attributes}variant {path}{within}{value}"));
        }
        self.add_derived(path, &item.attrs);
    }

    fn add_derived(&mut self, path: &str, attributes: &[Attribute]) {
        let mut traits = BTreeSet::new();
        for attribute in attributes {
            if attribute.path().is_ident("derive") {
                // What is no list of paths does not compile.
                let _ = attribute.parse_nested_meta(|derived| {
                    traits.insert(text(&derived.path));
                    Ok(())
                });
            }
        }
        if !traits.is_empty() {
            let traits = Vec::from_iter(traits).join(", ");
            self.add(
                &format!("{path}::{LAST}"),
                format!("derive {traits} for {path}"),
            );
        }
    }

    fn add_trait(&mut self, path: &str, item: &ItemTrait) -> Result<()> {
        let safety = item.unsafety.as_ref().map_or("", |_| "unsafe ");
        let above = text(&item.supertraits);
        let above = match above.as_str() {
            "" => above,
            above => format!(": {above}"),
        };
        let line = format!(
            "{}{safety}trait {path}{}{above}{}",
            attributes(&item.attrs),
            generics(&item.generics),
            conditions(&item.generics)
        );
        self.add(path, line);
        let duty = |is_provided| match is_provided {
            true => "provided ",
            false => "required ",
        };
        for item in &item.items {
            let (name, line) = match item {
                TraitItem::Fn(item) => {
                    let path = format!("{path}::{}", item.sig.ident);
                    let line = function(duty(item.default.is_some()), &item.sig, &path);
                    (path, format!("{}{line}", attributes(&item.attrs)))
                }
                TraitItem::Const(item) => {
                    let path = format!("{path}::{}", item.ident);
                    let duty = duty(item.default.is_some());
                    let line = format!("{duty}const {path}: {}", text(&item.ty));
                    (path, line)
                }
                TraitItem::Type(item) => {
                    let path = format!("{path}::{}", item.ident);
                    let bounds = match text(&item.bounds) {
                        bounds if bounds.is_empty() => bounds,
                        bounds => format!(": {bounds}"),
                    };
                    let line = format!(
                        "required type {path}{}{bounds}{}",
                        generics(&item.generics),
                        conditions(&item.generics)
                    );
                    (path, line)
                }
                _ => bail!("a macro in trait {path} cannot be seen into; write it out"),
            };
            self.add(&name, line);
        }
        Ok(())
    }

    fn add_impl(&mut self, module: usize, block: &ItemImpl) -> Result<()> {
        let of = self.named(module, &block.self_ty);
        if let Named::Private = of {
            return Ok(());
        }
        let Some((what, _)) = &block.trait_ else {
            let Named::Public(path) = of else {
                bail!(
                    "{} cannot be seen in the source; write it out",
                    text(&block.self_ty)
                );
            };
            return self.add_own(&path, block);
        };
        let segments: Vec<_> = what.segments.iter().map(|s| s.ident.to_string()).collect();
        let what_path = match self.names.resolve(module, &segments) {
            Some(target) => match self.names.path(target) {
                Some(path) => Some(path.to_owned()),
                None => return Ok(()),
            },
            None => None,
        };
        let mut types = String::new();
        for item in &block.items {
            if let ImplItem::Type(item) = item {
                let separator = if types.is_empty() { "" } else { ", " };
                let (generics, ty) = (generics(&item.generics), text(&item.ty));
                types = format!("{types}{separator}{}{generics} = {ty}", item.ident);
            }
        }
        if !types.is_empty() {
            types = format!(" with {types}");
        }
        let line = format!(
            "{}{}{types}",
            head(block, Some(&text(what))),
            conditions(&block.generics)
        );
        // What is for all types, or one of another crate, is with the trait.
        let path = match (of, what_path) {
            (Named::Public(path), _) | (_, Some(path)) => path,
            _ => text(&block.self_ty),
        };
        self.add(&format!("{path}::{LAST}"), line);
        Ok(())
    }

    /// The public items of a type's own `block`, each with the conditions under which it is there.
    fn add_own(&mut self, path: &str, block: &ItemImpl) -> Result<()> {
        let under = match block.generics.params.is_empty() {
            true => String::new(),
            false => format!("  [{}{}]", head(block, None), conditions(&block.generics)),
        };
        for item in &block.items {
            match item {
                ImplItem::Fn(item) if is_public(&item.vis) => {
                    let path = format!("{path}::{}", item.sig.ident);
                    let line = function("", &item.sig, &path);
                    self.add(&path, format!("{}{line}{under}", attributes(&item.attrs)));
                }
                ImplItem::Const(item) if is_public(&item.vis) => {
                    let path = format!("{path}::{}", item.ident);
                    let line = format!("const {path}: {}{under}", text(&item.ty));
                    self.add(&path, line);
                }
                ImplItem::Macro(_) => bail!("a macro in {path} cannot be seen into; write it out"),
                _ => {}
            }
        }
        Ok(())
    }

    fn add_macro(&mut self, item: &ItemMacro, makers: &BTreeSet<String>) -> Result<()> {
        let makes = |tokens: &str| tokens.split_whitespace().any(|word| word == "pub");
        if let Some(name) = &item.ident
            && item.attrs.iter().any(|a| a.path().is_ident("macro_export"))
        {
            self.add(&name.to_string(), format!("macro {name}!"));
            return Ok(());
        }
        let input = &item.mac.tokens;
        ensure!(
            !makes(&input.to_string()),
            "a macro makes public items, which cannot be seen; write them out"
        );
        if let Some(name) = item.mac.path.get_ident().map(ToString::to_string)
            && makers.contains(&name)
        {
            let input = text(input);
            self.add(
                &format!("{LAST}"),
                format!("impls of {name}! {{ {input} }}"),
            );
        }
        Ok(())
    }

    fn named(&self, module: usize, ty: &Type) -> Named {
        let Type::Path(ty) = ty else {
            return Named::Elsewhere;
        };
        let segments = ty.path.segments.iter().map(|s| s.ident.to_string());
        let segments: Vec<_> = segments.collect();
        match self.names.resolve(module, &segments) {
            Some(target) => match self.names.path(target) {
                Some(path) => Named::Public(path.to_owned()),
                None => Named::Private,
            },
            None => Named::Elsewhere,
        }
    }
}

/// What a type is that something is implemented for.
enum Named {
    /// Of the crate, under this path.
    Public(String),
    /// Of the crate, and its own affair.
    Private,
    /// Of another crate, a parameter, or no single type.
    Elsewhere,
}

/// The name of a macro whose rules implement something.
fn maker_of_impls(item: &Item) -> Option<String> {
    let Item::Macro(item) = item else {
        return None;
    };
    let name = item.ident.as_ref()?;
    has_impl(item.mac.tokens.clone()).then(|| name.to_string())
}

/// Whether an `impl` begins an item in `tokens`, and no type.
fn has_impl(tokens: TokenStream) -> bool {
    let mut begins = true;
    for token in tokens {
        begins = match token {
            TokenTree::Ident(word) if begins && word == "impl" => return true,
            TokenTree::Ident(word) => begins && word == "unsafe",
            TokenTree::Punct(sign) => sign.as_char() == ';',
            TokenTree::Literal(_) => false,
            TokenTree::Group(group) if has_impl(group.stream()) => return true,
            TokenTree::Group(group) => group.delimiter() != Delimiter::Parenthesis,
        };
    }
    false
}

/// A function's signature with its `path` for a name and `duty` before `fn`.
fn function(duty: &str, signature: &Signature, path: &str) -> String {
    // Whether a parameter is changed inside is nobody's affair.
    let whole = text(signature)
        .replace("(mut ", "(")
        .replace(", mut ", ", ");
    let name = format!("fn {}", signature.ident);
    let named = whole.replacen(&name, &format!("fn {path}"), 1);
    format!("{duty}{named}")
}

/// `impl<T> Trait for Type`, with nothing for an absent trait.
fn head(block: &ItemImpl, what: Option<&str>) -> String {
    let safety = block.unsafety.as_ref().map_or("", |_| "unsafe ");
    let generics = generics(&block.generics);
    let what = what.map_or_else(String::new, |what| format!("{what} for "));
    format!("{safety}impl{generics} {what}{}", text(&block.self_ty))
}

fn generics(generics: &Generics) -> String {
    match generics.params.is_empty() {
        true => String::new(),
        false => text(generics),
    }
}

fn conditions(generics: &Generics) -> String {
    spaced(&text(&generics.where_clause))
}
