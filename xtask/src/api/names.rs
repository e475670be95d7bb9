//! Under which paths users find public items, through re-exports.

use crate::source::{Module, Source, is_public};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, VecDeque};
use syn::{Item, UseTree, Visibility};

/// What a name stands for, by the places in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Module(usize),
    /// Of a module, its item with this number.
    Item(usize, usize),
}

/// A re-export that has no place in the source, or one more path of what has a path.
pub(super) struct Alias {
    pub(super) path: String,
    pub(super) of: String,
}

/// A name that a `use` brings into a module.
struct Binding {
    name: String,
    path: Vec<String>,
    is_public: bool,
}

/// The name of a [`Binding`] of all that is in a module.
const ALL: &str = "*";

/// How deep re-exports of re-exports are followed. A circle does not compile.
const DEPTH: usize = 16;

pub(super) struct Names<'a> {
    modules: &'a [Module],
    /// By module.
    bindings: Vec<Vec<Binding>>,
    paths: BTreeMap<Target, String>,
    aliases: Vec<Alias>,
}

impl<'a> Names<'a> {
    /// # Errors
    ///
    /// Where a module is re-exported whole: what it makes public is to be named.
    pub(super) fn of(source: &'a Source) -> Result<Self> {
        let modules = source.modules();
        let mut names = Self {
            modules,
            bindings: modules.iter().map(bindings).collect(),
            paths: BTreeMap::new(),
            aliases: vec![],
        };
        for (module, bindings) in modules.iter().zip(&names.bindings) {
            let whole = |binding: &&Binding| binding.is_public && binding.name == ALL;
            if let Some(binding) = bindings.iter().find(whole) {
                let path = binding.path.join("::");
                bail!(
                    "{}: `pub use {path}::*` hides names; name them",
                    module.file
                );
            }
        }
        names.reach();
        Ok(names)
    }

    /// The path of a public item, from the crate; the shortest if there are several.
    pub(super) fn path(&self, target: Target) -> Option<&str> {
        self.paths.get(&target).map(String::as_str)
    }

    pub(super) fn aliases(&self) -> &[Alias] {
        &self.aliases
    }

    /// What `path` in `module` stands for. Nothing if it is not of this crate.
    pub(super) fn resolve(&self, module: usize, path: &[String]) -> Option<Target> {
        self.resolve_within(module, path, DEPTH)
    }

    fn resolve_within(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        let depth = depth.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        let own = self.modules.get(module)?;
        let from = match first.as_str() {
            "crate" => 0,
            "self" => module,
            "super" => own.parent?,
            name if rest.is_empty() => return self.find(module, name, depth),
            name => match self.find_module(module, name, depth)? {
                Target::Module(inner) => inner,
                Target::Item(..) => return None,
            },
        };
        match rest {
            [] => Some(Target::Module(from)),
            _ => self.resolve_within(from, rest, depth),
        }
    }

    /// What is called `name` in `module`: an item rather than a module of the same name.
    fn find(&self, module: usize, name: &str, depth: usize) -> Option<Target> {
        let items = &self.modules.get(module)?.items;
        if let Some(item) = items.iter().position(|item| is_called(item, name)) {
            return Some(Target::Item(module, item));
        }
        self.find_module(module, name, depth)
    }

    fn find_module(&self, module: usize, name: &str, depth: usize) -> Option<Target> {
        let is_it = |inner: &Module| inner.parent == Some(module) && inner.name == name;
        if let Some(inner) = self.modules.iter().position(is_it) {
            return Some(Target::Module(inner));
        }
        self.bindings.get(module)?.iter().find_map(|binding| {
            let named = binding.name == name;
            if !named && binding.name != ALL {
                return None;
            }
            match self.resolve_within(module, &binding.path, depth)? {
                target if named => Some(target),
                Target::Module(all) => self.find(all, name, depth.checked_sub(1)?),
                Target::Item(..) => None,
            }
        })
    }

    /// Finds all that is public from the crate down, the shortest paths first.
    fn reach(&mut self) {
        let mut next = VecDeque::from([(0, String::new())]);
        while let Some((module, path)) = next.pop_front() {
            let Some(own) = self.modules.get(module) else {
                continue;
            };
            for (index, item) in own.items.iter().enumerate() {
                if let Some((name, visibility)) = name_of(item)
                    && is_public(visibility)
                {
                    self.add(Target::Item(module, index), below(&path, &name));
                }
            }
            for (index, inner) in self.modules.iter().enumerate() {
                if inner.parent == Some(module) && inner.is_public {
                    let path = below(&path, &inner.name);
                    if self.add(Target::Module(index), path.clone()) {
                        next.push_back((index, path));
                    }
                }
            }
            let brought: Vec<_> = self
                .bindings
                .get(module)
                .into_iter()
                .flatten()
                .filter(|binding| binding.is_public)
                .map(|binding| {
                    let target = self.resolve(module, &binding.path);
                    (target, below(&path, &binding.name), binding.path.join("::"))
                })
                .collect();
            for (target, path, of) in brought {
                match target {
                    Some(target) => {
                        if self.add(target, path.clone())
                            && let Target::Module(inner) = target
                        {
                            next.push_back((inner, path));
                        }
                    }
                    None => self.aliases.push(Alias { path, of }),
                }
            }
        }
    }

    /// Says whether it is the first path.
    fn add(&mut self, target: Target, path: String) -> bool {
        match self.paths.get(&target) {
            Some(first) => {
                let of = first.clone();
                self.aliases.push(Alias { path, of });
                false
            }
            None => self.paths.insert(target, path).is_none(),
        }
    }
}

fn below(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}::{name}"),
    }
}

/// What an item is called, if it is one that others can name.
fn name_of(item: &Item) -> Option<(String, &Visibility)> {
    let (name, visibility) = match item {
        Item::Const(item) => (&item.ident, &item.vis),
        Item::Enum(item) => (&item.ident, &item.vis),
        Item::Fn(item) => (&item.sig.ident, &item.vis),
        Item::Static(item) => (&item.ident, &item.vis),
        Item::Struct(item) => (&item.ident, &item.vis),
        Item::Trait(item) => (&item.ident, &item.vis),
        Item::Type(item) => (&item.ident, &item.vis),
        Item::Union(item) => (&item.ident, &item.vis),
        _ => return None,
    };
    Some((name.to_string(), visibility))
}

fn is_called(item: &Item, name: &str) -> bool {
    name_of(item).is_some_and(|(own, _)| own == name)
}

fn bindings(module: &Module) -> Vec<Binding> {
    let mut bindings = Vec::new();
    for item in &module.items {
        if let Item::Use(item) = item {
            flatten(&item.tree, &mut vec![], is_public(&item.vis), &mut bindings);
        }
    }
    bindings
}

/// Each name that `tree` brings.
fn flatten(tree: &UseTree, path: &mut Vec<String>, is_public: bool, bindings: &mut Vec<Binding>) {
    let (name, last) = match tree {
        UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            flatten(&tree.tree, path, is_public, bindings);
            path.pop();
            return;
        }
        UseTree::Group(tree) => {
            for tree in &tree.items {
                flatten(tree, path, is_public, bindings);
            }
            return;
        }
        UseTree::Name(tree) => (tree.ident.to_string(), tree.ident.to_string()),
        UseTree::Rename(tree) => (tree.rename.to_string(), tree.ident.to_string()),
        UseTree::Glob(_) => {
            bindings.push(Binding {
                name: ALL.to_owned(),
                path: path.clone(),
                is_public,
            });
            return;
        }
    };
    let mut path = path.clone();
    // `use a::{self}` brings `a`.
    let name = match (last.as_str(), name.as_str(), path.last()) {
        ("self", "self", Some(module)) => module.clone(),
        ("self", ..) => name,
        _ => {
            path.push(last);
            name
        }
    };
    bindings.push(Binding {
        name,
        path,
        is_public,
    });
}
