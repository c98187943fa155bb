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
