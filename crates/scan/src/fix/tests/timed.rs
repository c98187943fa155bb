//! The timed rollback, run by the shell of this machine below a directory that stands for a host.

use super::*;

/// Far more than any test takes, in which the script must not fire.
const LATER_SECONDS: u64 = 20;

/// Proves: RUL-9
#[test]
fn a_host_that_nobody_can_reach_any_more_undoes_the_fix_itself() {
    let (host, rule) = weak_kptr();
    host.write("/etc/modprobe.d/own.conf", "it's $(data)\n\0\u{e9}\n");
    let path = "/etc/modprobe.d/own.conf".to_owned();
    let object = Object::File { path };
    let before = host.picture();
    let mut hands = host.hands();
    let mut effects = host.plan(&rule).unwrap().effects;
    effects.push(Effect::Keep {
        before: hands.look(&object).unwrap(),
        object,
    });
    for effect in &effects {
        if let Effect::Set {
            object,
            before,
            after,
        } = effect
        {
            hands.set("t-0", object, before, after).unwrap();
        }
    }
    host.write("/etc/modprobe.d/own.conf", "broken");
    assert_ne!(host.picture(), before);
    hands.arm("t1", &effects, 0).unwrap();
    hands.wait_fired("t1").unwrap();
    assert_eq!(hands.disarm("t1").unwrap(), Disarmed::Fired);
    assert_eq!(host.picture(), before);
}

/// Proves: RUL-9
#[test]
fn the_timed_rollback_is_called_off_after_a_connection_and_only_then() {
    let (host, rule) = weak_kptr();
    let before = host.picture();
    let plan = Plan {
        timer_seconds: Some(LATER_SECONDS),
        ..host.plan(&rule).unwrap()
    };
    let run = |tail, knock: Knock| {
        let mut facts = || Ok(host.facts(&rule));
        let mut hands = host.hands().with_knock(knock);
        let mut journal = host.fixes();
        let mut site = Site {
            hands: &mut hands,
            journal: &mut journal,
            facts: &mut facts,
            clock: &RealClock::new(),
        };
        apply(&plan, &rule, begun(&rule, tail), &mut site)
            .unwrap()
            .1
    };
    let ended = run(1, Box::new(|| Err("connection refused".to_owned())));
    assert_eq!(ended.phase, Phase::RolledBack);
    assert!(ended.note.contains("connection refused"), "{}", ended.note);
    assert_eq!(host.picture(), before);

    let armed = host
        .at("/run/holdfast")
        .join(format!("fix-{}/armed", begun(&rule, 2).id()));
    let ended = run(
        2,
        Box::new(move || {
            assert!(armed.exists(), "armed until somebody got in");
            Ok(())
        }),
    );
    assert_eq!(ended.phase, Phase::Kept, "{}", ended.note);
    assert_ne!(host.picture(), before);
}

/// Proves: RUL-9
#[test]
fn a_timed_rollback_that_won_is_told_and_not_called_a_kept_fix() {
    let (host, rule) = weak_kptr();
    let before = host.picture();
    let plan = Plan {
        timer_seconds: Some(0),
        ..host.plan(&rule).unwrap()
    };
    let mut hands = host.hands();
    let id = begun(&rule, 3).id().to_owned();
    let mut other = host.hands();
    hands = hands.with_knock(Box::new(move || {
        other.wait_fired(&id).map_err(|fault| fault.what)
    }));
    let mut facts = || Ok(host.facts(&rule));
    let mut journal = host.fixes();
    let mut site = Site {
        hands: &mut hands,
        journal: &mut journal,
        facts: &mut facts,
        clock: &RealClock::new(),
    };
    let (_, ended) = apply(&plan, &rule, begun(&rule, 3), &mut site).unwrap();
    assert_eq!(ended.phase, Phase::RolledBack, "{}", ended.note);
    assert_eq!(host.picture(), before);
}

#[test]
fn logins_are_guarded_and_nothing_else() {
    let cuts = |id: &str, lay_out: &dyn Fn(&Host)| {
        let host = Host::new();
        lay_out(&host);
        host.plan(&rule(id)).unwrap().timer_seconds.is_some()
    };
    assert!(cuts("shadow-mode", &|host| {
        host.write("/etc/shadow", "");
        host.mode("/etc/shadow", 0o666);
    }));
    assert!(cuts("ssh-max-auth-tries", &|host| {
        host.write("/usr/sbin/sshd", "");
        host.write("/etc/ssh/sshd_config", "MaxAuthTries 6\n");
    }));
    assert!(!cuts("sysctl-kptr-restrict", &|host| {
        host.write("/proc/sys/kernel/kptr_restrict", "0\n");
    }));
}
