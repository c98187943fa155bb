//! What `up` prints while it watches.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use scan::{
    backend::{Dispatched, Reaped},
    collect::Progress,
    executor::Executed,
    failure::Failure,
    fleet::{Access, Watcher, ask},
    ledger::Applied,
};
use world::{Clock, RealClock};

use super::super::scan::{Done, changed_rules, print};
use crate::{
    cli::Output,
    exit::Refusal,
    fleet, moment,
    present::safe,
    progress::Watch,
    ruleset::Ruleset,
    screen::{Screen, complain},
    waived::Waived,
};

/// Changes of one scan that are printed; whoever wants all of them asks `status` or `history`.
const CHANGES_SHOWN: usize = 20;

/// This machine, where it was never scanned: its first scan is shown in full, with a progress bar.
pub(super) struct First {
    pub(super) host: Option<String>,
}

pub(super) struct Show {
    first: Mutex<First>,
    watching: Mutex<Option<String>>,
    bars: Mutex<BTreeMap<String, Arc<Watch>>>,
    /// What was last complained about; said once and not with each attempt.
    trouble: Mutex<Option<String>>,
    access: Arc<dyn Access>,
    rules: Ruleset,
    output: Output,
    screen: Screen,
    stop: Arc<AtomicBool>,
}

impl Show {
    /// `watching` is said once there is nothing left to wait for: at once, or after the first scan.
    pub(super) fn new(
        first: First,
        watching: String,
        access: Arc<dyn Access>,
        rules: Ruleset,
        output: Output,
        screen: Screen,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let mut watching = Some(watching);
        if first.host.is_none()
            && let Some(text) = watching.take()
        {
            screen.remark(text);
        }
        Self {
            first: Mutex::new(first),
            watching: Mutex::new(watching),
            bars: Mutex::default(),
            trouble: Mutex::default(),
            access,
            rules,
            output,
            screen,
            stop,
        }
    }

    /// What is shown beside the verdicts; a report without it is better than none.
    fn waived(&self, host: &str) -> Option<Waived> {
        let (host, now) = (host.to_owned(), RealClock::new().now());
        let waived = ask(self.access.as_ref(), move |opened| {
            Waived::in_slice(opened, &host, now)
        });
        waived
            .map_err(|text| self.trouble(&format!("waivers are not shown: {text}")))
            .ok()
    }

    fn end_progress(&self, host: &str) {
        if let Some(bar) = lock(&self.bars).remove(host) {
            bar.clear();
        }
    }

    fn one(&self, done: &mut Done) -> Result<(), Refusal> {
        let host = &done.recorded.host.clone();
        let mut first = lock(&self.first);
        let is_first = first.host.as_ref() == Some(host);
        if is_first {
            first.host = None;
        }
        // Also of scans that end together, each is printed as a whole: the lock is held.
        if is_first || self.output != Output::Table {
            done.waived = self.waived(host);
            let printed = print(done, &self.rules, self.output, self.screen);
            if is_first {
                self.say_watching();
            }
            return printed.map(drop);
        }
        self.line(done)
    }

    fn say_watching(&self) {
        if let Some(text) = lock(&self.watching).take() {
            self.screen.remark(text);
        }
    }

    fn line(&self, done: &Done) -> Result<(), Refusal> {
        let (scan, applied) = (&done.recorded, &done.applied);
        let score = scan.summary.score.map_or_else(
            || "nothing assessed".to_owned(),
            |score| format!("{score:.1} %"),
        );
        let head = format!(
            "{}  {}  {score}",
            safe(&scan.host),
            moment::local(scan.finished)
        );
        if applied.previous.is_none() {
            return self.screen.result(&format!(
                "{head}  first scan: {} pass, {} fail, {} not assessed",
                scan.summary.pass, scan.summary.fail, scan.summary.not_assessed
            ));
        }
        let changed = changed_rules(applied);
        if changed.is_empty() {
            self.screen.remark(format_args!("{head}  nothing changed"));
            return Ok(());
        }
        if let [change] = changed.as_slice() {
            return self.screen.result(&format!("{head}  {change}"));
        }
        let mut text = format!("{head}  {} changes\n", changed.len());
        for change in changed.iter().take(CHANGES_SHOWN) {
            text.push_str(&format!("  {change}\n"));
        }
        if changed.len() > CHANGES_SHOWN {
            let more = changed.len() - CHANGES_SHOWN;
            let host = safe(&scan.host);
            text.push_str(&format!(
                "  and {more} more: `holdfast status --host {host}`\n"
            ));
        }
        self.screen.result(&text)
    }
}

impl Watcher for Show {
    fn ticked(&self, dispatched: &Dispatched, reaped: &Reaped) {
        lock(&self.trouble).take();
        for host in &reaped.requeued {
            self.screen.remark(format_args!(
                "{}: its last scan was cut short; it is scanned again",
                safe(host)
            ));
        }
        for host in &reaped.given_up {
            complain(&format_args!(
                "{}: given up until its next time: several scans of it were cut short",
                safe(host)
            ));
        }
        if !dispatched.jobs.is_empty() {
            let count = dispatched.jobs.len();
            self.screen.step(format_args!("{count} hosts are due"));
        }
    }

    fn progress(&self, host: &str) -> Arc<dyn Progress> {
        if lock(&self.first).host.as_deref() != Some(host) {
            return Arc::new(());
        }
        let bar = Arc::new(Watch::new(self.screen, Arc::clone(&self.stop)));
        lock(&self.bars).insert(host.to_owned(), Arc::clone(&bar));
        bar
    }

    fn recorded(&self, executed: &Executed, applied: &Applied) {
        self.end_progress(&executed.scan.host);
        let mut done = Done {
            recorded: executed.scan.clone(),
            applied: applied.clone(),
            waived: None,
            system: executed.system.clone(),
        };
        if let Err(refusal) = self.one(&mut done) {
            complain(&refusal);
        }
    }

    fn failed(&self, host: &str, failure: &Failure) {
        self.end_progress(host);
        let at = moment::local(RealClock::new().now());
        complain(&format_args!(
            "{}  {at}  not scanned: {failure}\n  next: {}",
            safe(host),
            fleet::next_step(failure.reason, host)
        ));
        if lock(&self.first).host.as_deref() == Some(host) {
            self.say_watching();
        }
    }

    fn trouble(&self, text: &str) {
        let mut last = lock(&self.trouble);
        if last.as_deref() != Some(text) {
            complain(&text);
            *last = Some(text.to_owned());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
