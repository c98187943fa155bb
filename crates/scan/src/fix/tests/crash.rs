//! A fix that ends anywhere: killed, out of space, on a disk that became read-only.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
};

use rustix::io::Errno;

use super::*;

/// Deaths of one fix: far above the moments that any fix of these tests has.
const MOMENTS_MAX: u32 = 400;

/// Ends the process, as far as a test can: nothing after it runs.
struct Fuse(Rc<Cell<u32>>);

impl Fuse {
    fn burn(&self) {
        let left = self.0.get();
        if left == 0 {
            // No hook, no message: this death is meant.
            resume_unwind(Box::new("killed"));
        }
        self.0.set(left - 1);
    }
}

/// Dies before or after any verb that changes something.
struct Mortal<'a> {
    hands: LocalHands,
    fuse: &'a Fuse,
}

impl Hands for Mortal<'_> {
    fn look(&mut self, object: &Object) -> Result<State, Fault> {
        self.hands.look(object)
    }

    fn set(&mut self, tag: &str, object: &Object, from: &State, to: &State) -> Result<(), Fault> {
        self.fuse.burn();
        self.hands.set(tag, object, from, to)?;
        self.fuse.burn();
        Ok(())
    }

    fn run(&mut self, action: &Action) -> Result<(), Fault> {
        self.fuse.burn();
        self.hands.run(action)
    }

    fn id_of(&mut self, account: Account, name: &str) -> Result<Option<u32>, Fault> {
        self.hands.id_of(account, name)
    }

    fn sweep(&mut self, tag: &str, object: &Object) -> Result<(), Fault> {
        self.hands.sweep(tag, object)
    }

    fn arm(&mut self, id: &str, effects: &[Effect], seconds: u64) -> Result<(), Fault> {
        self.hands.arm(id, effects, seconds)
    }

    fn disarm(&mut self, id: &str) -> Result<Disarmed, Fault> {
        self.hands.disarm(id)
    }

    fn knock(&mut self) -> Result<(), Fault> {
        self.hands.knock()
    }
}

struct MortalJournal<'a> {
    fixes: &'a mut Fixes,
    fuse: &'a Fuse,
}

impl Journal for MortalJournal<'_> {
    fn begin(&mut self, fix: &Fix) -> Result<(), Fault> {
        self.fuse.burn();
        self.fixes.begin(fix)?;
        self.fuse.burn();
        Ok(())
    }

    fn record(&mut self, fix: &Fix) -> Result<(), Fault> {
        self.fuse.burn();
        self.fixes.record(fix)?;
        self.fuse.burn();
        Ok(())
    }
}

/// A rule, and what makes a host fail it.
type Case = (&'static str, fn(&Host));

fn many() -> Vec<Case> {
    fn kptr(host: &Host) {
        host.write("/proc/sys/kernel/kptr_restrict", "0\n");
    }
    fn shadow(host: &Host) {
        host.write("/etc/shadow", "root:*:\n");
        host.mode("/etc/shadow", 0o666);
    }
    fn module(host: &Host) {
        host.write("/lib/modules/6.1.0/modules.dep", "kernel/cramfs.ko:\n");
        host.write("/proc/modules", "cramfs 16384 0 - Live 0x0\n");
        // A file of an earlier fix, with other content: replaced, and put back.
        host.write(
            "/etc/modprobe.d/zz-holdfast-module-cramfs-blocked.conf",
            "# mine\n",
        );
    }
    vec![
        ("sysctl-kptr-restrict", kptr),
        ("shadow-mode", shadow),
        ("module-cramfs-blocked", module),
    ]
}

/// One run with a fuse of this length. False when the fix came to its end.
fn dies(host: &Host, rule: &Rule, journal: &mut Fixes, length: u32) -> bool {
    let fuse = Fuse(Rc::new(Cell::new(length)));
    let plan = host.plan(rule).unwrap();
    let inner = Fuse(Rc::clone(&fuse.0));
    let probe = move |_: &'static str| {
        inner.burn();
        Ok(())
    };
    let mut hands = Mortal {
        hands: host.hands().with_probe(Box::new(probe)),
        fuse: &fuse,
    };
    let mut journal = MortalJournal {
        fixes: journal,
        fuse: &fuse,
    };
    let mut facts = || Ok(host.facts(rule));
    catch_unwind(AssertUnwindSafe(|| {
        let mut site = Site {
            hands: &mut hands,
            journal: &mut journal,
            facts: &mut facts,
            clock: &RealClock::new(),
        };
        let plan = Plan {
            timer_seconds: None,
            ..plan
        };
        apply(&plan, rule, begun(rule, length), &mut site).unwrap()
    }))
    .is_err()
}

/// Proves: RUL-9
#[test]
fn a_fix_killed_at_any_moment_is_kept_or_undone_and_never_half() {
    for (id, lay_out) in many() {
        let rule = rule(id);
        let host = Host::new();
        lay_out(&host);
        let before = host.picture();
        let mut journal = host.fixes();
        let mut deaths = 0;
        for length in 0..MOMENTS_MAX {
            if !dies(&host, &rule, &mut journal, length) {
                break;
            }
            deaths += 1;
            let unfinished = journal.unfinished().unwrap();
            if unfinished.is_empty() && host.picture() != before {
                // Killed after the record of keeping it.
                let mut fix = journal.list().unwrap().remove(0);
                assert_eq!(fix.progress.phase, Phase::Kept, "{id} at {length}");
                assert_eq!(outcome(&rule, &host), Outcome::Pass, "{id} at {length}");
                undone(&host, &mut fix, &mut journal, false).unwrap();
            }
            for mut fix in unfinished {
                let ended = recovered(&host, &mut fix, &mut journal);
                assert_eq!(
                    ended.phase,
                    Phase::Recovered,
                    "{id} at {length}: {}",
                    ended.note
                );
            }
            assert_eq!(host.picture(), before, "{id} at {length}");
        }
        assert!((10..MOMENTS_MAX).contains(&deaths), "{id}: {deaths} deaths");
        assert_eq!(
            outcome(&rule, &host),
            Outcome::Pass,
            "{id}: the last run lived"
        );
    }
}

/// The disk refuses one call of a fix, or every call from one on, with this error.
fn refuses(host: &Host, at: u32, for_ever: bool, errno: Errno) -> LocalHands {
    let mut calls = 0;
    let probe = move |_: &'static str| {
        calls += 1;
        if calls == at || for_ever && calls > at {
            Err(errno)
        } else {
            Ok(())
        }
    };
    host.hands().with_probe(Box::new(probe))
}

/// Proves: RUL-9
#[test]
fn a_disk_that_is_full_or_read_only_at_any_call_leaves_no_half_of_a_fix() {
    for (id, lay_out) in many() {
        for (errno, for_ever) in [(Errno::NOSPC, false), (Errno::ROFS, true)] {
            let rule = rule(id);
            let host = Host::new();
            lay_out(&host);
            let before = host.picture();
            let mut journal = host.fixes();
            let mut failures = 0;
            for at in 1..MOMENTS_MAX {
                let mut hands = refuses(&host, at, for_ever, errno);
                let (mut fix, ended) = fixed(&host, &rule, &mut hands, &mut journal);
                match ended.phase {
                    Phase::Kept => break,
                    Phase::RolledBack => {}
                    Phase::RollbackFailed => {
                        assert!(for_ever, "{id} at {at}: {}", ended.note);
                        let ended = recovered(&host, &mut fix, &mut journal);
                        assert_eq!(
                            ended.phase,
                            Phase::Recovered,
                            "{id} at {at}: {}",
                            ended.note
                        );
                    }
                    other => panic!("{id} at {at}: {other}"),
                }
                failures += 1;
                assert_eq!(host.picture(), before, "{id} at {at}");
            }
            assert!(failures > 1, "{id}: {failures}");
        }
    }
}
