//! Policies against their clauses: documents that were tampered with, and a registry on a real store.

use std::{path::Path, sync::Arc, time::Duration};

use store::{Options, Store};
use world::{Disk as _, RealDisk, Timestamp, sim};

use super::*;
use crate::audit::{Audit, Filter};

const DAY: u64 = 86_400_000_000_000;
const NOW: Timestamp = Timestamp::from_nanos(1_767_225_600_000_000_000); // 2026-01-01
const BY: &str = "user test";

fn after(days: u64) -> Timestamp {
    Timestamp::from_nanos(NOW.nanos() + days * DAY)
}

fn key(seed: u64) -> PrivateKey {
    PrivateKey::generate(&sim::Random::new(seed)).unwrap()
}

/// A small document; `{}` is where the version goes.
fn text(version: &str) -> String {
    format!(
        "# comments stay\ntype: schedule\nversion: \"{version}\"\nmetadata:\n  description: for tests\nrules:\n  ladder:\n    critical: 1h\n"
    )
}

fn signed(text: &str, key: &PrivateKey) -> String {
    sign(text, "p.yaml", key, "ops", NOW).unwrap_or_else(|faults| panic!("{text}: {faults:?}"))
}

fn trust(keys: &[&PrivateKey]) -> Trust {
    Trust {
        keys: keys
            .iter()
            .map(|key| (key.public().id(), key.public()))
            .collect(),
        ..Trust::default()
    }
}

fn reasons(trust: &Trust, text: &str) -> Vec<Reason> {
    let (_, wrong) = trust.examine(text.as_bytes(), "p.yaml", NOW);
    wrong.into_iter().map(|refused| refused.reason).collect()
}

#[test]
fn the_built_in_document_says_the_defaults() {
    let document = Document::parse(built_in_text().as_bytes(), "p.yaml").unwrap();
    let defaults = Policy {
        version: Version::new(0, 1, 0),
        ..Policy::default()
    };
    assert_eq!(document.policy, defaults);
    assert_eq!(document.metadata.effective_from, None);
}

#[test]
fn the_defaults_are_within_their_own_bounds() {
    let policy = Policy::default();
    assert_eq!(policy.tick, Duration::from_secs(60));
    assert_eq!(policy.dispatch_max, 100);
    let (again, clamps) = Ladder::clamped(policy.ladder.tiers());
    assert_eq!((again, clamps), (policy.ladder, vec![]));
    assert!(policy.collector_deadline <= policy.scan_deadline);
    assert!(policy.scan_deadline < policy.lease);
}

#[test]
fn a_missing_tier_is_looked_at_every_two_days() {
    let (ladder, clamps) = Ladder::clamped([]);
    assert!(clamps.is_empty());
    for state in ComplianceState::ALL {
        assert_eq!(ladder.interval(state), Duration::from_secs(48 * 3600));
    }
}

#[test]
fn an_interval_out_of_bounds_is_clamped_and_told() {
    let (ladder, clamps) = Ladder::clamped([
        (ComplianceState::Critical, Duration::from_secs(299)),
        (ComplianceState::Partial, Duration::from_secs(300)),
        (
            ComplianceState::Compliant,
            Duration::from_secs(48 * 3600 + 1),
        ),
    ]);
    assert_eq!(ladder.interval(ComplianceState::Critical), INTERVAL_MIN);
    assert_eq!(ladder.interval(ComplianceState::Partial), INTERVAL_MIN);
    assert_eq!(ladder.interval(ComplianceState::Compliant), INTERVAL_MAX);
    let told: Vec<_> = clamps
        .iter()
        .map(|clamp| (clamp.tier, clamp.original.as_secs(), clamp.bound))
        .collect();
    assert_eq!(
        told,
        [
            (ComplianceState::Critical, 299, Bound::MinFloor),
            (ComplianceState::Compliant, 172_801, Bound::MaxCeiling),
        ]
    );
}

/// Proves: SCH-11
#[test]
fn a_signed_document_verifies_and_every_other_is_refused_with_its_reason() {
    let (one, two) = (key(1), key(2));
    let good = signed(&text("1.0.0"), &one);
    let held = trust(&[&one]);
    assert_eq!(reasons(&held, &good), []);
    // What anybody may do to the layout: another order of keys, other quotes, comments.
    let reordered = format!(
        "rules: {{ladder: {{critical: '1h'}}}}\n{}",
        good.replace("rules:\n  ladder:\n    critical: 1h\n", "")
            .replace("# comments stay\n", "# others\n")
    );
    assert_ne!(reordered, good);
    assert_eq!(reasons(&held, &reordered), []);

    let with = |from: &str, to: &str| {
        let changed = good.replace(from, to);
        assert_ne!(changed, good, "{from}");
        changed
    };
    let value = good.lines().find(|line| line.contains("value:")).unwrap();
    for (why, document) in [
        ("not signed", text("1.0.0")),
        ("a version", with("1.0.0", "1.0.1")),
        ("a rule", with("1h", "2h")),
        (
            "who signed",
            with("signed_by: \"ops\"", "signed_by: \"eve\""),
        ),
        (
            "no algorithm",
            with("algorithm: ed25519", "algorithm: none"),
        ),
        ("its case", with("algorithm: ed25519", "algorithm: Ed25519")),
        (
            "another algorithm",
            with("algorithm: ed25519", "algorithm: hmac-sha256"),
        ),
        ("an empty value", with(value, "  value: \"\"")),
        ("a short value", with(value, "  value: \"AAAA\"")),
        ("a long value", with("==\"", "AAAA==\"")),
        ("no value", with(value, "")),
        ("another key", signed(&text("1.0.0"), &two)),
        (
            "the id of a trusted key on a signature of another",
            signed(&text("1.0.0"), &two)
                .replace(two.public().id().as_str(), one.public().id().as_str()),
        ),
    ] {
        assert_eq!(
            reasons(&held, &document),
            [Reason::SignatureInvalid],
            "{why}"
        );
    }
}

/// A signature whose scalar is not reduced verifies under lenient checks: a second valid signature
/// from a first, without the key.
#[test]
fn a_signature_with_a_second_spelling_is_refused() {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let key = key(1);
    let good = signed(&text("1.0.0"), &key);
    let value = good
        .split("value: \"")
        .nth(1)
        .unwrap()
        .trim_end_matches("\"\n");
    let mut bytes = STANDARD.decode(value).unwrap();
    // The order of the group, little-endian.
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0u16;
    for (byte, add) in bytes[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + add + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    let twisted = good.replace(value, &STANDARD.encode(&bytes));
    assert_ne!(twisted, good);
    assert_eq!(
        reasons(&trust(&[&key]), &twisted),
        [Reason::SignatureInvalid]
    );
    let unpadded = good.replace(value, value.trim_end_matches('='));
    assert_eq!(
        reasons(&trust(&[&key]), &unpadded),
        [Reason::SignatureInvalid]
    );
}

/// Every bit of every byte of a small document: the change is refused, or it says the same.
#[test]
fn no_flipped_bit_changes_what_a_signed_document_says() {
    let key = key(1);
    let held = trust(&[&key]);
    let good = signed(&text("1.0.0"), &key).into_bytes();
    let said = Document::parse(&good, "p.yaml").unwrap();
    let mut same = 0;
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            if let (Some(document), wrong) = held.examine(&flipped, "p.yaml", NOW)
                && wrong.is_empty()
            {
                assert_eq!(
                    (&document.policy, &document.metadata),
                    (&said.policy, &said.metadata),
                    "byte {at} bit {bit}"
                );
                same += 1;
            }
        }
    }
    assert!(same > 0, "a comment may change");
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place() {
    let text = "type: shedule\nversion: 1.10\nmetadata:\n  descripton: x\n  expires: tomorrow\nrules:\n  ladder:\n    critcal: 1h\n    partial: 90\n  tick: 2d\n  jitter_percent: 10.5\n  dispatch_max: \"7\"\n  concurrency: 0\n  scan_deadline: 5m\n  collector_deadline: 6m\n  host_key_policy: tofo\n  bands: {compliant: 80, partial: 90}\n";
    let faults = Document::parse(text.as_bytes(), "p.yaml").unwrap_err();
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    for (line, wanted) in [
        (
            1,
            "the type is `shedule`, wanted `schedule`; did you mean `schedule`?",
        ),
        (
            2,
            "`version` is not three numbers joined by dots; write it in quotes",
        ),
        (
            4,
            "unknown field `descripton` in `metadata`; did you mean `description`?",
        ),
        (5, "`expires` is no moment since 1970; write it as"),
        (
            8,
            "unknown field `critcal` in `ladder`; did you mean `critical`?",
        ),
        (
            9,
            "`partial` is no span of time; write a whole number and a unit",
        ),
        (10, "`tick` is 2d, wanted 1s to 1h"),
        (11, "`jitter_percent` is no whole number from 0 to 50"),
        (12, "`dispatch_max` is no whole number from 1 to 10000"),
        (13, "`concurrency` is no whole number from 1 to 10000"),
        (15, "`collector_deadline` is longer than `scan_deadline`"),
        (16, "`host_key_policy` is `tofo`; did you mean `tofu`?"),
        (17, "the bands do not fall"),
    ] {
        let found = told.iter().find(|fault| fault.contains(wanted));
        let found = found.unwrap_or_else(|| panic!("{wanted}: {told:#?}"));
        assert!(found.starts_with(&format!("p.yaml:{line}:")), "{found}");
    }
}

#[test]
fn the_traps_of_yaml_are_refused_or_harmless() {
    let with = |line: &str| text("1.0.0").replace("  description: for tests", line);
    let bomb = {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        text
    };
    for (why, text) in [
        (
            "a key twice",
            format!("{}version: \"2.0.0\"\n", text("1.0.0")),
        ),
        ("an unknown alias", with("  description: *x")),
        ("an alias bomb", bomb),
        (
            "10 MB",
            format!("{}#{}", text("1.0.0"), "x".repeat(10_000_000)),
        ),
        ("deep", "[".repeat(10_000)),
        (
            "two documents",
            format!("{}---\n{}", text("1.0.0"), text("1.0.1")),
        ),
        ("a list", "- type: schedule\n".to_owned()),
        ("nothing", String::new()),
        (
            "a number as text",
            text("1.0.0").replace("critical: 1h", "critical: 3600"),
        ),
        ("text as a number", with("  description: 7")),
        (
            "not a number",
            text("1.0.0").replace("critical: 1h", "critical: .nan"),
        ),
        ("a terminal's escape", with("  description: \"\\e[2J\"")),
    ] {
        assert!(Document::parse(text.as_bytes(), "p.yaml").is_err(), "{why}");
    }
    assert!(Document::parse(b"type: \xff\xfe", "p.yaml").is_err());
    // A country, not a truth.
    let norway = Document::parse(with("  description: no").as_bytes(), "p.yaml").unwrap();
    assert_eq!(norway.metadata.description, "no");
}

#[test]
fn signing_again_replaces_the_signature_and_keeps_the_rest() {
    let (one, two) = (key(1), key(2));
    let once = signed(&text("1.0.0"), &one);
    let twice = signed(&once, &two);
    assert_eq!(twice.matches("signature:").count(), 1);
    assert_eq!(twice.matches("signed_at:").count(), 1);
    assert!(twice.starts_with("# comments stay\n"), "{twice}");
    assert_eq!(reasons(&trust(&[&two]), &twice), []);
    let unsigned = Document::parse(twice.as_bytes(), "p.yaml")
        .unwrap()
        .unsigned();
    assert!(!unsigned.contains("signature"), "{unsigned}");
}

#[test]
fn a_layout_that_a_signature_does_not_fit_into_is_refused() {
    let key = key(1);
    for text in [
        "{type: schedule, version: \"1.0.0\", metadata: {description: x}, rules: {}}\n",
        "type: schedule\nversion: \"1.0.0\"\nmetadata: {description: x}\nrules: {}\n",
        "type: schedule\nversion: \"1.0.0\"\nmetadata:\n  description: x\nrules: {}\n...\n",
    ] {
        let faults = sign(text, "p.yaml", &key, "ops", NOW).unwrap_err();
        assert!(faults[0].what.contains("does not fit"), "{faults:?}");
    }
    let quoted = "type: schedule\nversion: \"1.0.0\"\nmetadata:\n  description: x\nrules: {}\n";
    let by = "a \"b\"\\ # c: d";
    let signed = sign(quoted, "p.yaml", &key, by, NOW).unwrap();
    let document = Document::parse(signed.as_bytes(), "p.yaml").unwrap();
    assert_eq!(document.metadata.signed_by.as_deref(), Some(by));
}

#[test]
fn a_document_holds_from_its_first_moment_until_its_last() {
    let key = key(1);
    let held = trust(&[&key]);
    let between = text("1.0.0").replace(
        "  description: for tests",
        "  description: x\n  effective_from: 2026-01-02T00:00:00Z\n  expires: 2026-01-04T00:00:00+00:00",
    );
    let document = signed(&between, &key);
    for (days, wanted) in [
        (0, vec![Reason::NotYetEffective]),
        (1, vec![]),
        (2, vec![]),
        (3, vec![Reason::Expired]),
    ] {
        let (_, wrong) = held.examine(document.as_bytes(), "p.yaml", after(days));
        let found: Vec<_> = wrong.iter().map(|refused| refused.reason).collect();
        assert_eq!(found, wanted, "day {days}");
    }
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn open(&self) -> (Registry, Store) {
        let journal = wal::Options::on_this_machine(self.dir.path().join("journal"));
        let (journal, _) = wal::Local::open(journal).unwrap();
        let options = Options::new(
            self.dir.path().join("tables"),
            Arc::new(RealDisk),
            Arc::new(sim::Clock::new(NOW)),
            crate::tables(),
        );
        let store = crate::test_store::open(options, Arc::new(journal)).unwrap();
        (Registry::new(store.clone()).unwrap(), store)
    }

    fn keys(&self) -> std::path::PathBuf {
        self.dir.path().join("keys")
    }
}

fn offer(text: &str) -> Offer<'_> {
    Offer {
        policy: Some((text.as_bytes(), "p.yaml")),
        list: None,
    }
}

fn offer_list(text: &str) -> Offer<'_> {
    Offer {
        policy: None,
        list: Some((text.as_bytes(), "list.yaml")),
    }
}

fn refused(registry: &Registry, offer: Offer<'_>, now: Timestamp) -> Reason {
    registry.reload(offer, now, BY).unwrap_err().reason
}

fn version(registry: &Registry, now: Timestamp) -> String {
    registry.in_force(now).unwrap().policy().version.to_string()
}

#[test]
fn the_first_start_signs_the_built_in_policy_with_a_key_of_its_own() {
    let place = Place::new();
    let (registry, store) = place.open();
    let random = sim::Random::new(5);
    let start = |registry: &Registry| registry.start(&RealDisk, &place.keys(), &random, NOW, BY);
    let Ok(Start::FirstStart(first)) = start(&registry) else {
        panic!("nothing was there");
    };
    assert_eq!(first.policy().version, Version::new(0, 1, 0));
    let file = place.keys().join(KEY_FILE);
    let private = read_key(&RealDisk, &file).unwrap();
    assert_eq!(private.public().id(), first.loaded.key_id);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(start(&registry), Ok(Start::InForce(_))));
    store.close().unwrap();
    drop((registry, store));
    let (registry, _store) = place.open();
    assert!(matches!(start(&registry), Ok(Start::InForce(_))));
}

/// A crash after the key's file and before its row: the next start goes on with that key.
#[test]
fn a_first_start_cut_short_is_finished_by_the_next_with_the_same_key() {
    let place = Place::new();
    let (registry, _store) = place.open();
    let left = key(77);
    RealDisk.create_dir_all_synced(&place.keys()).unwrap();
    RealDisk
        .replace(&place.keys().join(KEY_FILE), left.to_pem().as_bytes())
        .unwrap();
    let random = sim::Random::new(5);
    let start = registry.start(&RealDisk, &place.keys(), &random, NOW, BY);
    let Ok(Start::FirstStart(first)) = start else {
        panic!("{start:?}");
    };
    assert_eq!(first.loaded.key_id, left.public().id());
}

/// A crash after the key was trusted and before its policy was in force: the same.
#[test]
fn a_first_start_cut_short_behind_its_key_is_finished_by_the_next() {
    let place = Place::new();
    let (registry, _store) = place.open();
    let left = key(78);
    RealDisk.create_dir_all_synced(&place.keys()).unwrap();
    RealDisk
        .replace(&place.keys().join(KEY_FILE), left.to_pem().as_bytes())
        .unwrap();
    registry.trust(&left.public(), NOW, BY).unwrap();
    let random = sim::Random::new(5);
    let start = registry.start(&RealDisk, &place.keys(), &random, NOW, BY);
    assert!(matches!(start, Ok(Start::FirstStart(_))), "{start:?}");
}

/// Proves: SCH-11
#[test]
fn a_start_without_a_good_policy_is_refused_with_its_reason() {
    let place = Place::new();
    let (registry, store) = place.open();
    let (one, two) = (key(1), key(2));
    let start = |now| {
        registry
            .start(
                &RealDisk,
                Path::new("/nowhere"),
                &sim::Random::new(1),
                now,
                BY,
            )
            .unwrap_err()
            .reason
    };
    registry.trust(&one.public(), NOW, BY).unwrap();
    registry.trust(&two.public(), NOW, BY).unwrap();
    assert_eq!(start(NOW), Reason::PolicyMissing);

    let expires = text("1.0.0").replace(
        "  description: for tests",
        "  description: x\n  effective_from: 2026-01-01T00:00:00Z\n  expires: 2026-01-04T00:00:00Z",
    );
    registry
        .reload(offer(&signed(&expires, &one)), NOW, BY)
        .unwrap();
    assert_eq!(start(after(3)), Reason::Expired);
    let before = Timestamp::from_nanos(NOW.nanos() - DAY);
    assert_eq!(start(before), Reason::NotYetEffective);

    let table = store.table("policy.active").unwrap();
    let row = store
        .snapshot()
        .unwrap()
        .get(table, b"in force")
        .unwrap()
        .unwrap();
    let put = |bytes: &[u8]| {
        let mut transaction = store.begin().unwrap();
        transaction.put(table, b"in force", bytes).unwrap();
        transaction.commit().unwrap();
    };
    let words = String::from_utf8(row.to_vec()).unwrap();
    put(words.replace("critical: 1h", "critical: 9h").as_bytes());
    assert_eq!(start(NOW), Reason::SignatureInvalid);
    put(words.replace("critical: 1h", "critical: soon").as_bytes());
    assert_eq!(start(NOW), Reason::ParseError);
    put(words.as_bytes());
    registry
        .revoke(&one.public().id(), "lost", after(30), &two, NOW, BY)
        .unwrap();
    assert_eq!(start(NOW), Reason::RevokedKey);
}

/// Proves: SCH-11
#[test]
fn a_bad_reload_leaves_the_policy_in_force_as_it_was() {
    let place = Place::new();
    let (registry, _store) = place.open();
    let (one, two) = (key(1), key(2));
    registry.trust(&one.public(), NOW, BY).unwrap();
    let second = signed(&text("1.2.0"), &one);
    assert!(registry.reload(offer(&second), NOW, BY).unwrap().changed);
    let same = registry.reload(offer(&second), after(1), BY).unwrap();
    assert!(!same.changed, "equal bytes are no reload");
    assert_eq!(same.active.unwrap().loaded.loaded_at, NOW.nanos());

    let other = text("1.2.0").replace("1h", "2h");
    for (document, wanted) in [
        (signed(&other, &one), Reason::VersionRegression),
        (signed(&text("1.1.9"), &one), Reason::VersionRegression),
        (signed(&text("1.3.0"), &two), Reason::SignatureInvalid),
        (text("1.3.0"), Reason::SignatureInvalid),
        (
            text("1.3.0").replace("type: schedule", "type: approvals"),
            Reason::ParseError,
        ),
        ("{".to_owned(), Reason::ParseError),
    ] {
        assert_eq!(
            refused(&registry, offer(&document), NOW),
            wanted,
            "{document}"
        );
        assert_eq!(registry.in_force(NOW).unwrap().document.text(), second);
    }
    registry
        .reload(offer(&signed(&text("1.10.0"), &one)), after(2), BY)
        .unwrap();
    let history = registry.history().unwrap();
    let versions: Vec<_> = history.iter().map(|row| row.version.to_string()).collect();
    assert_eq!(versions, ["1.10.0", "1.2.0"], "the newest first");
    assert_eq!(history[0].loaded_by, BY);
}

fn audited(store: &Store) -> Vec<(String, serde_json::Value)> {
    let audit = Audit::of(store).unwrap();
    let mut records: Vec<_> = audit
        .list(store, &Filter::default(), 1000)
        .unwrap()
        .into_iter()
        .map(|record| (record.action, record.detail))
        .collect();
    records.reverse();
    records
}

/// Proves: SCH-6, SCH-11
#[test]
fn what_came_into_force_what_was_clamped_and_what_was_refused_is_audited() {
    let place = Place::new();
    let (registry, store) = place.open();
    let one = key(1);
    registry.trust(&one.public(), NOW, BY).unwrap();
    let short = text("1.0.0").replace("critical: 1h", "critical: 1m\n    partial: 3d");
    registry
        .reload(offer(&signed(&short, &one)), NOW, BY)
        .unwrap();
    refused(&registry, offer(&signed(&text("0.9.0"), &one)), NOW);
    let records = audited(&store);
    let actions: Vec<_> = records.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "policy.key.trusted",
            "policy.loaded",
            "policy.clamped",
            "policy.clamped",
            "policy.reload.rejected",
        ]
    );
    assert_eq!(
        records[2].1,
        serde_json::json!({"tier": "critical", "original": "1m", "clamped": "5m", "bound": "min_floor"})
    );
    assert_eq!(
        records[3].1,
        serde_json::json!({"tier": "partial", "original": "3d", "clamped": "2d", "bound": "max_ceiling"})
    );
    assert_eq!(records[4].1["reason"], "version_regression");
    assert_eq!(records[4].1["version_attempted"], "0.9.0");
    assert_eq!(records[4].1["version_active"], "1.0.0");
    let ladder = &registry.in_force(NOW).unwrap().document.policy.ladder;
    assert_eq!(ladder.interval(ComplianceState::Critical), INTERVAL_MIN);
    assert_eq!(
        ladder.interval(ComplianceState::Compliant),
        INTERVAL_MAX,
        "a missing tier"
    );
}

/// Proves: SCH-12
#[test]
fn a_policy_signed_by_a_revoked_key_is_refused_and_the_previous_one_stays() {
    let place = Place::new();
    let (registry, _store) = place.open();
    let (one, two) = (key(1), key(2));
    registry.trust(&one.public(), NOW, BY).unwrap();
    registry.trust(&two.public(), NOW, BY).unwrap();
    registry
        .reload(offer(&signed(&text("1.0.0"), &two)), NOW, BY)
        .unwrap();

    let itself = registry.revoke(&two.public().id(), "x", after(30), &two, NOW, BY);
    assert_eq!(itself.unwrap_err().reason, Reason::RevokedKey);
    let (first, _) = registry
        .revoke(
            &one.public().id(),
            "a lost laptop",
            after(30),
            &two,
            NOW,
            BY,
        )
        .unwrap();
    let by_revoked = signed(&text("2.0.0"), &one);
    Document::parse(by_revoked.as_bytes(), "p.yaml")
        .unwrap()
        .verify(|_| Some(one.public()))
        .expect("its signature verifies");
    assert_eq!(
        refused(&registry, offer(&by_revoked), NOW),
        Reason::RevokedKey
    );
    assert_eq!(version(&registry, NOW), "1.0.0");
    assert_eq!(
        registry.trust(&one.public(), NOW, BY).unwrap_err().reason,
        Reason::RevokedKey
    );

    // A second list, then the first again; and one that brings the key back.
    let three = key(3);
    let (second, _) = registry
        .revoke(&three.public().id(), "left", after(60), &two, NOW, BY)
        .unwrap();
    assert_eq!((first.serial, second.serial), (1, 2));
    assert_eq!(
        refused(&registry, offer_list(first.text()), NOW),
        Reason::RevocationRegression
    );
    let kept = [(three.public().id(), "left".to_owned())].into();
    let fewer = revocation::sign_list(3, after(60), &kept, &two, BY, NOW).unwrap();
    assert_eq!(
        refused(&registry, offer_list(&fewer), NOW),
        Reason::RevocationRegression
    );
    let by_one = revocation::sign_list(9, after(60), &second.revoked, &one, BY, NOW).unwrap();
    assert_eq!(
        refused(&registry, offer_list(&by_one), NOW),
        Reason::RevokedKey
    );
    let by_none = second.text().replace("serial: 2", "serial: 3");
    assert_eq!(
        refused(&registry, offer_list(&by_none), NOW),
        Reason::SignatureInvalid
    );
    assert_eq!(
        refused(&registry, offer_list(&signed(&text("9.0.0"), &two)), NOW),
        Reason::ParseError
    );
}

/// Proves: SCH-12
#[test]
fn an_expired_list_keeps_policies_out_and_puts_none_out_of_force() {
    let place = Place::new();
    let (registry, _store) = place.open();
    let (one, two) = (key(1), key(2));
    registry.trust(&one.public(), NOW, BY).unwrap();
    registry.trust(&two.public(), NOW, BY).unwrap();
    registry
        .reload(offer(&signed(&text("1.0.0"), &two)), NOW, BY)
        .unwrap();
    let (first, _) = registry
        .revoke(&one.public().id(), "lost", after(60), &two, NOW, BY)
        .unwrap();
    let next = signed(&text("3.0.0"), &two);
    assert_eq!(
        refused(&registry, offer(&next), after(60)),
        Reason::RevocationExpired
    );
    assert_eq!(version(&registry, after(60)), "1.0.0");
    let newer = revocation::sign_list(3, after(90), &first.revoked, &two, BY, NOW).unwrap();
    let both = Offer {
        policy: Some((next.as_bytes(), "p.yaml")),
        list: Some((newer.as_bytes(), "list.yaml")),
    };
    registry.reload(both, after(60), BY).unwrap();
    assert_eq!(version(&registry, after(60)), "3.0.0");
}

#[test]
fn a_list_and_a_policy_are_loaded_together_or_not_at_all() {
    let place = Place::new();
    let (registry, _store) = place.open();
    let (one, two) = (key(1), key(2));
    registry.trust(&one.public(), NOW, BY).unwrap();
    registry.trust(&two.public(), NOW, BY).unwrap();
    let revoked = [(one.public().id(), "lost".to_owned())].into();
    let list = revocation::sign_list(1, after(9), &revoked, &two, BY, NOW).unwrap();
    let by_one = signed(&text("1.0.0"), &one);
    let both = Offer {
        policy: Some((by_one.as_bytes(), "p.yaml")),
        list: Some((list.as_bytes(), "list.yaml")),
    };
    assert_eq!(refused(&registry, both, NOW), Reason::RevokedKey);
    assert!(registry.trust_now().unwrap().list.is_none());
}

/// The worked example of the format's document: signed by its key, it is the document to the byte.
#[test]
fn the_documented_example_is_what_signing_gives() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format/policy.md");
    let page = RealDisk.read(Path::new(root), 1 << 20).unwrap();
    let page = String::from_utf8(page).unwrap();
    let block = |name: &str| {
        let after = page.split(&format!("<!-- {name} -->\n```")).nth(1);
        let after = after.unwrap_or_else(|| panic!("docs/format/policy.md has no {name}"));
        let body = after.split_once('\n').unwrap().1;
        body.split("```").next().unwrap().to_owned()
    };
    let seed = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    use ed25519_dalek::pkcs8::EncodePrivateKey as _;
    let pem = seed.to_pkcs8_pem(Default::default()).unwrap();
    let key = PrivateKey::from_pem(&pem).unwrap();
    let signed = sign(&block("unsigned"), "p.yaml", &key, "anna@press-3", NOW).unwrap();
    assert_eq!(signed, block("signed"));
    let envelope = envelope::Envelope::parse(signed.as_bytes()).unwrap();
    let message = String::from_utf8(envelope.message()).unwrap();
    assert_eq!(message, block("message").trim_end());
    assert!(page.contains(&key.public().base64()), "the public key");
    assert_eq!(reasons(&trust(&[&key]), &signed), []);
}
