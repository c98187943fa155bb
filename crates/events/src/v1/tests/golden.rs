//! The files under `fixtures/telemetry-v1`, which no code of this repository wrote, and what the manifest
//! says of each. They stay as they are: a checksum list says so.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use world::sim;

use super::{frames, get, open, options, put, reader};
use crate::v1::{SAFE_SEQ, WAL, survey};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn load(name: &str) -> sim::Disk {
    let disk = sim::Disk::new(1);
    for entry in fs::read_dir(fixtures().join("telemetry-v1").join(name)).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        put(&disk, entry.file_name().to_str().unwrap(), &bytes);
    }
    disk
}

/// Proves: JRN-30, JRN-31, JRN-32, JRN-33
#[test]
fn each_fixture_opens_or_is_refused_as_its_manifest_says() {
    let text = fs::read_to_string(fixtures().join("telemetry-v1/manifest.json")).unwrap();
    let manifest: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    for (name, expected) in &manifest {
        let disk = load(name);
        let surveyed = survey(super::dir(), &options(&disk)).unwrap();
        let log = get(&disk, WAL).unwrap();
        let told = get(&disk, SAFE_SEQ).map(|safe_seq| reader::read(&log, &safe_seq));
        if let Some(code) = expected["refused"].as_str() {
            let error = open(&disk).unwrap_err();
            assert_eq!(error.cause().unwrap().code(), code, "{name}");
            assert_eq!(surveyed.refusal.unwrap().to_string(), error.to_string());
            if let Some(reader::Outcome::Refused(told)) = told {
                assert_eq!(told, code, "{name}");
            }
            continue;
        }
        let (opened, recovery) = open(&disk).unwrap_or_else(|e| panic!("{name}: {e}"));
        let payloads: Vec<Vec<u8>> = frames(&opened).into_iter().map(|frame| frame.1).collect();
        assert_eq!(payloads.len() as u64, expected["frames"], "{name}");
        assert_eq!(
            recovery.cut.map_or(0, |cut| cut.len),
            expected["cut"],
            "{name}"
        );
        let len = get(&disk, WAL).unwrap().len();
        assert_eq!(told, Some(reader::Outcome::Frames(payloads, len)), "{name}");
    }
    assert_eq!(manifest.len(), 14);
}

/// What the writer makes today is, byte for byte, what it made when the fixture was taken.
///
/// Proves: JRN-30
#[test]
fn appending_the_bodies_of_the_known_good_log_makes_its_bytes_again() {
    let good = load("known-good");
    let log = get(&good, WAL).unwrap();
    let disk = sim::Disk::new(1);
    let (mut opened, _) = open(&disk).unwrap();
    for (seq, payload) in frames(&open(&good).unwrap().0) {
        let payload = String::from_utf8(payload).unwrap();
        let body = payload.replace(&format!("\"seq\":{seq},"), "");
        opened.append(&[&body]).unwrap();
    }
    assert_eq!(get(&disk, WAL).unwrap(), log);
    assert_eq!(get(&disk, SAFE_SEQ).unwrap(), get(&good, SAFE_SEQ).unwrap());
}

/// Covers every fixture of the repository, this format's and the others'.
#[test]
fn no_fixture_was_changed_added_or_removed_unsaid() {
    let list = fs::read_to_string(fixtures().join("SHA256SUMS")).unwrap();
    let listed: BTreeMap<String, String> = list
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(sum, path)| (path.to_owned(), sum.to_owned()))
        .collect();
    let mut found = BTreeMap::new();
    let mut dirs = vec![fixtures()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let name = path
                .strip_prefix(fixtures())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let sum: String = Sha256::digest(fs::read(&path).unwrap())
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            found.insert(name, sum);
        }
    }
    found.remove("SHA256SUMS");
    found.remove("README.md");
    assert_eq!(
        found, listed,
        "fixtures are what was released; new ones are listed by sha256sum"
    );
}
