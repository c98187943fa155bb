//! What scans raise and end.

use super::*;
use Outcome::{Fail, NotApplicable, NotAssessed, Pass};

/// Proves: LED-12
#[test]
fn a_first_scan_is_a_baseline_and_one_notice_a_host() {
    let site = Site::new();
    let rules: Vec<String> = (0..40)
        .map(|number| format!("{}-{number}", if number < 10 { "critical" } else { "high" }))
        .collect();
    let verdicts: Vec<(&str, Outcome)> = rules.iter().map(|rule| (rule.as_str(), Fail)).collect();
    for host in 0..200 {
        site.scan(&format!("host-{host}"), &verdicts);
    }
    while site.look().is_more {}
    let told = site.told("r");
    assert_eq!(told.len(), 200, "of 8,000 findings");
    assert!(
        told.iter().all(|line| line == "opened findings_baseline -"),
        "{told:?}"
    );
    let first = &site.all()[0];
    assert_eq!(first.severity, Severity::Critical);
    assert!(
        first.detail.contains("10 critical and 30 high"),
        "{}",
        first.detail
    );
    assert!(first.detail.contains("and 35 more"), "{}", first.detail);
}

/// Proves: LED-12
#[test]
fn what_got_worse_is_told_once_and_is_over_when_it_is_mended() {
    let site = Site::new();
    site.score("a", 100, 0);
    site.score("a", 95, 5);
    site.look();
    assert_eq!(site.lines(), ["drift_minor - open 1"]);
    assert!(
        site.all()[0]
            .detail
            .starts_with("score 95.0 after 100.0: rule-95, ")
    );
    site.score("a", 85, 15);
    site.look();
    // Nothing changed: nothing is told again.
    site.score("a", 85, 15);
    site.look();
    assert_eq!(
        site.lines(),
        ["drift_minor - open 1", "drift_major - open 1"]
    );
    // The ten of the major one are mended, and not the five of the minor one.
    site.score("a", 95, 5);
    site.look();
    assert_eq!(
        site.lines(),
        [
            "drift_minor - open 1",
            "drift_major - resolved 1",
            "drift_improvement - resolved 1"
        ]
    );
    site.score("a", 100, 0);
    site.look();
    assert_eq!(
        site.told("r"),
        [
            "opened drift_minor -",
            "opened drift_major -",
            "opened drift_improvement -, resolved drift_major -",
            // Within the hour, the same announcement is not repeated.
            "resolved drift_minor -",
        ]
    );
}

/// Proves: LED-12
#[test]
fn a_new_grave_finding_is_told_with_its_scan_and_ends_with_its_failure() {
    let site = Site::new();
    let rules = |critical, high, medium| {
        [
            ("critical-1", critical),
            ("high-1", high),
            ("plain-1", medium),
            ("plain-2", Pass),
        ]
    };
    site.scan("a", &rules(Pass, Pass, Pass));
    site.look();
    assert_eq!(site.lines(), [""; 0], "nothing is wrong");
    site.scan("a", &rules(Fail, Fail, Fail));
    site.look();
    assert_eq!(
        site.told("r"),
        ["opened finding_critical critical-1, opened finding_high high-1, opened drift_major -"],
        "one notice for one scan, worst first"
    );
    // Out of sight is not out of the world.
    site.scan("a", &rules(NotAssessed, Fail, Fail));
    site.scan("a", &rules(Fail, Fail, Fail));
    site.look();
    assert_eq!(site.told("r"), [""; 0]);
    site.scan("a", &rules(NotApplicable, Pass, Fail));
    site.look();
    assert_eq!(
        site.lines(),
        [
            "finding_critical critical-1 resolved 1",
            "finding_high high-1 resolved 1",
            "drift_major - open 1",
            "drift_improvement - resolved 1",
        ],
    );
    // A rule that leaves the pack takes its alerts with it.
    site.scan("a", &rules(NotApplicable, Pass, Fail)[..2]);
    site.look();
    assert_eq!(site.all()[2].state, State::Resolved);
}

#[test]
fn the_baseline_is_over_when_all_of_it_is_mended_and_tells_none_of_it_twice() {
    let site = Site::new();
    site.scan("a", &[("critical-1", Fail), ("high-1", Fail), ("p", Pass)]);
    site.scan(
        "a",
        &[("critical-1", NotAssessed), ("high-1", Fail), ("p", Pass)],
    );
    site.scan("a", &[("critical-1", Fail), ("high-1", Fail), ("p", Pass)]);
    site.look();
    assert_eq!(site.lines(), ["findings_baseline - open 1"]);
    site.scan("a", &[("critical-1", Pass), ("high-1", Fail), ("p", Pass)]);
    site.look();
    assert_eq!(site.all()[0].state, State::Open);
    // What was mended and fails again is a finding of its own.
    site.scan("a", &[("critical-1", Fail), ("high-1", Pass), ("p", Pass)]);
    site.look();
    let all = site.all();
    assert_eq!(all[0].state, State::Resolved);
    assert!(
        site.lines()
            .contains(&"finding_critical critical-1 open 1".to_owned())
    );
}

/// Proves: LED-12
#[test]
fn another_rule_pack_is_no_drift_of_any_host() {
    let site = Site::new();
    let verdicts = |verdict| -> Vec<(&'static str, Outcome)> {
        ["a-1", "a-2", "a-3", "a-4"]
            .map(|rule| (rule, verdict))
            .to_vec()
    };
    site.scan_by("a", &verdicts(Pass), "version 1");
    site.scan_by("a", &verdicts(Fail), "version 2");
    site.look();
    // The evidence of the two differs, so that host and rule changed, and it cannot be told apart.
    assert_eq!(site.lines(), [""; 0]);
    site.scan_by("a", &verdicts(Pass), "version 2");
    site.look();
    assert_eq!(site.lines(), ["drift_improvement - resolved 1"]);
}

#[test]
fn a_waived_finding_is_silent_for_as_long_as_its_waiver_holds() {
    let site = Site::new();
    site.scan("a", &[("critical-1", Pass), ("p", Pass)]);
    let waivers = Waivers::new(site.store.clone()).unwrap();
    let request = Request {
        rule: "critical-1".to_owned(),
        target: Target::Host("a".to_owned()),
        owner: "olga".to_owned(),
        reason: "it is replaced next week".to_owned(),
        expires: site.now().plus(HOUR * 48),
    };
    let waiver = waivers.request(&request, site.now(), "otto").unwrap();
    waivers.approve(waiver.id, site.now(), "anna").unwrap();
    site.scan("a", &[("critical-1", Fail), ("p", Pass)]);
    site.look();
    assert!(
        site.lines()
            .contains(&"finding_critical critical-1 silenced 1".to_owned())
    );
    assert_eq!(site.told("r"), ["opened drift_major -"]);
    site.wait(HOUR);
    site.look();
    assert_eq!(site.told("r"), [""; 0]);
    waivers
        .revoke(waiver.id, "it is not replaced", site.now(), "anna")
        .unwrap();
    site.look();
    assert_eq!(
        site.told("r"),
        ["silence_ended finding_critical critical-1"]
    );
}

#[test]
fn a_receiver_is_told_of_what_it_asked_for_only() {
    let mut site = Site::new();
    site.add_host("a", &["web"]);
    let with = |change: fn(&mut Receiver), name: &str| {
        let mut it = receiver(name);
        change(&mut it);
        it
    };
    site.receivers = vec![
        with(|it| it.minimum = Severity::Critical, "critical"),
        with(|it| it.kinds = [Kind::DriftMajor].into(), "drift"),
        with(|it| it.groups = ["web".to_owned()].into(), "web"),
        with(|it| it.groups = ["db".to_owned()].into(), "db"),
        with(|it| it.hosts = ["b".to_owned()].into(), "b"),
        with(|it| it.resolved = false, "open"),
    ];
    site.scan("a", &[("critical-1", Pass), ("p", Pass)]);
    site.scan("a", &[("critical-1", Fail), ("p", Pass)]);
    site.scan("a", &[("critical-1", Pass), ("p", Pass)]);
    site.look();
    let all = [
        "opened finding_critical critical-1, opened drift_major -",
        "opened drift_improvement -, resolved finding_critical critical-1, resolved drift_major -",
    ];
    assert_eq!(site.told("web"), all);
    assert_eq!(
        site.told("critical"),
        [
            "opened finding_critical critical-1",
            "resolved finding_critical critical-1"
        ]
    );
    assert_eq!(
        site.told("drift"),
        ["opened drift_major -", "resolved drift_major -"]
    );
    assert_eq!(site.told("open"), [all[0], "opened drift_improvement -"]);
    assert_eq!(site.told("db"), [""; 0]);
    assert_eq!(site.told("b"), [""; 0]);
}

#[test]
fn where_nobody_looks_the_list_of_scans_is_bounded() {
    let site = Site::new();
    for _ in 0..crate::ledger::RECENT_MAX + 9 {
        site.scan("a", &[("p", Pass)]);
    }
    assert_eq!(site.look().scans, crate::ledger::RECENT_MAX);
    assert_eq!(site.look().scans, 0);
}
