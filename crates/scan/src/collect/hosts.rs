//! The pack against hosts of other systems, made by hand from their documentation
//! (crates/scan/fixtures/hosts): collected from a directory that stands for each, and judged.

use std::sync::Arc;

use world::RealClock;

use super::{collect_only, fixture::Fixture, list};
use crate::{
    collect::Needs,
    judge::{Outcome, Verdict, judge, known_platform},
    rule::Pack,
};

const PASS: Outcome = Outcome::Pass;
const FAIL: Outcome = Outcome::Fail;
const OTHER: Outcome = Outcome::NotApplicable;
const UNKNOWN: Outcome = Outcome::NotAssessed;

/// Later texts replace files of earlier ones.
fn host(texts: &[&str]) -> Fixture {
    let mut host = Fixture::new(&[]);
    for text in texts {
        for section in text.split("\n==").map(|part| part.trim_start_matches("==")) {
            let (head, content) = section.split_once(" <==").expect("a head ends in <==");
            let content = content.trim_start_matches('\n');
            // The line break before the next head was taken by the split.
            let content = if content.is_empty() || content.ends_with('\n') {
                content.to_owned()
            } else {
                format!("{content}\n")
            };
            if let Some(line) = head.strip_prefix("$ ") {
                host = host.prints(line, 0, &content);
                continue;
            }
            let path = head.strip_prefix("> ").expect("a head begins with ==>");
            match (path.split_once(" -> "), path.strip_suffix('/')) {
                (Some((link, target)), _) => host.link(link, target),
                (None, Some(dir)) => host.dir(dir),
                (None, None) => host.write(path, content.as_bytes()),
            }
        }
    }
    host
}

fn judged(platform: &str, texts: &[&str]) -> Vec<Verdict> {
    let rules = Pack::embedded().pack.rules;
    let facts = collect_only(
        list(),
        Arc::new(host(texts).target()),
        Arc::new(Needs::of(&rules)),
        Arc::new(()),
        Arc::new(RealClock::new()),
    );
    assert_eq!(known_platform(&facts), Some(platform));
    judge(&rules, &facts)
}

fn check(platform: &str, texts: &[&str], expected: &[(&str, Outcome)]) -> Vec<Verdict> {
    let verdicts = judged(platform, texts);
    let errors: Vec<String> = verdicts
        .iter()
        .filter(|verdict| verdict.verdict == Outcome::Error)
        .map(|verdict| format!("{}: {}", verdict.rule, verdict.reason))
        .collect();
    assert!(errors.is_empty(), "{platform}: {errors:#?}");
    let mut wrong = Vec::new();
    for (rule, outcome) in expected {
        let verdict = verdicts.iter().find(|verdict| verdict.rule == *rule);
        let verdict = verdict.unwrap_or_else(|| panic!("no rule {rule}"));
        if verdict.verdict != *outcome {
            let (came, why) = (verdict.verdict, &verdict.reason);
            wrong.push(format!("{rule}: wanted {outcome}, came {came}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{platform}: {wrong:#?}");
    verdicts
}

const RHEL: &str = include_str!("../../fixtures/hosts/rhel.host");
const UBUNTU: &str = include_str!("../../fixtures/hosts/ubuntu.host");

/// Proves: RUL-6
#[test]
fn a_hardened_rhel_9_is_judged_by_its_own_paths_and_names() {
    check(
        "rhel-9",
        &[RHEL, include_str!("../../fixtures/hosts/rhel-9.host")],
        &[
            ("apparmor-enabled", OTHER),
            ("auditd-installed", PASS),
            ("authselect-in-use", PASS),
            ("cron-enabled", PASS),
            ("crypto-policy-not-legacy", PASS),
            ("dnf-automatic-enabled", FAIL),
            ("dnf-local-packages-checked", FAIL),
            ("dnf-signatures-required", PASS),
            ("fips-mode-on", OTHER),
            ("firewall-enabled-at-boot", PASS),
            ("firewalld-services-approved", FAIL),
            ("firewalld-zone-not-open", PASS),
            ("kdump-off", FAIL),
            ("login-defs-hash", PASS),
            ("login-failures-allowed", PASS),
            ("login-failures-counted", PASS),
            ("login-lock-duration", PASS),
            ("no-pending-security-updates", OTHER),
            ("no-telnet-server", PASS),
            ("pam-empty-passwords-refused", PASS),
            ("pam-hash-strong", PASS),
            ("password-history-kept", FAIL),
            ("password-length-minimum", PASS),
            ("password-quality-checked", PASS),
            ("selinux-enforcing", PASS),
            ("selinux-not-disabled-at-boot", PASS),
            ("ssh-follows-crypto-policy-rhel-8", OTHER),
            ("ssh-includes-crypto-policy", PASS),
            ("sudo-installed", PASS),
            ("ufw-default-deny", OTHER),
        ],
    );
}

/// rpm would create its environment on this host, so nothing that rests on packages is judged.
///
/// Proves: RUL-6, RUL-4
#[test]
fn a_rebuild_of_rhel_8_as_installed_is_judged_as_rhel_8() {
    let verdicts = check(
        "rhel-8",
        &[RHEL, include_str!("../../fixtures/hosts/rhel-8.host")],
        &[
            ("auditd-installed", UNKNOWN),
            ("authselect-in-use", FAIL),
            ("crypto-policy-not-legacy", FAIL),
            ("crypto-policy-without-sha1", OTHER),
            ("firewalld-zone-not-open", FAIL),
            ("login-failures-allowed", OTHER),
            ("login-failures-counted", FAIL),
            ("no-telnet-server", UNKNOWN),
            ("pam-empty-passwords-refused", FAIL),
            ("password-length-minimum", FAIL),
            ("selinux-enforcing", PASS),
            ("ssh-ciphers-strong", OTHER),
            ("ssh-follows-crypto-policy-rhel-8", PASS),
        ],
    );
    for verdict in verdicts {
        let said = verdict.reason.contains("(rocky counts as rhel-8)");
        // Of a rule for other systems nothing is counted.
        let foreign = verdict.reason.contains("this host is rocky 8.10");
        assert!(
            said != foreign || verdict.reason.ends_with('…'),
            "{}: {}",
            verdict.rule,
            verdict.reason
        );
    }
}

/// Proves: RUL-6
#[test]
fn a_loosened_rhel_10_fails_where_it_was_loosened() {
    check(
        "rhel-10",
        &[RHEL, include_str!("../../fixtures/hosts/rhel-10.host")],
        &[
            ("authselect-in-use", PASS),
            ("crypto-policy-not-legacy", PASS),
            ("crypto-policy-without-sha1", FAIL),
            ("dnf-automatic-enabled", PASS),
            ("dnf-local-packages-checked", PASS),
            ("dnf-servers-authenticated", FAIL),
            ("dnf-signatures-required", FAIL),
            ("login-defs-hash", PASS),
            ("no-telnet-server", FAIL),
            ("selinux-enforcing", FAIL),
            ("selinux-policy-type", PASS),
            ("ssh-includes-crypto-policy", FAIL),
        ],
    );
}

/// Proves: RUL-6
#[test]
fn an_ubuntu_22_as_installed_is_judged_by_its_own_defaults() {
    check(
        "ubuntu-22.04",
        &[
            UBUNTU,
            include_str!("../../fixtures/hosts/ubuntu-22.04.host"),
        ],
        &[
            ("apport-off", FAIL),
            ("auditd-installed", PASS),
            ("dnf-signatures-required", OTHER),
            ("firewall-enabled-at-boot", PASS),
            ("login-failures-counted", FAIL),
            ("motd-news-off", FAIL),
            ("no-popularity-contest", PASS),
            ("no-telnet-server", PASS),
            ("pam-empty-passwords-refused", FAIL),
            ("pam-hash-strong", PASS),
            ("selinux-enforcing", OTHER),
            ("ssh-rsa-size", OTHER),
            ("ubuntu-pro-covers-updates", PASS),
            ("ufw-default-deny", PASS),
            ("unattended-upgrades-covers-security", PASS),
            ("unattended-upgrades-enabled", PASS),
            ("whoopsie-off", PASS),
        ],
    );
}

/// Proves: RUL-6
#[test]
fn an_ubuntu_24_passes_and_fails_where_it_was_changed() {
    check(
        "ubuntu-24.04",
        &[
            UBUNTU,
            include_str!("../../fixtures/hosts/ubuntu-24.04.host"),
        ],
        &[
            ("apport-off", PASS),
            ("apt-sources-not-trusted-blindly", FAIL),
            ("auditd-installed", FAIL),
            ("motd-news-off", PASS),
            ("no-popularity-contest", FAIL),
            ("password-history-kept", PASS),
            ("password-history-length", PASS),
            ("password-length-minimum", PASS),
            ("password-quality-checked", PASS),
            ("ubuntu-pro-covers-updates", OTHER),
            ("ufw-default-deny", FAIL),
        ],
    );
}
