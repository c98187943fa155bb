//! What a machine's processes acknowledged, over all its losses of power, and the comparison with
//! what is there.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    bench::{Bench, Planned},
    events::Events,
    log::Log,
    machine::End,
    rot,
};
use crate::crash::{
    acks::{Acks, Checked},
    breach::Fault,
    bundle::{self, Bundle},
    dice::Dice,
    process::Ended,
    record::{Attempt, Record, Report},
    scans,
};

/// Writers of a load, and commits of each.
const WRITERS: [u8; 4] = [1, 2, 4, 8];
const COMMITS: [u64; 4] = [1, 5, 20, 60];

/// Losses of power in a row, at most.
const ENDS_MAX: u64 = 4;

/// Moments of the past asked for in the end.
const PAST_ASKED: u64 = 2;

/// What a run counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) runs: u64,
    pub(super) processes: u64,
    pub(super) calls: u64,
    pub(super) losses: u64,
    pub(super) deaths: u64,
    pub(super) records: u64,
    pub(super) scans: u64,
    pub(super) events: u64,
    pub(super) checks: u64,
    /// Processes in strict mode.
    pub(super) strict: u64,
    /// Segments changed behind the product's back, and how many of them it refused.
    pub(super) rots: u64,
    pub(super) refusals: u64,
}

/// Everything told in one run.
#[derive(Clone, Debug)]
pub(super) struct History {
    acks: Acks,
    records: BTreeMap<String, Record>,
    /// The last scan of a host, when nobody has asked since whether it is there.
    open: BTreeMap<String, Attempt>,
    bundles: Vec<(Bundle, String)>,
    events: Events,
    pub(super) counts: Counts,
}

/// What is done while calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    FirstLoad,
    Load,
    FirstScan,
    Scan,
}

/// The host of the first bundles.
const FIRST_HOST: &str = bundle::HOSTS[0];

impl Subject {
    pub(super) const ALL: [Self; 4] = [Self::FirstLoad, Self::Load, Self::FirstScan, Self::Scan];

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::FirstLoad => "a load that makes its directory",
            Self::Load => "a load that goes on",
            Self::FirstScan => "a scan that makes the directory",
            Self::Scan => "a later scan",
        }
    }
}

/// What a process tells, if it comes to it.
#[derive(Debug)]
enum Telling<'e> {
    Load {
        writers: u8,
    },
    Scan {
        host: &'e str,
        report: Arc<Report>,
        stdout: &'e [u8],
    },
    Answer {
        host: &'e str,
        ended: &'e Ended,
    },
    Events {
        numbers: Vec<u64>,
    },
    Nothing,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Load,
    Check,
    Scan,
    Status,
    Events,
}

impl History {
    /// Writes what the scans of a run look at.
    pub(super) fn new(bench: &Bench<'_>, dice: &mut Dice) -> Result<Self, Fault> {
        let mut bundles = Vec::new();
        for bundle in bundle::bundles(dice) {
            let path = bench.write(&bundle.file, bundle.facts.to_string().as_bytes())?;
            bundles.push((bundle, path));
        }
        Ok(Self {
            acks: Acks::default(),
            records: BTreeMap::new(),
            open: BTreeMap::new(),
            bundles,
            events: Events::default(),
            counts: Counts::default(),
        })
    }

    /// Some processes and their ends, then everything compared.
    pub(super) fn run(&mut self, bench: &mut Bench<'_>, dice: &mut Dice) -> Result<(), Fault> {
        self.counts.runs = 1;
        let ends = 1 + dice.below(ENDS_MAX);
        for number in 1..=ends {
            let step = match dice.below(14) {
                0..5 => Step::Load,
                5..6 => Step::Check,
                6..9 => Step::Scan,
                9..13 => Step::Events,
                _ => Step::Status,
            };
            // What a sync after a mere death is for, only such a death shows.
            let deaths = if bench.is_handicapped() { 2 } else { 4 };
            let loses_power = number == ends || !dice.one_in(deaths);
            self.step(bench, step, loses_power, dice)?;
        }
        self.counts.strict = bench.strict_processes();
        self.compare(bench, dice)?;
        if bench.is_handicapped() {
            return Ok(());
        }
        self.rot(bench, dice)
    }

    /// What is closed in order and rots then is refused, or all of it is served. Nothing can follow.
    fn rot(&mut self, bench: &Bench<'_>, dice: &mut Dice) -> Result<(), Fault> {
        let with_load = !self.acks.text().is_empty();
        let with_events = !self.events.is_empty();
        for (is_there, below) in [(with_load, "load/journal"), (with_events, "events/journal")] {
            if !is_there {
                continue;
            }
            let dir = bench.data().join(below);
            let place = dir.display().to_string();
            let verified = bench.ask(&["journal", "verify", &place, "--output", "json"])?;
            if !rot::is_settled(&verified)? {
                continue;
            }
            let Some(spoilt) = rot::spoil(&dir, dice)? else {
                continue;
            };
            self.counts.rots += 1;
            let acks = bench.write("acks", self.acks.text())?;
            let of_load = ["load", "check", &acks, "--output", "json"];
            let of_events = ["events", "query", "--output", "json"];
            let words = if below == "load/journal" {
                &of_load[..]
            } else {
                &of_events[..]
            };
            let ended = bench.ask(words)?;
            if rot::is_refused(&ended, &spoilt)? {
                self.counts.refusals += 1;
            } else if below == "load/journal" {
                self.compare_acks(&ended)?;
            } else {
                self.events.compare(&ended.stdout)?;
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        bench: &mut Bench<'_>,
        step: Step,
        loses_power: bool,
        dice: &mut Dice,
    ) -> Result<(), Fault> {
        match step {
            Step::Load => {
                let writers = dice.pick(&WRITERS).copied().unwrap_or(1);
                let commits = dice.pick(&COMMITS).copied().unwrap_or(1).to_string();
                let count = writers.to_string();
                let words = [
                    "load",
                    "run",
                    "--quiet",
                    "--writers",
                    &count,
                    "--commits",
                    &commits,
                ];
                let (ended, log) = bench.run(&words, None)?;
                if ended.code() != Some(0) {
                    return Err(ended.breach("opens and writes").into());
                }
                let telling = Telling::Load { writers };
                self.end(bench, &log, &telling, loses_power, dice)?;
            }
            Step::Check => {
                let acks = bench.write("acks", self.acks.text())?;
                let words = ["load", "check", &acks, "--output", "json"];
                let (ended, log) = bench.run(&words, None)?;
                self.compare_acks(&ended)?;
                self.end(bench, &log, &Telling::Nothing, loses_power, dice)?;
            }
            Step::Scan => self.scan(bench, loses_power, dice)?,
            Step::Events => {
                let more = dice.pick(&COMMITS).copied().unwrap_or(1);
                let numbers = self.events.next(more);
                let lines = bench.write("lines", Events::lines(&numbers).as_bytes())?;
                let words = ["events", "append", "-"];
                let (ended, log) = bench.run_with(&words, None, Some(Path::new(&lines)))?;
                if ended.code() != Some(0) {
                    return Err(ended.breach("opens and keeps events").into());
                }
                let telling = Telling::Events { numbers };
                self.end(bench, &log, &telling, loses_power, dice)?;
            }
            Step::Status => {
                let host = dice.pick(&bundle::HOSTS).copied().unwrap_or_default();
                self.status(bench, host, loses_power, dice)?;
            }
        }
        Ok(())
    }

    fn ask_status(&self, bench: &mut Bench<'_>, host: &str) -> Result<(Ended, Log), Fault> {
        bench.run(&["status", "--host", host, "--output", "json"], None)
    }

    fn status(
        &mut self,
        bench: &mut Bench<'_>,
        host: &str,
        loses_power: bool,
        dice: &mut Dice,
    ) -> Result<(), Fault> {
        let (ended, log) = self.ask_status(bench, host)?;
        let telling = Telling::Answer {
            host,
            ended: &ended,
        };
        self.end(bench, &log, &telling, loses_power, dice)
    }

    fn scan(
        &mut self,
        bench: &mut Bench<'_>,
        loses_power: bool,
        dice: &mut Dice,
    ) -> Result<(), Fault> {
        let (bundle, path) = dice.pick(&self.bundles).expect("there are bundles").clone();
        let host = bundle.facts["host"]["hostname"]
            .as_str()
            .unwrap_or_default();
        if self.open.contains_key(host) {
            // Of two unsettled scans nobody could tell which one an answer is about.
            let (ended, log) = self.ask_status(bench, host)?;
            let cut = log.entries.len();
            bench.ends(&log, End::Death { cut })?;
            self.settle(bench, host, &ended)?;
        }
        let words = ["scan", "--replay", &path, "--output", "json"];
        let (ended, log) = bench.run(&words, None)?;
        let report = Report::in_output(&ended.stdout).filter(|_| ended.code() != Some(2));
        let Some(report) = report else {
            return Err(ended.breach("scans and prints what it found").into());
        };
        let telling = Telling::Scan {
            host,
            report: Arc::new(report),
            stdout: &ended.stdout,
        };
        self.end(bench, &log, &telling, loses_power, dice)
    }

    /// Does what must be there before a subject: nothing for a first start.
    pub(super) fn prepare(&mut self, bench: &mut Bench<'_>, subject: Subject) -> Result<(), Fault> {
        if matches!(subject, Subject::FirstLoad | Subject::FirstScan) {
            return Ok(());
        }
        for before in [Subject::FirstLoad, Subject::FirstScan] {
            let words = self.words(before);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let (ended, log) = bench.run(&words, None)?;
            let cut = log.entries.len();
            bench.ends(&log, End::Death { cut })?;
            self.take_all(bench, before, &ended, &log)?;
            if before == Subject::FirstScan {
                let (ended, log) = self.ask_status(bench, FIRST_HOST)?;
                let cut = log.entries.len();
                bench.ends(&log, End::Death { cut })?;
                self.settle(bench, FIRST_HOST, &ended)?;
            }
        }
        Ok(())
    }

    fn words(&self, subject: Subject) -> Vec<String> {
        let words: &[&str] = match subject {
            Subject::FirstLoad | Subject::Load => &[
                "load",
                "run",
                "--quiet",
                "--writers",
                "2",
                "--commits",
                "20",
            ],
            Subject::FirstScan => &["scan", "--replay", &self.bundles[0].1, "--output", "json"],
            Subject::Scan => &["scan", "--replay", &self.bundles[1].1, "--output", "json"],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn take_all(
        &mut self,
        bench: &Bench<'_>,
        subject: Subject,
        ended: &Ended,
        log: &Log,
    ) -> Result<(), Fault> {
        let telling = match subject {
            Subject::FirstLoad | Subject::Load => Telling::Load { writers: 2 },
            Subject::FirstScan | Subject::Scan => match Report::in_output(&ended.stdout) {
                Some(report) => Telling::Scan {
                    host: FIRST_HOST,
                    report: Arc::new(report),
                    stdout: &ended.stdout,
                },
                None => {
                    self.open.insert(FIRST_HOST.to_owned(), Attempt::Unseen);
                    return Ok(());
                }
            },
        };
        self.take_in(bench, log, log.entries.len(), &telling)
    }

    /// A process in which one call fails, and what is there afterwards. `None` when it made no call
    /// of that number, else whether it ended with an error.
    pub(super) fn suffer(
        &mut self,
        bench: &mut Bench<'_>,
        subject: Subject,
        planned: Planned,
        dice: &mut Dice,
    ) -> Result<Option<bool>, Fault> {
        let words = self.words(subject);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (ended, log) = bench.run(&words, Some(planned))?;
        if !log.entries.iter().any(|entry| entry.injected) {
            return Ok(None);
        }
        let refused = ended.code() == Some(2);
        if refused && !ended.stderr.contains("error") {
            return Err(ended.breach("says why it failed").into());
        }
        let cut = log.entries.len();
        let end = if dice.one_in(4) {
            End::Death { cut }
        } else {
            End::Power {
                cut,
                seed: dice.next(),
            }
        };
        bench.ends(&log, end)?;
        self.take_all(bench, subject, &ended, &log)?;
        let wanted = matches!(subject, Subject::FirstLoad | Subject::Load);
        if wanted && !refused && !self.acks.count().is_multiple_of(40) {
            return Err(ended.breach("tells of every commit, or of an error").into());
        }
        self.compare(bench, dice)?;
        Ok(Some(refused))
    }

    /// Ends a process at a moment that the dice choose.
    fn end(
        &mut self,
        bench: &mut Bench<'_>,
        log: &Log,
        telling: &Telling<'_>,
        loses_power: bool,
        dice: &mut Dice,
    ) -> Result<(), Fault> {
        for cut in bench.moments(log, dice) {
            let seed = dice.next();
            let mut fork = bench.fork(log, End::Power { cut, seed })?;
            let mut then = self.clone();
            then.take_in(bench, log, cut, telling)?;
            then.compare(&mut fork, dice)?;
        }
        // What takes long to be told is told in the end only: that end is not to be missed.
        let cut = if dice.one_in(4) {
            log.entries.len()
        } else {
            bench.cut(log, dice)
        };
        let end = if loses_power {
            self.counts.losses += 1;
            End::Power {
                cut,
                seed: dice.next(),
            }
        } else {
            self.counts.deaths += 1;
            End::Death { cut }
        };
        self.counts.processes += 1;
        self.counts.calls += log.entries.len() as u64;
        bench.ends(log, end)?;
        self.take_in(bench, log, cut, telling)
    }

    /// Takes in what a process had told when it ended.
    fn take_in(
        &mut self,
        bench: &Bench<'_>,
        log: &Log,
        cut: usize,
        telling: &Telling<'_>,
    ) -> Result<(), Fault> {
        match telling {
            Telling::Load { writers } => {
                self.counts.records += self.acks.take_in(*writers, &log.told(cut))?;
            }
            Telling::Scan {
                host,
                report,
                stdout,
            } => {
                let attempt = if log.told(cut) == *stdout {
                    self.counts.scans += 1;
                    Attempt::Acknowledged(Arc::clone(report))
                } else {
                    Attempt::Untold(Arc::clone(report))
                };
                self.open.insert((*host).to_owned(), attempt);
            }
            Telling::Events { numbers } => {
                self.counts.events += self.events.take_in(numbers, &log.told(cut))?;
            }
            // An answer that nobody got binds nobody: what it rests on may be lost with it.
            Telling::Answer { host, ended } if log.told(cut) == ended.stdout => {
                self.settle(bench, host, ended)?;
            }
            Telling::Answer { .. } | Telling::Nothing => {}
        }
        Ok(())
    }

    /// Everything that was told against everything that is there.
    fn compare(&mut self, bench: &mut Bench<'_>, dice: &mut Dice) -> Result<(), Fault> {
        if self.acks.count() > 0 || dice.one_in(8) {
            let acks = bench.write("acks", self.acks.text())?;
            let ended = bench.ask(&["load", "check", &acks, "--output", "json"])?;
            self.compare_acks(&ended)?;
        }
        if !self.events.is_empty() {
            let ended = bench.ask(&["events", "query", "--output", "json"])?;
            if ended.code() != Some(0) {
                return Err(ended.breach("opens and answers").into());
            }
            self.events.compare(&ended.stdout)?;
            self.counts.checks += 1;
        }
        for host in bundle::HOSTS {
            let is_known = self.open.contains_key(host)
                || self
                    .records
                    .get(host)
                    .is_some_and(|it| it.latest().is_some());
            // Of others there is nothing to lose; that nothing was invented is asked now and then.
            if !is_known && !dice.one_in(8) {
                continue;
            }
            let ended = bench.ask(&["status", "--host", host, "--output", "json"])?;
            self.settle(bench, host, &ended)?;
            self.compare_past(bench, host, dice)?;
        }
        Ok(())
    }

    fn compare_acks(&mut self, ended: &Ended) -> Result<(), Fault> {
        self.counts.checks += 1;
        if self.acks.text().is_empty() && ended.stderr.contains("nothing is recorded") {
            // Nothing was told, and nothing is there to be lost.
            return Ok(());
        }
        let checked: Checked = serde_json::from_slice(&ended.stdout)
            .map_err(|_| ended.breach("compares the records with their acknowledgements"))?;
        Ok(self.acks.compare(&checked)?)
    }

    /// Compares an answer about a host with what is known of it.
    fn settle(&mut self, bench: &Bench<'_>, host: &str, ended: &Ended) -> Result<(), Fault> {
        self.counts.checks += 1;
        let status = scans::status_in(ended)?;
        let record = self.records.entry(host.to_owned()).or_default();
        match self.open.remove(host) {
            Some(attempt) => {
                record.settle(&attempt, status, scans::now(bench.product()))?;
            }
            None => Record::compare(record.latest(), status.as_ref())?,
        }
        Ok(())
    }

    fn compare_past(
        &mut self,
        bench: &Bench<'_>,
        host: &str,
        dice: &mut Dice,
    ) -> Result<(), Fault> {
        let Some(record) = self.records.get(host).filter(|it| it.latest().is_some()) else {
            return Ok(());
        };
        for _ in 0..PAST_ASKED {
            let Some(known) = dice.pick(record.scans()) else {
                return Ok(());
            };
            let words = [
                "status", "--host", host, "--at", &known.at, "--output", "json",
            ];
            let then = scans::status_in(&bench.ask(&words)?)?;
            Record::compare(Some(known), then.as_ref())?;
        }
        let rule = dice.pick(&bundle::flipping()).copied().unwrap_or_default();
        let words = ["history", "--host", host, rule, "--output", "json"];
        let rows = scans::history_in(&bench.ask(&words)?)?;
        Ok(record.compare_history(rule, &rows)?)
    }
}
