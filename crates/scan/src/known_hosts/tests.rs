//! Known hosts against what OpenSSH writes.

use super::*;
use crate::inventory::tests::Place;

const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";
const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";

fn key(text: &str) -> PublicKey {
    PublicKey::from_openssh(text).unwrap()
}

fn known(place: &Place) -> KnownHosts {
    KnownHosts::new(place.store.clone()).unwrap()
}

/// Proves: EXE-4
#[test]
fn a_key_is_known_unknown_or_changed_and_one_of_another_type_is_changed() {
    let place = Place::new();
    let known = known(&place);
    let check = |offered: &str| known.check("Web1.example.org", 22, &key(offered)).unwrap();
    assert!(matches!(check(A), Check::Unknown { offered } if offered.starts_with("SHA256:")));
    assert!(
        known
            .trust("web1.example.org", 22, &key(A), place.now())
            .unwrap()
    );
    assert!(
        !known
            .trust("web1.example.org", 22, &key(A), place.now())
            .unwrap()
    );
    assert_eq!(check(A), Check::Known);
    for other in [B, ECDSA] {
        let expected = Check::Changed {
            offered: fingerprint(&key(other)),
            known: vec![fingerprint(&key(A))],
        };
        assert_eq!(check(other), expected);
        // No policy takes a change.
        for policy in [HostKeyPolicy::RequireKnown, HostKeyPolicy::Tofu] {
            let failure = expected.judge(policy, "web1").unwrap_err();
            assert_eq!(failure.reason, Reason::HostKeyChanged);
        }
    }
    // Another port is another server.
    let other_port = known.check("web1.example.org", 2222, &key(A)).unwrap();
    assert!(matches!(other_port, Check::Unknown { .. }));
    let unknown = other_port
        .judge(HostKeyPolicy::RequireKnown, "web1")
        .unwrap_err();
    assert_eq!(unknown.reason, Reason::HostKeyUnknown);
    let tofu = other_port.judge(HostKeyPolicy::Tofu, "web1").unwrap();
    assert_eq!(tofu, Accepted::FirstSight);
}

/// What OpenSSH 9.2 wrote with `ssh-keygen -H` for `[127.0.0.2]:22822`.
const HASHED: &str = "|1|9tLxxL8bSrrwtUYMGN5MF0oKvS8=|U1jeiWtev8//pO/Hr86ytib+Agk= ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHDoDovYZyOEkl4aD4Id4v3y60+wtsfkubUafi2j4opX";

fn file() -> String {
    format!(
        "# comment\n\n\
         web1.example.org,10.0.0.1 {A} some comment\n\
         [web2]:2222 {B}\n\
         *.corp,!bad.corp {ECDSA}\n\
         {HASHED}\n\
         @revoked * {A_REVOKED}\n\
         @cert-authority *.example.org {A}\n\
         @odd web {A}\n\
         web3 ssh-ed25519 notbase64\n\
         web4\n\
         |1|x|y {A}\n\
         a;b {A}\n"
    )
}

/// Proves: EXE-4
#[test]
fn a_file_of_known_hosts_is_taken_over_written_and_taken_over_again() {
    let place = Place::new();
    let known = known(&place);
    let file = file();
    let imported = known.import(&file, place.now()).unwrap();
    assert_eq!((imported.added, imported.present), (6, 0));
    let faults: Vec<_> = imported
        .refused
        .iter()
        .map(|(line, fault)| (*line, *fault))
        .collect();
    assert_eq!(
        faults,
        [
            (8, Fault::CertAuthority),
            (9, Fault::Marker),
            (10, Fault::Key),
            (11, Fault::Fields),
            (12, Fault::Names),
            (13, Fault::Names),
        ]
    );
    let is_known = |address: &str, port, text: &str| {
        known.check(address, port, &key(text)).unwrap() == Check::Known
    };
    let hashed = HASHED.split_once(' ').unwrap().1;
    let expect = |known: &dyn Fn(&str, u16, &str) -> bool| {
        assert!(known("web1.example.org", 22, A) && known("10.0.0.1", 22, A));
        assert!(known("web2", 2222, B) && !known("web2", 22, B));
        assert!(known("x.corp", 22, ECDSA) && known("X.CORP", 22, ECDSA));
        assert!(!known("bad.corp", 22, ECDSA) && !known("corp", 22, ECDSA));
        assert!(known("127.0.0.2", 22822, hashed) && !known("127.0.0.3", 22822, hashed));
    };
    expect(&is_known);
    let revoked = known.check("anywhere", 22, &key(A_REVOKED)).unwrap();
    assert!(matches!(revoked, Check::Revoked { .. }));
    assert!(
        known
            .trust("anywhere", 22, &key(A_REVOKED), place.now())
            .unwrap()
    );
    let still = known.check("anywhere", 22, &key(A_REVOKED)).unwrap();
    assert!(
        matches!(still, Check::Revoked { .. }),
        "trust does not undo it"
    );

    let written = known.export().unwrap();
    let elsewhere = Place::new();
    let other = KnownHosts::new(elsewhere.store.clone()).unwrap();
    let again = other.import(&written, elsewhere.now()).unwrap();
    assert_eq!((again.added, again.refused), (7, vec![]));
    expect(&|address: &str, port, text: &str| {
        other.check(address, port, &key(text)).unwrap() == Check::Known
    });
    // Read where it lies, without a store.
    expect(&|address: &str, port, text: &str| {
        Known::in_file(&written, address, port)
            .unwrap()
            .check(&key(text))
            == Check::Known
    });
    assert_eq!(other.export().unwrap(), written);
}

const A_REVOKED: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";

#[test]
fn a_replaced_key_is_forgotten_and_the_record_of_it_stays_in_the_past() {
    let place = Place::new();
    let known = known(&place);
    known.trust("web1", 22, &key(A), place.now()).unwrap();
    let mut transaction = place.store.begin().unwrap();
    assert_eq!(known.forget_in(&mut transaction, "web1", 22).unwrap(), 1);
    known
        .trust_in(&mut transaction, "web1", 22, &key(B), place.now())
        .unwrap();
    transaction.commit().unwrap();
    assert_eq!(known.check("web1", 22, &key(B)).unwrap(), Check::Known);
    assert!(matches!(
        known.check("web1", 22, &key(A)).unwrap(),
        Check::Changed { .. }
    ));
    assert_eq!(known.of("web1", 22).unwrap().algorithms().len(), 1);
}

#[test]
fn a_pattern_takes_time_in_proportion_whatever_it_is() {
    let pattern = format!("{}b", "*a".repeat(2000));
    let name = "a".repeat(4000);
    assert!(!globbed(&pattern, &name));
    for (pattern, text, is_one) in [
        ("*", "", true),
        ("?", "", false),
        ("a*b?d", "axxbcd", true),
        ("a*b?d", "abd", false),
        ("*a*a*", "aa", true),
        ("**", "x", true),
        ("[web]:22", "[web]:22", true),
    ] {
        assert_eq!(globbed(pattern, text), is_one, "{pattern} {text}");
    }
}

/// Each of `count` lines is about a name of its own.
fn revocations(count: usize) -> String {
    (0..count)
        .map(|at| format!("@revoked host{at} {B}\n"))
        .collect()
}

/// Proves: EXE-4
#[test]
fn a_revocation_that_would_not_be_looked_at_is_not_taken() {
    let place = Place::new();
    let known = known(&place);
    let most = PATTERNS_MAX;
    known.import(&revocations(most), place.now()).unwrap();
    let one_more = format!("@revoked * {A}\n");
    let error = known.import(&one_more, place.now()).unwrap_err();
    assert!(error.to_string().contains("revocations"), "{error}");
    // What is on record is taken again, and a name of its own has room.
    let again = known.import(&revocations(3), place.now()).unwrap();
    assert_eq!((again.added, again.present), (0, 3));
    assert!(known.trust("web1", 22, &key(A), place.now()).unwrap());
    assert_eq!(known.check("web1", 22, &key(A)).unwrap(), Check::Known);
}
