//! The rooms and the one direction between them.

use std::collections::BTreeSet;

use toml::Table;

use crate::tree::{Finding, Tree};

/// Each room and the rooms it may know. The picture is in ARCHITECTURE.md.
const ROOMS: [(&str, &[&str]); 11] = [
    ("world", &[]),
    ("wal", &["world"]),
    ("store", &["wal", "world"]),
    ("postgres", &["store", "wal", "world"]),
    ("replica", &["wal", "world"]),
    ("volume", &["wal", "world"]),
    ("events", &["store", "wal", "world"]),
    ("lake", &["store", "wal", "world"]),
    ("scan", &["store", "wal", "world"]),
    (
        "app",
        &[
            "events", "lake", "postgres", "replica", "scan", "store", "volume", "wal", "world",
        ],
    ),
    // Runs `app` as a process, links only what it simulates.
    ("proof", &["replica", "store", "volume", "wal", "world"]),
];

/// What only the tests of a room may know beside: its suite runs on every store.
const IN_TESTS: [(&str, &str); 1] = [("scan", "postgres")];

/// Dependencies kept to the rooms that own their subject.
const QUARANTINE: [(&str, &[&str]); 9] = [
    ("axum", &["app"]),
    ("datafusion", &["lake"]),
    ("hyper", &["app"]),
    ("iceberg", &["lake"]),
    ("lsm-tree", &["store"]),
    ("object_store", &["lake"]),
    ("russh", &["scan"]),
    ("tokio-postgres", &["postgres"]),
    ("tower-http", &["app"]),
];

const DEPENDENCY_TABLES: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Lints that must be denied for all rooms: without them a rule of ours has no keeper.
const LINTS: [&str; 8] = [
    "allow_attributes_without_reason",
    "cast_possible_truncation",
    "cast_sign_loss",
    "dbg_macro",
    "disallowed_methods",
    "disallowed_types",
    "print_stdout",
    "unwrap_used",
];

/// Every crate is a known room and depends only on rooms it may know.
pub(super) fn directions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut missing: BTreeSet<&str> = BTreeSet::new();
    for path in tree.paths() {
        if let Some((room, _)) = path.strip_prefix("crates/").and_then(|p| p.split_once('/'))
            && tree.text(&format!("crates/{room}/Cargo.toml")).is_none()
        {
            missing.insert(room);
        }
    }
    for room in missing {
        let dir = format!("crates/{room}");
        findings.push(Finding::new(
            &dir,
            0,
            "a directory of crates without a Cargo.toml",
        ));
    }
    for (path, room, manifest) in manifests(tree) {
        match manifest.parse::<Table>() {
            Ok(manifest) => findings.extend(edges(path, room, &manifest)),
            Err(error) => findings.push(Finding::new(path, 0, error.message())),
        }
    }
    findings
}

fn manifests(tree: &Tree) -> impl Iterator<Item = (&str, &str, &str)> {
    tree.texts_ending("/Cargo.toml").filter_map(|(path, text)| {
        let room = path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?;
        (!room.contains('/')).then_some((path, room, text))
    })
}

fn edges(path: &str, room: &str, manifest: &Table) -> Vec<Finding> {
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![Finding::new(path, 0, format!("{room} is not a room"))];
    };
    let mut findings = Vec::new();
    let package = manifest
        .get("package")
        .and_then(|package| package.get("name"));
    if package.and_then(|name| name.as_str()) != Some(room) {
        let what = format!("the package in the room {room} has another name");
        findings.push(Finding::new(path, 0, what));
    }
    for (dependency, in_tests) in dependencies(manifest) {
        let is_room = ROOMS.iter().any(|(name, _)| *name == dependency);
        if in_tests && IN_TESTS.contains(&(room, dependency.as_str())) {
            continue;
        }
        if is_room && dependency != room && !allowed.contains(&dependency.as_str()) {
            let what = format!("{room} must not know {dependency}");
            findings.push(Finding::new(path, 0, what));
        }
        for (heavy, owners) in QUARANTINE {
            let family = dependency == heavy || dependency.starts_with(&format!("{heavy}-"));
            if family && !owners.contains(&room) {
                let what = format!(
                    "{dependency} belongs to {}, not to {room}",
                    owners.join(", ")
                );
                findings.push(Finding::new(path, 0, what));
            }
        }
    }
    findings
}

/// Names of the packages a manifest depends on, renamed ones by their own name, and whether only its
/// tests do.
fn dependencies(manifest: &Table) -> BTreeSet<(String, bool)> {
    let mut tables = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(|target| target.as_table()) {
        tables.extend(targets.values().filter_map(|target| target.as_table()));
    }
    let mut names = BTreeSet::new();
    for table in tables {
        for kind in DEPENDENCY_TABLES {
            let found = table.get(kind).and_then(|kind| kind.as_table());
            for (name, how) in found.into_iter().flatten() {
                let package = how.get("package").and_then(|package| package.as_str());
                let name = package.unwrap_or(name).to_owned();
                names.insert((name, kind == "dev-dependencies"));
            }
        }
    }
    names
}

/// Every room takes the lints of the workspace, and the workspace has them.
pub(super) fn lints_are_on(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, _, text) in manifests(tree) {
        let takes = text.parse::<Table>().is_ok_and(|manifest| {
            let lints = manifest
                .get("lints")
                .and_then(|lints| lints.get("workspace"));
            lints.and_then(|lints| lints.as_bool()) == Some(true)
        });
        if !takes {
            findings.push(Finding::new(
                path,
                0,
                "does not take the lints of the workspace",
            ));
        }
    }
    let Some(Ok(root)) = tree.text("Cargo.toml").map(str::parse::<Table>) else {
        findings.push(Finding::new("Cargo.toml", 0, "missing, or not TOML"));
        return findings;
    };
    for lint in LINTS {
        let clippy = root
            .get("workspace")
            .and_then(|it| it.get("lints")?.get("clippy"));
        let level = clippy.and_then(|clippy| clippy.get(lint)?.as_str());
        if level != Some("deny") {
            findings.push(Finding::new(
                "Cargo.toml",
                0,
                format!("clippy's {lint} is not denied"),
            ));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{rest}")
    }

    fn check(room: &str, name: &str, rest: &str, expected: &[&str]) {
        let path = format!("crates/{room}/Cargo.toml");
        let tree = Tree::of(&[(&path, &manifest(name, rest))]);
        let found: Vec<String> = directions(&tree).into_iter().map(|f| f.what).collect();
        assert_eq!(found, expected, "{rest}");
    }

    #[test]
    fn a_dependency_against_the_direction_is_found_wherever_it_hides() {
        check(
            "store",
            "store",
            "[dependencies]\nwal.workspace = true\n",
            &[],
        );
        let against = ["wal must not know store"];
        for rest in [
            "[dependencies]\nstore.workspace = true\n",
            "[dev-dependencies]\nstore = { path = \"../store\" }\n",
            "[build-dependencies]\nstore.workspace = true\n",
            "[target.'cfg(unix)'.dependencies]\nstore.workspace = true\n",
            "[dependencies]\ntables = { package = \"store\", path = \"../store\" }\n",
        ] {
            check("wal", "wal", rest, &against);
        }
        let rest = "[dependencies]\napp = { path = \"../app\" }\n";
        check("proof", "proof", rest, &["proof must not know app"]);
    }

    #[test]
    fn an_unknown_room_and_a_quarantined_dependency_are_found() {
        check("tools", "tools", "", &["tools is not a room"]);
        check(
            "wal",
            "journal",
            "",
            &["the package in the room wal has another name"],
        );
        check(
            "store",
            "store",
            "[dependencies]\ndatafusion-common = \"53\"\nlsm-tree = \"3\"\n",
            &["datafusion-common belongs to lake, not to store"],
        );
        let tree = Tree::of(&[("crates/stray/src/lib.rs", "")]);
        assert_eq!(directions(&tree).len(), 1);
    }

    #[test]
    fn a_room_outside_the_lints_and_a_lint_turned_off_are_found() {
        let denied: String = LINTS
            .iter()
            .map(|lint| format!("{lint} = \"deny\"\n"))
            .collect();
        let root = format!("[workspace.lints.clippy]\n{denied}");
        let weaker = root.replace("unwrap_used = \"deny\"", "unwrap_used = \"warn\"");
        let inside = manifest("wal", "");
        for (root, room, expected) in [
            (&root, inside.as_str(), 0),
            (&root, "[package]\nname = \"wal\"\n", 1),
            (&weaker, inside.as_str(), 1),
        ] {
            let tree = Tree::of(&[("Cargo.toml", root), ("crates/wal/Cargo.toml", room)]);
            assert_eq!(lints_are_on(&tree).len(), expected, "{root}{room}");
        }
    }
}
