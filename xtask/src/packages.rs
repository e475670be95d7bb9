//! What `cargo package --workspace` asks of the manifests.
//!
//! It makes a package of each member, of unpublished ones too, and compiles each with the packages of the
//! others in place of their directories. Those that are published are all that it finds.

use crate::api;
use crate::toolchain::cargo;
use serde_json::Value;
use std::collections::BTreeMap;

/// A dependency on a member.
struct Needs {
    name: String,
    /// Whether it says which versions it takes.
    has_version: bool,
    for_development: bool,
}

struct Package {
    is_published: bool,
    /// Other members that it depends on.
    members: Vec<Needs>,
}

/// The workspace's packages, by name.
fn packages() -> BTreeMap<String, Package> {
    let metadata = cargo()
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |package: &Value| Package {
        is_published: package["publish"].is_null(),
        members: package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|dependency| dependency["path"].is_string())
            .map(|dependency| Needs {
                name: text(&dependency["name"]),
                has_version: dependency["req"] != "*",
                for_development: dependency["kind"] == "dev",
            })
            .collect(),
    };
    packages
        .iter()
        .map(|package| (text(&package["name"]), of(package)))
        .collect()
}

#[test]
fn every_package_finds_the_members_that_it_is_compiled_with() {
    let packages = packages();
    let mut found = 0;
    for (name, package) in &packages {
        for needed in package.members.iter().filter(|of| !of.for_development) {
            let of = &needed.name;
            assert!(needed.has_version, "{name} takes {of} without a version");
            assert!(
                packages[of].is_published,
                "{name} takes {of}, which is in no registry: publish = false"
            );
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
}

#[test]
fn published_crates_wait_for_nothing_that_only_their_tests_need() {
    for (name, package) in packages().iter().filter(|(_, of)| of.is_published) {
        for needed in package.members.iter().filter(|of| of.for_development) {
            let of = &needed.name;
            assert!(!needed.has_version, "{name} tests with {of} of a version");
        }
    }
}

#[test]
fn the_api_of_every_published_crate_is_a_text() {
    let packages = packages();
    let published = packages.iter().filter(|(_, of)| of.is_published);
    let published: Vec<_> = published.map(|(name, _)| name.as_str()).collect();
    let mut crates = api::CRATES;
    crates.sort_unstable();
    assert_eq!(published, crates);
}
