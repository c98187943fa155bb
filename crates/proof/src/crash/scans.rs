//! Rounds of scans: one is killed, and what is recorded is compared with what was told.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use world::{Clock, Disk, RealDisk};

use super::{
    breach::Fault,
    bundle::{self, Bundle},
    dice::Dice,
    process::{Ended, Product},
    record::{Attempt, Flip, Landed, Record, Report},
    site,
    tally::{Phase, Tally},
};

/// Scans in one directory. Some see its making only, some a long record.
const ROUNDS: [u64; 3] = [2, 8, 30];

/// Moments of the past asked for after a kill, and before a directory is given up.
const PAST_ASKED: u64 = 2;
const PAST_ASKED_LAST: u64 = 8;

/// What is scanned, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// By its index.
    Bundle(usize),
    /// This machine.
    Machine,
}

/// What undisturbed scans give, learnt when first needed, in a directory of its own.
#[derive(Debug)]
pub(super) struct Undisturbed {
    dir: PathBuf,
    bundles: Vec<Bundle>,
    /// By index of the bundle; the last one is this machine.
    given: BTreeMap<usize, Arc<Report>>,
    /// How long the last scan took that came to its end, of facts and of this machine.
    replay_took: Duration,
    machine_took: Duration,
}

/// A data directory with the records of a few hosts.
#[derive(Debug)]
pub(super) struct ScanSite {
    dir: PathBuf,
    records: BTreeMap<String, Record>,
    rounds: u64,
    rounds_max: u64,
}

#[derive(Deserialize)]
struct History {
    changes: Vec<Flip>,
}

impl Undisturbed {
    /// Writes the bundles into the sandbox.
    pub(super) fn new(product: &Product, dice: &mut Dice) -> Result<Self, Fault> {
        let bundles = bundle::bundles(dice);
        for bundle in &bundles {
            let path = product.sandbox.join(&bundle.file);
            RealDisk.replace(&path, bundle.facts.to_string().as_bytes())?;
        }
        Ok(Self {
            dir: product.sandbox.join("undisturbed"),
            bundles,
            given: BTreeMap::new(),
            replay_took: Duration::ZERO,
            machine_took: Duration::ZERO,
        })
    }

    pub(super) fn bundles(&self) -> usize {
        self.bundles.len()
    }

    /// What a scan of `source` gives when nothing disturbs it.
    fn report(&mut self, product: &Product, source: Source) -> Result<Arc<Report>, Fault> {
        let index = match source {
            Source::Bundle(index) => index,
            Source::Machine => self.bundles.len(),
        };
        if let Some(report) = self.given.get(&index) {
            return Ok(Arc::clone(report));
        }
        let ended = product.run(&self.dir, &self.words(source))?;
        let report = Arc::new(complete(&ended)?);
        self.came_to_its_end(source, &ended);
        self.given.insert(index, Arc::clone(&report));
        Ok(report)
    }

    fn words(&self, source: Source) -> Vec<&str> {
        match source {
            Source::Bundle(index) => {
                let file = &self.bundles[index].file;
                vec!["scan", "--replay", file, "--output", "json"]
            }
            Source::Machine => vec!["scan", "--no-walk", "--output", "json"],
        }
    }

    /// Keeps how long it took, for the choice of later moments.
    fn came_to_its_end(&mut self, source: Source, ended: &Ended) {
        match source {
            Source::Bundle(_) => self.replay_took = ended.took,
            Source::Machine => self.machine_took = ended.took,
        }
    }

    /// A moment within a scan. Every second one is in its last part: the writing is there.
    fn moment(&self, source: Source, dice: &mut Dice) -> Duration {
        let took = match source {
            Source::Bundle(_) => self.replay_took,
            Source::Machine => self.machine_took,
        };
        let from = if dice.one_in(2) {
            took * 3 / 4
        } else {
            Duration::ZERO
        };
        dice.between(from, took * 21 / 20)
    }
}

impl ScanSite {
    pub(super) fn new(product: &Product, number: u64, dice: &mut Dice) -> Self {
        Self {
            dir: product.sandbox.join(format!("scans-{number}")),
            records: BTreeMap::new(),
            rounds: 0,
            rounds_max: dice.pick(&ROUNDS).copied().unwrap_or(1),
        }
    }

    pub(super) fn is_worn(&self) -> bool {
        self.rounds >= self.rounds_max
    }

    /// Kills a scan and compares everything that can be asked about its host.
    pub(super) fn round(
        &mut self,
        product: &Product,
        undisturbed: &mut Undisturbed,
        source: Source,
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        self.rounds += 1;
        let expected = undisturbed.report(product, source)?;
        let host = expected.host.clone();
        let scan = product.start(&self.dir, &undisturbed.words(source))?;
        let moment = undisturbed.moment(source, dice);
        let ended = scan.kill_after(moment)?;
        if ended.was_killed() {
            tally.kill(Phase::Scan);
        } else {
            tally.late += 1;
            ended.is_orderly()?;
            complete(&ended)?;
            undisturbed.came_to_its_end(source, &ended);
        }
        let attempt = match (Report::in_output(&ended.stdout), source) {
            (Some(told), _) => Attempt::Acknowledged(Arc::new(told)),
            (None, Source::Bundle(_)) => Attempt::Untold(expected),
            (None, Source::Machine) => Attempt::Unseen,
        };
        if dice.one_in(6) {
            self.kill_question(product, &host, dice, tally)?;
        }
        self.settle(product, &host, &attempt, tally)?;
        self.ask_about_the_past(product, &host, PAST_ASKED, dice, tally)?;
        if dice.one_in(4) {
            self.ask_about_others(product, &host, tally)?;
        }
        if dice.one_in(4) {
            self.again(product, undisturbed, source, &host, tally)?;
        }
        Ok(())
    }

    /// Compares the first answer after an attempt, and remembers which way it went.
    fn settle(
        &mut self,
        product: &Product,
        host: &str,
        attempt: &Attempt,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let record = self.records.entry(host.to_owned()).or_default();
        if let Attempt::Acknowledged(told) = attempt {
            record.compare_changes(told)?;
            tally.scans_told += 1;
        }
        let status = status(product, &self.dir, host, None)?;
        let landed = record.settle(attempt, status, now(product))?;
        if !matches!(attempt, Attempt::Acknowledged(_)) {
            tally.landed[usize::from(landed == Landed::NotAtAll)] += 1;
        }
        Ok(())
    }

    /// Kills a question, which opens and recovers like everything else.
    fn kill_question(
        &self,
        product: &Product,
        host: &str,
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let question = product.start(&self.dir, &["status", "--host", host])?;
        // A question takes some tens of milliseconds.
        let delay = dice.between(Duration::ZERO, Duration::from_millis(40));
        let ended = question.kill_after(delay)?;
        if ended.was_killed() {
            tally.kill(Phase::Open);
            return Ok(());
        }
        tally.late += 1;
        ended.is_orderly()
    }

    fn ask_about_the_past(
        &self,
        product: &Product,
        host: &str,
        count: u64,
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let Some(record) = self.records.get(host) else {
            return Ok(());
        };
        let Some(latest) = record.latest() else {
            return Ok(());
        };
        for _ in 0..count {
            if let Some(known) = dice.pick(record.scans()) {
                let then = status(product, &self.dir, host, Some(&known.at))?;
                Record::compare(Some(known), then.as_ref())?;
                tally.past_checked += 1;
            }
        }
        // Any rule may be asked about; those that flip are the ones with something to tell.
        let flipping = bundle::flipping();
        let any = dice.pick(&latest.report.verdicts);
        let any = any.map_or(flipping[0], |verdict| verdict.rule.as_str());
        let flipping = dice.pick(&flipping).copied().unwrap_or(any);
        for rule in [flipping, any] {
            let rows = history(product, &self.dir, host, rule)?;
            record.compare_history(rule, &rows)?;
            tally.past_checked += 1;
        }
        Ok(())
    }

    fn ask_about_others(
        &self,
        product: &Product,
        host: &str,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        for (other, record) in &self.records {
            if other != host {
                let status = status(product, &self.dir, other, None)?;
                Record::compare(record.latest(), status.as_ref())?;
                tally.past_checked += 1;
            }
        }
        Ok(())
    }

    /// The same scan once more, undisturbed: it must work and be there.
    fn again(
        &mut self,
        product: &Product,
        undisturbed: &mut Undisturbed,
        source: Source,
        host: &str,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let ended = product.run(&self.dir, &undisturbed.words(source))?;
        undisturbed.came_to_its_end(source, &ended);
        let told = complete(&ended)?;
        self.settle(product, host, &Attempt::Acknowledged(Arc::new(told)), tally)
    }

    /// Last questions about every host, after which the directory is removed.
    pub(super) fn close(
        self,
        product: &Product,
        dice: &mut Dice,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        self.ask_about_others(product, "", tally)?;
        for host in self.records.keys() {
            self.ask_about_the_past(product, host, PAST_ASKED_LAST, dice, tally)?;
        }
        site::give_up(&self.dir, tally)
    }
}

/// The report of a scan that came to its end.
fn complete(ended: &Ended) -> Result<Report, Fault> {
    let report = Report::in_output(&ended.stdout).filter(|_| ended.code() != Some(2));
    report.ok_or_else(|| ended.breach("scans and prints what it found").into())
}

/// `None` when nothing is recorded of the host, or was by then.
fn status(
    product: &Product,
    dir: &Path,
    host: &str,
    at: Option<&str>,
) -> Result<Option<Report>, Fault> {
    let mut words = vec!["status", "--host", host, "--output", "json"];
    words.extend(at.map(|at| ["--at", at]).into_iter().flatten());
    status_in(&product.run(dir, &words)?)
}

/// The answer of a `status` that ran.
pub(crate) fn status_in(ended: &Ended) -> Result<Option<Report>, Fault> {
    if has_no_record(ended) {
        return Ok(None);
    }
    let report = serde_json::from_slice(&ended.stdout);
    Ok(Some(report.map_err(|_| ended.breach("answers"))?))
}

fn history(product: &Product, dir: &Path, host: &str, rule: &str) -> Result<Vec<Flip>, Fault> {
    let words = ["history", "--host", host, rule, "--output", "json"];
    history_in(&product.run(dir, &words)?)
}

/// The answer of a `history` that ran.
pub(crate) fn history_in(ended: &Ended) -> Result<Vec<Flip>, Fault> {
    if has_no_record(ended) {
        return Ok(Vec::new());
    }
    let history: History =
        serde_json::from_slice(&ended.stdout).map_err(|_| ended.breach("answers"))?;
    Ok(history.changes)
}

/// The errors that say that there is nothing, and not that it cannot be read.
fn has_no_record(ended: &Ended) -> bool {
    let says = |text| ended.stderr.contains(text);
    let nothing = says("error: no scan of host") || says("error: nothing is recorded in");
    ended.code() == Some(2) && (nothing || says("was never judged on host"))
}

/// This moment as `--at` reads it, to the nanosecond.
pub(crate) fn now(product: &Product) -> String {
    let nanos = i128::from(product.clock.now().nanos());
    let at = jiff::Timestamp::from_nanosecond(nanos);
    at.expect("a clock of this century is within the calendar")
        .to_string()
}
