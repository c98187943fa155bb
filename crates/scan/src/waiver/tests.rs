//! Waivers against RUL-8: who may take which step, and what holds at which moment.

use std::sync::Arc;

use store::Options;
use world::{RealDisk, sim};

use super::*;
use crate::inventory::Reach;

const NOW: Timestamp = Timestamp::from_nanos(1_767_225_600_000_000_000);

fn after(days: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(days * 86_400))
}

fn open(dir: &std::path::Path) -> Waivers {
    let journal = wal::Options::on_this_machine(dir.join("journal"));
    let (journal, _) = wal::Local::open(journal).unwrap();
    let options = Options::new(
        dir.join("tables"),
        Arc::new(RealDisk),
        Arc::new(sim::Clock::new(NOW)),
        crate::tables(),
    );
    Waivers::new(crate::test_store::open(options, Arc::new(journal)).unwrap()).unwrap()
}

fn request(days: u64) -> Request {
    Request {
        rule: "a".to_owned(),
        target: Target::Host("web1".to_owned()),
        owner: "anna".to_owned(),
        reason: "replaced in March".to_owned(),
        expires: after(days),
    }
}

fn standing(waivers: &Waivers, id: u32, at: Timestamp) -> Option<Standing> {
    let all = waivers.list().unwrap();
    all.iter()
        .find(|waiver| waiver.id == id)
        .unwrap()
        .standing(at)
}

/// Proves: RUL-8
#[test]
fn a_waiver_holds_from_its_approval_to_its_end_and_its_past_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let waivers = open(dir.path());
    let one = waivers.request(&request(10), NOW, "user anna").unwrap();
    waivers.approve(one.id, after(2), "bert").unwrap();
    let two = waivers
        .request(&request(20), after(1), "user anna")
        .unwrap();
    waivers.approve(two.id, after(3), "bert").unwrap();
    waivers
        .revoke(two.id, "mended", after(4), "user anna")
        .unwrap();
    let before = Timestamp::from_nanos(NOW.nanos() - 1);
    for (id, at, wanted) in [
        (1, before, None),
        (1, NOW, Some(Standing::Requested)),
        (1, after(2), Some(Standing::Approved)),
        (1, after(10), Some(Standing::Expired)),
        (2, after(3), Some(Standing::Approved)),
        (2, after(4), Some(Standing::Revoked)),
        (2, after(30), Some(Standing::Revoked)),
    ] {
        assert_eq!(standing(&waivers, id, at), wanted, "{id} at {at:?}");
    }
    let all = waivers.list().unwrap();
    for (days, wanted) in [
        (0, None),
        (2, Some(1)),
        (3, Some(2)),
        (5, Some(1)),
        (10, None),
    ] {
        let found = beside(&all, "a", "web1", None, after(days)).map(|waiver| waiver.id);
        assert_eq!(found, wanted, "day {days}");
    }
    assert_eq!(
        beside(&all, "b", "web1", None, after(2)),
        None,
        "another rule"
    );
    assert_eq!(
        beside(&all, "a", "web2", None, after(2)),
        None,
        "another host"
    );
}

/// Proves: RUL-8
#[test]
fn nobody_approves_their_own_waiver() {
    let dir = tempfile::tempdir().unwrap();
    let waivers = open(dir.path());
    let one = waivers.request(&request(10), NOW, "user carl").unwrap();
    for by in ["anna", " Anna ", "user anna", "carl", "user carl", ""] {
        assert!(waivers.approve(one.id, NOW, by).is_err(), "{by:?}");
    }
    assert_eq!(standing(&waivers, one.id, NOW), Some(Standing::Requested));
    waivers.approve(one.id, NOW, "bert").unwrap();
    let twice = waivers.approve(one.id, NOW, "dora").unwrap_err();
    assert_eq!(twice.detail, "waiver 1 is approved");
}

#[test]
fn a_waiver_without_end_reason_or_owner_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let waivers = open(dir.path());
    for (why, bad) in [
        ("too long", request(367)),
        ("over already", request(0)),
        (
            "no owner",
            Request {
                owner: " ".to_owned(),
                ..request(1)
            },
        ),
        (
            "no reason",
            Request {
                reason: String::new(),
                ..request(1)
            },
        ),
        (
            "a terminal's escape",
            Request {
                reason: "\u{1b}[2J".to_owned(),
                ..request(1)
            },
        ),
    ] {
        assert!(waivers.request(&bad, NOW, "user anna").is_err(), "{why}");
    }
    assert_eq!(waivers.list().unwrap(), []);
    assert!(waivers.approve(1, NOW, "bert").is_err());
    waivers.request(&request(1), NOW, "user anna").unwrap();
    let late = waivers.approve(1, after(1), "bert").unwrap_err();
    assert_eq!(late.detail, "waiver 1 is expired");
}

#[test]
fn a_waiver_is_for_a_host_or_for_all_with_its_label() {
    let dir = tempfile::tempdir().unwrap();
    let waivers = open(dir.path());
    let mut host = Host::new("web1", Reach::Offline, NOW);
    host.site = "rome".to_owned();
    host.groups = ["web".to_owned()].into();
    host.tags = ["old".to_owned()].into();
    for (target, wanted) in [
        (Target::Host("web1".to_owned()), true),
        (Target::Host("web2".to_owned()), false),
        (Target::Group("web".to_owned()), true),
        (Target::Group("old".to_owned()), false),
        (Target::Tag("old".to_owned()), true),
        (Target::Tag("web".to_owned()), false),
        (Target::Site("rome".to_owned()), true),
        (Target::Site("oslo".to_owned()), false),
    ] {
        let story = target.to_string();
        let waiver = waivers
            .request(
                &Request {
                    target,
                    ..request(1)
                },
                NOW,
                "user anna",
            )
            .unwrap();
        assert_eq!(waiver.is_for("a", "web1", Some(&host)), wanted, "{story}");
    }
}
