//! Doing a fix, undoing it, and cleaning up after a crash.
//!
//! Order, and what a crash after each leaves: the intent is on record before anything is looked at;
//! the timed rollback is armed before the first effect; each effect is on record before it is done;
//! the timed rollback is called off before `kept` is on record, never after it, or a host would undo
//! what the record calls kept. [`recover`] may therefore undo whatever is not `kept`.

use std::{fmt, mem};

use world::Clock;

use super::{
    Action, Disarmed, Effect, Fault, FaultKind, Fix, Hands, Intent, Journal, Object, Phase, Plan,
    Progress, State,
};
use crate::{facts::Facts, judge, judge::Outcome, rule::Rule};

/// Seconds after which a host undoes by itself a fix that could cut it off. Long enough for a slow
/// check and a connection over a bad line, short enough to wait for.
pub const TIMER_SECONDS: u64 = 120;

/// Everything a fix works with.
pub struct Site<'a> {
    pub hands: &'a mut dyn Hands,
    pub journal: &'a mut dyn Journal,
    /// Fresh facts of the host, at least what the rule asks about.
    pub facts: &'a mut dyn FnMut() -> Result<Facts, Fault>,
    pub clock: &'a dyn Clock,
}

impl fmt::Debug for Site<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Site")
    }
}

/// How a fix ended, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub phase: Phase,
    pub note: String,
}

/// Does what `plan` says on `host`, and keeps it if the rule passes afterwards. Whatever goes wrong
/// after the first record is undone and told as an [`Ended`], not as an error.
///
/// # Errors
/// Nothing was touched: the host has an unfinished fix, or the record cannot be written.
pub fn apply(
    plan: &Plan,
    rule: &Rule,
    mut fix: Fix,
    site: &mut Site<'_>,
) -> Result<(Fix, Ended), Fault> {
    fix.intent.effects.clone_from(&plan.effects);
    fix.intent.timer_seconds = plan.timer_seconds;
    site.journal.begin(&fix)?;
    let ended = match go_on(rule, &mut fix, site) {
        Ok(note) => Ended {
            phase: Phase::Kept,
            note,
        },
        Err(fault) => undo(&mut fix, site, &fault.what, Phase::RolledBack, false),
    };
    Ok((fix, ended))
}

fn go_on(rule: &Rule, fix: &mut Fix, site: &mut Site<'_>) -> Result<String, Fault> {
    for effect in &fix.intent.effects {
        if let Some((object, before)) = effect.object() {
            must_be(&site.hands.look(object)?, before, object)?;
        }
    }
    advance(fix, site, Phase::Captured)?;
    if let Some(seconds) = fix.intent.timer_seconds {
        site.hands
            .arm(&fix.intent.id, &fix.intent.effects, seconds)?;
    }
    for step in 0..fix.intent.effects.len() {
        advance(fix, site, Phase::Applying(step))?;
        match &fix.intent.effects[step] {
            Effect::Set {
                object,
                before,
                after,
            } => site
                .hands
                .set(&tag(&fix.intent, step), object, before, after)?,
            Effect::Keep { .. } => {}
            Effect::Hold { .. } => put_back(fix, site.hands, step, true, false)?,
            Effect::Run(action) => site.hands.run(action)?,
        }
    }
    advance(fix, site, Phase::Applied)?;
    let note = passes(rule, &(site.facts)()?)?;
    fix.progress.left = left(fix, site)?;
    if fix.intent.timer_seconds.is_some() {
        site.hands.knock()?;
        if site.hands.disarm(&fix.intent.id)? == Disarmed::Fired {
            let what = "the timed rollback had begun before a connection was made";
            return Err(Fault::new(FaultKind::Check, what));
        }
    }
    fix.progress.note.clone_from(&note);
    advance(fix, site, Phase::Kept)?;
    Ok(note)
}

fn passes(rule: &Rule, facts: &Facts) -> Result<String, Fault> {
    let verdict = judge::judge([rule], facts)
        .pop()
        .ok_or_else(|| Fault::new(FaultKind::Check, "the rule was not judged"))?;
    if verdict.verdict == Outcome::Pass {
        return Ok(verdict.reason);
    }
    let what = format!("judged again: {}: {}", verdict.verdict, verdict.reason);
    Err(Fault::new(FaultKind::Check, what))
}

fn left(fix: &Fix, site: &mut Site<'_>) -> Result<Vec<Option<State>>, Fault> {
    let effects = fix.intent.effects.iter();
    effects
        .map(|effect| match effect.object() {
            Some((object, _)) => site.hands.look(object).map(Some),
            None => Ok(None),
        })
        .collect()
}

/// Undoes a fix that was kept. Refused, with nothing touched, when one of its objects was changed
/// since, unless `force`.
///
/// # Errors
/// Nothing was touched, for the reason given.
pub fn roll_back(fix: &mut Fix, site: &mut Site<'_>, force: bool) -> Result<Ended, Fault> {
    let known = fix.progress.phase == Phase::Kept || fix.progress.phase == Phase::RollbackFailed;
    if !known {
        let what = format!("fix {} is {}", fix.id(), fix.progress.phase);
        return Err(Fault::new(FaultKind::NotFixable, what));
    }
    if !force {
        for (effect, left) in fix.intent.effects.iter().zip(&fix.progress.left) {
            let (Effect::Set { object, .. }, Some(left)) = (effect, left) else {
                continue;
            };
            must_be(&site.hands.look(object)?, left, object)?;
        }
    }
    let last = fix.intent.effects.len().saturating_sub(1);
    fix.progress.phase = Phase::Applying(last);
    fix.progress.changed = site.clock.now().nanos();
    site.journal.begin(fix)?;
    Ok(undo(fix, site, "asked for", Phase::RolledBack, force))
}

/// Undoes what a crash left of a fix.
pub fn recover(fix: &mut Fix, site: &mut Site<'_>, force: bool) -> Ended {
    let note = format!("interrupted while {}", fix.progress.phase);
    undo(fix, site, &note, Phase::Recovered, force)
}

/// Puts back what was captured, the last effect first, and looks whether it is so.
fn undo(fix: &mut Fix, site: &mut Site<'_>, why: &str, good: Phase, force: bool) -> Ended {
    let begun = match fix.progress.phase {
        // The record of the phase may be the one that was lost; looking costs little.
        Phase::Planned | Phase::Captured => 0,
        Phase::Applying(step) => step + 1,
        _ => fix.intent.effects.len(),
    };
    let mut faults = Vec::new();
    if fix.intent.timer_seconds.is_some()
        && let Err(fault) = site.hands.disarm(&fix.intent.id)
    {
        faults.push(fault.what);
    }
    for step in (0..begun).rev() {
        if let Err(fault) = put_back(fix, site.hands, step, step + 1 == begun, force) {
            faults.push(fault.what);
        }
    }
    let effects = &fix.intent.effects[..begun];
    for effect in effects {
        if let Effect::Run(action @ Action::Reload { .. }) = effect
            && let Err(fault) = site.hands.run(action)
        {
            faults.push(fault.what);
        }
    }
    for (object, before) in effects.iter().filter_map(Effect::object) {
        let found = site
            .hands
            .look(object)
            .and_then(|now| must_be(&now, before, object));
        if let Err(fault) = found
            && !faults.contains(&fault.what)
        {
            faults.push(fault.what);
        }
    }
    let phase = if faults.is_empty() {
        good
    } else {
        Phase::RollbackFailed
    };
    faults.insert(0, why.to_owned());
    fix.progress.note = faults.join("; ");
    if let Err(fault) = advance(fix, site, phase) {
        // The objects are back; only the record says otherwise, and `recover` mends that.
        fix.progress.note = format!("{}; {}", fix.progress.note, fault.what);
    }
    Ended {
        phase,
        note: fix.progress.note.clone(),
    }
}

/// `under_way`: the object may be in a state of neither side. `force`: whatever state it is in.
fn put_back(
    fix: &Fix,
    hands: &mut dyn Hands,
    step: usize,
    under_way: bool,
    force: bool,
) -> Result<(), Fault> {
    let tag = tag(&fix.intent, step);
    match &fix.intent.effects[step] {
        Effect::Run(_) => Ok(()),
        Effect::Keep { object, before } | Effect::Hold { object, before } => {
            let now = hands.look(object)?;
            if now.same(before) {
                return Ok(());
            }
            hands.set(&tag, object, &now, before)
        }
        Effect::Set {
            object,
            before,
            after,
        } => {
            hands.sweep(&tag, object)?;
            let now = hands.look(object)?;
            if now.same(before) {
                return Ok(());
            }
            let left = fix.progress.left.get(step).and_then(Option::as_ref);
            let ours = now.same(after) || left.is_some_and(|left| now.same(left));
            // A file is replaced whole: it is never between two states.
            let between = under_way && !matches!(object, Object::File { .. });
            if ours || between || force {
                return hands.set(&tag, object, &now, before);
            }
            Err(changed(object))
        }
    }
}

fn advance(fix: &mut Fix, site: &mut Site<'_>, phase: Phase) -> Result<(), Fault> {
    let next = Progress {
        phase,
        changed: site.clock.now().nanos(),
        ..fix.progress.clone()
    };
    let previous = mem::replace(&mut fix.progress, next);
    site.journal
        .record(fix)
        .inspect_err(|_| fix.progress = previous)
}

fn must_be(now: &State, wanted: &State, object: &Object) -> Result<(), Fault> {
    if now.same(wanted) {
        Ok(())
    } else {
        Err(changed(object))
    }
}

pub(super) fn changed(object: &Object) -> Fault {
    let what = format!("{object} was changed by somebody else");
    Fault::new(FaultKind::Changed, what)
}

/// Names one effect of one fix on the host.
fn tag(intent: &Intent, step: usize) -> String {
    format!("{}-{step}", intent.id)
}
