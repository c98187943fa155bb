//! `holdfast scan`: collect, judge, record, print.

mod hosts;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use scan::{
    capture, collect,
    executor::{self, Cancel, Order, up_to_millisecond},
    facts::Facts,
    failure::{Failure, Reason},
    judge,
    ledger::{self, Applied, LogSink},
};
use uuid::Uuid;
use world::{Clock, Disk, RealClock, RealDisk};

use crate::{
    cli::{self, Output},
    config::Config,
    document::{ChangeRow, Report, VerdictRow},
    exit::{Exit, Refusal},
    fleet, moment, named_file,
    present::{ChangesSince, Summary, change_line, csv, verdicts},
    progress::Watch,
    ruleset::Ruleset,
    screen::{self, Screen},
    site::{self, Site},
    waived::Waived,
};

/// Largest fact bundle read back, in bytes. One of a usual host has a quarter of a MiB; JSON in memory
/// takes up to 25 times its text, so this bounds memory below a gigabyte.
const FACTS_LEN_MAX: u64 = 32 << 20;

/// A scan that was judged and recorded.
pub(super) struct Done {
    pub(super) recorded: ledger::Scan,
    pub(super) applied: Applied,
    pub(super) waived: Option<Waived>,
    /// How the host calls itself.
    pub(super) system: Option<String>,
}

pub(crate) fn run(asked: &cli::Scan, config: &Config, screen: Screen) -> Result<Exit, Refusal> {
    if asked.show_collectors {
        return show_collectors(config.output.value, screen);
    }
    let rules = Ruleset::load(config, asked.scope.rules_dir.as_deref())?;
    let stop = site::stop_flag()?;
    if asked.chosen.is_some() {
        return hosts::run(asked, &rules, config, screen, &stop);
    }
    let done = match &asked.replay {
        Some(file) => replay(file, &rules, config, screen)?,
        None => this_machine(asked, &rules, config, screen, &stop)?,
    };
    print(&done, &rules, config.output.value, screen)
}

fn replay(file: &Path, rules: &Ruleset, config: &Config, screen: Screen) -> Result<Done, Refusal> {
    let clock = RealClock::new();
    let started = clock.now();
    let (facts, digest) = read_facts(file, rules)?;
    let site = Site::open(config, screen)?;
    let this = super::this_host();
    if facts.host.hostname == this && !site::shared::is_used(config) {
        // Or else it would come in as a host that facts are brought from, and `up` would not watch it.
        super::up::register(&site, &this, &super::actor())?;
    }
    let tuned = site.tuned(rules.all(), &facts.host.hostname, screen)?;
    let verdicts = judge::judge(&tuned, &facts);
    let scan = ledger::Scan {
        id: Uuid::new_v4(),
        host: facts.host.hostname.clone(),
        started,
        finished: up_to_millisecond(clock.now()),
        summary: judge::Summary::of(verdicts.iter().map(|verdict| verdict.verdict)),
        findings: executor::findings(&tuned, &verdicts),
    };
    let applied = site
        .inventory()?
        .replay(&scan, &digest, &super::actor(), &LogSink)
        .map_err(Site::refused)?;
    let waived = Waived::of(&site, &scan.host, None, clock.now())?;
    site.close(screen);
    Ok(Done {
        recorded: scan,
        applied,
        waived: Some(waived),
        system: executor::system(&facts),
    })
}

/// This machine, as the manual scan of any host: past the schedule (SCH-9).
fn this_machine(
    asked: &cli::Scan,
    rules: &Ruleset,
    config: &Config,
    screen: Screen,
    stop: &Arc<AtomicBool>,
) -> Result<Done, Refusal> {
    if let Some(file) = &asked.facts_out {
        // Before the work; where it leads is looked at again when it is written.
        facts_file(file)?;
    }
    // Before the work, so that a directory that cannot be used is known at once.
    let site = open_and_report(config, screen)?;
    let policy = fleet::policy_of_manual_scan(&site);
    let tuned = site.tuned(rules.all(), &super::this_host(), screen)?;
    site.close(screen);
    let watch = Arc::new(Watch::new(screen, Arc::clone(stop)));
    let kept: Arc<Mutex<Option<Facts>>> = Arc::default();
    let keeps = Arc::clone(&kept);
    let order = Order {
        rules: tuned.into(),
        progress: Arc::clone(&watch) as Arc<dyn collect::Progress>,
        on_facts: asked.facts_out.is_some().then(|| {
            Arc::new(move |facts: &Facts| {
                *keeps.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts.clone());
            }) as executor::OnFacts
        }),
        ..fleet::order(
            super::this_host(),
            Arc::new(executor::Local),
            &policy,
            rules,
            fleet::collectors(&asked.scope, config),
            Cancel::with(Arc::clone(stop)),
        )
    };
    let executor = fleet::executor(config.data_dir()?, Arc::new(executor::LogSink))?;
    let executed = executor.run(&order);
    watch.clear();
    let executed = executed.map_err(not_scanned)?;
    let facts = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let (Some(path), Some(facts)) = (&asked.facts_out, facts) {
        write_facts(path, &facts)?;
        screen.remark(format_args!("facts written to {}", path.display()));
    }
    let site = Site::open(config, screen)?;
    let applied = site
        .ledger()
        .apply(&executed.scan, &LogSink)
        .map_err(Site::refused)?;
    let waived = Waived::of(&site, &executed.scan.host, None, super::now())?;
    site.close(screen);
    Ok(Done {
        recorded: executed.scan,
        applied,
        waived: Some(waived),
        system: executed.system,
    })
}

fn not_scanned(failure: Failure) -> Refusal {
    if failure.reason == Reason::Cancelled {
        return Refusal::new("stopped before the scan was complete; nothing was recorded")
            .next("scan again; what was recorded before is as it was");
    }
    let next = fleet::next_step(failure.reason, &super::this_host());
    Refusal::new(format!("this machine was not scanned: {failure}")).next(next)
}

fn open_and_report(config: &Config, screen: Screen) -> Result<Site, Refusal> {
    let site = Site::open(config, screen)?;
    screen.step(format_args!(
        "{}: {}",
        site.dir().display(),
        site.recovery()
    ));
    Ok(site)
}

/// With the SHA-256 of the file.
fn read_facts(file: &Path, rules: &Ruleset) -> Result<(Facts, String), Refusal> {
    let refuse = || {
        Refusal::new(format!("facts {}", file.display()))
            .next("give a file written by `holdfast collect`")
    };
    let bytes = named_file::read(file, FACTS_LEN_MAX).map_err(|error| refuse().source(error))?;
    let facts = if capture::is_capture(&bytes) {
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        capture::replay(&bytes, &Arc::new(rules.needs()), &clock)
            .map_err(|error| refuse().source(error))?
    } else {
        Facts::from_json(&bytes).map_err(|error| refuse().source(error))?
    };
    if facts.host.hostname.is_empty() {
        return Err(
            Refusal::new(format!("facts {} name no host", file.display()))
                .next("give a file whose `host.hostname` is filled in"),
        );
    }
    Ok((facts, judge::digest(&bytes)))
}

pub(super) fn write_facts(file: &Path, facts: &Facts) -> Result<(), Refusal> {
    let path = facts_file(file)?;
    RealDisk
        .replace(&path, facts.to_json().as_bytes())
        .map_err(|error| facts_not_written(file, error))
}

pub(super) fn facts_file(file: &Path) -> Result<PathBuf, Refusal> {
    named_file::replaceable(file).map_err(|error| facts_not_written(file, error))
}

fn facts_not_written(file: &Path, error: std::io::Error) -> Refusal {
    Refusal::new(format!("facts {} cannot be written", file.display()))
        .source(error)
        .next("name a regular file in a directory that can be written")
}

pub(super) fn print(
    done: &Done,
    rules: &Ruleset,
    output: Output,
    screen: Screen,
) -> Result<Exit, Refusal> {
    let report = report(done);
    let text = match output {
        Output::Json => super::json(&report)?,
        Output::Csv => verdicts::csv(&report.verdicts),
        Output::Table => summary(done, &report, rules).render(),
    };
    screen.result(&text)?;
    Ok(Exit::of_verdicts(&report.summary))
}

pub(super) fn report(done: &Done) -> Report {
    let scan = &done.recorded;
    let mut report = Report {
        scan_id: scan.id.to_string(),
        host: scan.host.clone(),
        started: moment::rfc3339(scan.started),
        finished: moment::rfc3339(scan.finished),
        summary: scan.summary.clone(),
        with_waivers: None,
        verdicts: scan
            .findings
            .iter()
            .map(|finding| VerdictRow {
                rule: finding.rule.clone(),
                severity: finding.severity,
                verdict: finding.verdict,
                reason: finding.reason.clone(),
                evidence: finding.evidence_digest.clone(),
                waiver: None,
            })
            .collect(),
        changes: Some(
            done.applied
                .changes
                .iter()
                .map(ChangeRow::of_change)
                .collect(),
        ),
        last_attempt_failed: None,
    };
    if let Some(waived) = &done.waived {
        waived.beside(&mut report);
    }
    report
}

fn summary(done: &Done, report: &Report, rules: &Ruleset) -> Summary {
    Summary {
        heading: vec![
            done.recorded.host.clone(),
            done.system
                .clone()
                .unwrap_or_else(|| "unknown system".to_owned()),
            moment::local(done.recorded.finished),
        ],
        counts: report.summary.clone(),
        lines: verdicts::lines(&report.verdicts, rules),
        changes: changes_since(&done.applied),
        width: screen::width().map(usize::from),
    }
}

pub(super) fn changes_since(applied: &Applied) -> ChangesSince {
    applied
        .previous
        .map_or(ChangesSince::FirstScan, |previous| {
            ChangesSince::Scan(moment::local(previous), changed_rules(applied))
        })
}

pub(super) fn changed_rules(applied: &Applied) -> Vec<String> {
    applied.changes.iter().map(change_line).collect()
}

/// What the collectors touch on the machine (EXE-12).
fn show_collectors(output: Output, screen: Screen) -> Result<Exit, Refusal> {
    let rows: Vec<[String; 5]> = collect::list()
        .iter()
        .map(|collector| {
            let privilege = match collector.privilege {
                collect::Privilege::None => "none".to_owned(),
                collect::Privilege::Partly(part) => format!("root for {part}"),
                collect::Privilege::Root => "root".to_owned(),
            };
            [
                collector.name.to_owned(),
                collector.about.to_owned(),
                collector.reads.join(" "),
                collector.runs.join("; "),
                privilege,
            ]
        })
        .chain([[
            "(remote)".to_owned(),
            "how all of the above is asked on another host; writes nothing".to_owned(),
            "what the collectors read".to_owned(),
            capture::RUNS.join("; "),
            "that of the session".to_owned(),
        ]])
        .collect();
    let names = ["collector", "about", "reads", "runs", "privilege"];
    let text = match output {
        // What one reads is longer than any screen is wide: a table of it cannot be read.
        Output::Table => rows.iter().map(collector_lines).collect(),
        Output::Csv => csv::lines(names, rows),
        Output::Json => {
            let documents: Vec<serde_json::Value> = rows
                .into_iter()
                .map(|row| names.into_iter().zip(row).collect())
                .collect();
            super::json(&documents)?
        }
    };
    screen.result(&text)?;
    Ok(Exit::Clean)
}

fn collector_lines([name, about, reads, runs, privilege]: &[String; 5]) -> String {
    let parts = [("reads", reads), ("runs", runs), ("privilege", privilege)];
    let parts = parts.into_iter().filter(|(_, text)| !text.is_empty());
    let parts: String = parts
        .map(|(part, text)| format!("  {part:<9}  {text}\n"))
        .collect();
    format!("{name}  {about}\n{parts}")
}
