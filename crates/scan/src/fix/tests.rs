//! Fixes against RUL-9, on directories that stand for hosts and a real store.
#![allow(
    clippy::disallowed_methods,
    reason = "tests lay out a host's files and change them behind the back of a fix"
)]

mod crash;
mod host;
mod pack;
mod refused;
mod timed;

use host::{Host, begun, rule};
use world::RealClock;

use super::*;
use crate::{judge::Outcome, rule::Rule};

/// One fix from plan to end, with this store's record.
fn fixed(host: &Host, rule: &Rule, hands: &mut dyn Hands, journal: &mut Fixes) -> (Fix, Ended) {
    let plan = host.plan(rule).unwrap();
    applied(host, rule, &plan, hands, journal)
}

fn applied(
    host: &Host,
    rule: &Rule,
    plan: &Plan,
    hands: &mut dyn Hands,
    journal: &mut Fixes,
) -> (Fix, Ended) {
    let mut facts = || Ok(host.facts(rule));
    let mut site = Site {
        hands,
        journal,
        facts: &mut facts,
        clock: &RealClock::new(),
    };
    // A host of its own has no timer to wait for where the test is not about it.
    let plan = Plan {
        timer_seconds: None,
        ..plan.clone()
    };
    apply(&plan, rule, begun(rule, 7), &mut site).unwrap()
}

fn undone(host: &Host, fix: &mut Fix, journal: &mut Fixes, force: bool) -> Result<Ended, Fault> {
    let mut facts = || unreachable!("undoing judges nothing");
    roll_back(
        fix,
        &mut Site {
            hands: &mut host.hands(),
            journal,
            facts: &mut facts,
            clock: &RealClock::new(),
        },
        force,
    )
}

fn recovered(host: &Host, fix: &mut Fix, journal: &mut Fixes) -> Ended {
    let mut facts = || unreachable!("undoing judges nothing");
    recover(
        fix,
        &mut Site {
            hands: &mut host.hands(),
            journal,
            facts: &mut facts,
            clock: &RealClock::new(),
        },
        false,
    )
}

/// A host on which kernel.kptr_restrict is off, and the rule that wants it on.
fn weak_kptr() -> (Host, Rule) {
    let host = Host::new();
    host.write("/proc/sys/kernel/kptr_restrict", "0\n");
    (host, rule("sysctl-kptr-restrict"))
}

/// Proves: RUL-9
#[test]
fn a_fix_is_kept_when_the_rule_passes_and_its_rollback_restores_every_byte() {
    let (host, rule) = weak_kptr();
    let before = host.picture();
    let mut journal = host.fixes();
    let (mut fix, ended) = fixed(&host, &rule, &mut host.hands(), &mut journal);
    assert_eq!(ended.phase, Phase::Kept, "{}", ended.note);
    assert_eq!(host.read("/proc/sys/kernel/kptr_restrict"), "1\n");
    let file = "/etc/sysctl.d/zz-holdfast-sysctl-kptr-restrict.conf";
    assert!(host.read(file).ends_with("\nkernel.kptr_restrict = 1\n"));
    assert_eq!(journal.list().unwrap(), [fix.clone()]);
    assert_eq!(journal.unfinished().unwrap(), []);

    let ended = undone(&host, &mut fix, &mut journal, false).unwrap();
    assert_eq!(ended.phase, Phase::RolledBack, "{}", ended.note);
    assert_eq!(host.picture(), before);
}

#[test]
fn a_stricter_value_than_asked_is_not_loosened() {
    let (host, rule) = weak_kptr();
    host.write("/proc/sys/kernel/kptr_restrict", "2\n");
    let (_, ended) = fixed(&host, &rule, &mut host.hands(), &mut host.fixes());
    assert_eq!(ended.phase, Phase::Kept, "{}", ended.note);
    assert_eq!(host.read("/proc/sys/kernel/kptr_restrict"), "2\n");

    let host = Host::new();
    host.write("/etc/shadow", "");
    host.mode("/etc/shadow", 0o404);
    let rule = self::rule("shadow-mode");
    let (_, ended) = fixed(&host, &rule, &mut host.hands(), &mut host.fixes());
    assert_eq!(ended.phase, Phase::Kept, "{}", ended.note);
    let mode = host.picture()[&host.at("/etc/shadow")].0;
    assert_eq!(mode & 0o7777, 0o400, "bits are taken, none is given");
}

/// Proves: RUL-9
#[test]
fn a_fix_after_which_the_rule_still_fails_is_undone() {
    let (host, rule) = weak_kptr();
    // Read after ours, so it wins at the next start.
    host.write("/etc/sysctl.d/zzz-admin.conf", "kernel.kptr_restrict = 0\n");
    let before = host.picture();
    let mut journal = host.fixes();
    let (fix, ended) = fixed(&host, &rule, &mut host.hands(), &mut journal);
    assert_eq!(ended.phase, Phase::RolledBack);
    assert!(ended.note.contains("zzz-admin.conf") || ended.note.contains("judged again: fail"));
    assert_eq!(host.picture(), before);
    assert_eq!(journal.list().unwrap(), [fix]);
}

#[test]
fn turning_forwarding_off_leaves_what_the_kernel_moves_along_as_it_was() {
    let host = Host::new();
    for (key, value) in [
        ("ip_forward", "1"),
        ("conf/all/forwarding", "1"),
        ("conf/eth0/forwarding", "1"),
        ("conf/lo/forwarding", "1"),
        ("conf/all/accept_redirects", "0"),
    ] {
        host.write(&format!("/proc/sys/net/ipv4/{key}"), &format!("{value}\n"));
    }
    let rule = rule("ipv4-forwarding-off");
    let plan = host.plan(&rule).unwrap();
    let key = |effect: &Effect| effect.object().map(|(object, _)| object.to_string());
    let kept: Vec<_> = plan
        .effects
        .iter()
        .filter(|e| matches!(e, Effect::Keep { .. }))
        .filter_map(key)
        .collect();
    assert!(
        kept.iter().any(|key| key.ends_with("all.accept_redirects")),
        "{kept:?}"
    );
    assert!(
        matches!(plan.effects.last(), Some(Effect::Hold { .. })),
        "{:?}",
        plan.effects
    );
    assert_eq!(plan.timer_seconds, Some(TIMER_SECONDS));
    let (_, ended) = applied(&host, &rule, &plan, &mut host.hands(), &mut host.fixes());
    assert_eq!(ended.phase, Phase::Kept, "{}", ended.note);
}

#[test]
fn every_phase_and_effect_survives_its_row() {
    let (host, rule) = weak_kptr();
    let mut journal = host.fixes();
    let mut fix = begun(&rule, 1);
    fix.intent.effects = host.plan(&rule).unwrap().effects;
    fix.intent.effects.push(Effect::Run(Action::CheckSshd));
    journal.begin(&fix).unwrap();
    for phase in [
        Phase::Captured,
        Phase::Applying(3),
        Phase::Applied,
        Phase::RollbackFailed,
        Phase::Kept,
    ] {
        fix.progress.phase = phase;
        journal.record(&fix).unwrap();
        assert_eq!(journal.list().unwrap(), [fix.clone()]);
        assert_eq!(journal.unfinished().unwrap().is_empty(), phase.is_final());
    }
}

fn outcome(rule: &Rule, host: &Host) -> Outcome {
    crate::judge::judge([rule], &host.facts(rule))
        .pop()
        .unwrap()
        .verdict
}
