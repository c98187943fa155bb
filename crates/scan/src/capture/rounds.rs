//! The rounds of one collection: run the collectors at home, ask what they missed, again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};
use world::Clock;

use super::{
    Limits, Rounds,
    answer::{self, Parts},
    captured::{Captured, not_collected},
    declared,
    frame::{Session, sections},
    question::{self, Batch, WalkAsked, Wanted},
    shell, walk,
};
use crate::{
    collect::{self, Collector, Needs, Progress, collect_within},
    facts::{Facts, Reason, Unknown},
    failure::{self, Failure},
    target::{Found, Target, Walked, mount_table, mount_table::Plan, unknown},
};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// What the walk may find: seven lists of ten thousand paths.
const WALK_BYTES_MAX: usize = 16 << 20;

pub(super) struct Collection<'a> {
    session: Session<'a>,
    collectors: &'a [&'static Collector],
    needs: &'a Arc<Needs>,
    progress: &'a Arc<dyn Progress>,
    clock: &'a Arc<dyn Clock>,
    limits: &'a Limits,
    captured: Arc<Captured>,
    /// Files that a batch did not bring.
    alone: BTreeSet<String>,
    walk: WalkState,
    pending: Vec<&'static Collector>,
    done: BTreeMap<&'static str, Done>,
}

struct Done {
    fact: Value,
    millis: u64,
}

enum WalkState {
    Unasked,
    Running(Box<(Plan, WalkAsked, Walked)>),
    Over,
}

/// While nothing is final yet nobody is told but of the wish to stop.
struct Quiet(Arc<dyn Progress>);

impl Progress for Quiet {
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

impl<'a> Collection<'a> {
    pub(super) fn new(
        session: Session<'a>,
        collectors: &'a [&'static Collector],
        needs: &'a Arc<Needs>,
        progress: &'a Arc<dyn Progress>,
        clock: &'a Arc<dyn Clock>,
        limits: &'a Limits,
    ) -> Self {
        Self {
            session,
            collectors,
            needs,
            progress,
            clock,
            limits,
            captured: Arc::new(Captured::default()),
            alone: BTreeSet::new(),
            walk: WalkState::Unasked,
            pending: collectors.to_vec(),
            done: BTreeMap::new(),
        }
    }

    pub(super) fn run(mut self) -> Result<(Facts, Rounds), Failure> {
        let begun = self.try_out(&[]);
        for collector in self.collectors {
            self.progress.started(collector.name);
        }
        loop {
            if self.progress.cancelled() {
                return Err(Failure::new(
                    failure::Reason::Cancelled,
                    "cancelled while collecting",
                ));
            }
            let round = self.session.rounds.round_trips;
            let is_last = round >= self.limits.rounds_max;
            self.try_pending(is_last);
            if self.pending.is_empty() {
                return Ok((self.facts(&begun), self.session.rounds));
            }
            let mut wanted = std::mem::take(&mut *self.captured.wanted());
            if round == 0 {
                let reads = self
                    .collectors
                    .iter()
                    .flat_map(|one| one.reads.iter().copied());
                declared::ask(reads, &mut wanted);
                wanted
                    .contents
                    .entry(MOUNTINFO.to_owned())
                    .or_insert(usize::MAX >> 1);
            }
            if wanted.len() == 0 && round > 0 {
                self.fetch_walk(round + 1, wanted.walk)?;
            } else {
                self.ask(round + 1, wanted)?;
            }
        }
    }

    fn try_out(&self, collectors: &[&'static Collector]) -> Facts {
        let limits = collect::Limits {
            collector_deadline: self.limits.collector_deadline,
            collector_bytes_max: self.limits.collector_bytes_max,
            ..collect::Limits::default()
        };
        collect_within(
            collectors,
            Arc::clone(&self.captured) as Arc<dyn Target>,
            Arc::clone(self.needs),
            Arc::new(Quiet(Arc::clone(self.progress))),
            Arc::clone(self.clock),
            &limits,
        )
    }

    /// Keeps the facts of the collectors that missed nothing, and lets the others show what else
    /// they would ask.
    fn try_pending(&mut self, is_last: bool) {
        for collector in std::mem::take(&mut self.pending) {
            self.captured.take_missed();
            let mut facts = self.try_out(&[collector]);
            if self.captured.take_missed() && !is_last {
                self.captured.guess(true);
                self.try_out(&[collector]);
                self.captured.guess(false);
                self.pending.push(collector);
                continue;
            }
            let missing = not_collected(collector.name).to_value();
            let fact = facts.facts.remove(collector.name).unwrap_or(missing);
            let millis = facts.timings_ms.get(collector.name).copied().unwrap_or(0);
            let whole = Unknown::from_value(&fact);
            let took = Duration::from_millis(millis);
            self.progress.finished(collector.name, took, whole.as_ref());
            self.done.insert(collector.name, Done { fact, millis });
        }
    }

    fn facts(&mut self, begun: &Facts) -> Facts {
        let mut facts = Map::new();
        let mut timings_ms = BTreeMap::new();
        for collector in self.collectors {
            if let Some(done) = self.done.remove(collector.name) {
                facts.insert(collector.name.to_owned(), done.fact);
                timings_ms.insert(collector.name.to_owned(), done.millis);
            }
        }
        Facts {
            host: self.try_out(&[]).host,
            collected_at: begun.collected_at,
            collector: begun.collector.clone(),
            facts,
            timings_ms,
        }
    }

    fn ask(&mut self, number: u32, wanted: Wanted) -> Result<(), Failure> {
        if let Some(asked) = &wanted.walk {
            self.start_walk(asked)?;
        }
        let batches = wanted.batches(&self.alone);
        let hello = if number == 1 { shell::HELLO } else { "" };
        let questions = format!("{hello}{}", question::questions(&batches));
        let script = shell::script(&self.session.mark, number, &questions);
        self.session.send(&script)?;
        let body = self.session.answer(number)?;
        let sections = sections(&self.session.mark, &body);
        if let Some((b'h', hello)) = sections.get(&b"0"[..]).and_then(|parts| parts.first()) {
            let uid = hello.split(|&byte| byte == b'\n').next();
            self.session.rounds.uid = uid.and_then(|uid| str::from_utf8(uid).ok()?.parse().ok());
        }
        let mut known = self.captured.known_mut();
        for (index, batch) in batches.iter().enumerate() {
            let id = (index + 1).to_string();
            if let Some(parts) = sections.get(id.as_bytes()) {
                answer::take(batch, &self.session.mark, Parts::new(parts), &mut known);
            }
        }
        for batch in &batches {
            settle(batch, &mut known, &mut self.alone);
        }
        Ok(())
    }

    /// The mount table is in the first answer, so this comes with the second question at the latest.
    fn start_walk(&mut self, asked: &WalkAsked) -> Result<(), Failure> {
        if !matches!(self.walk, WalkState::Unasked) {
            return Ok(());
        }
        let planned = {
            let known = self.captured.known();
            match known.content(MOUNTINFO) {
                None => return Ok(()),
                Some(Found::Present(table)) => mount_table::begin(table),
                Some(Found::Absent) => Err(Unknown::new(Reason::Unreadable, MOUNTINFO)),
                Some(Found::Unknown(unknown)) => Err(unknown.clone()),
            }
        };
        let questions = planned.and_then(|(plan, walked)| {
            let questions = walk::questions(&plan, asked)?;
            Ok((plan, walked, questions))
        });
        match questions {
            Ok((plan, walked, questions)) => {
                let script = shell::walk_script(&self.session.mark, &questions);
                self.session.send(&script)?;
                self.walk = WalkState::Running(Box::new((plan, asked.clone(), walked)));
            }
            Err(unknown) => {
                self.captured.known_mut().walk = Some(Err(unknown));
                self.walk = WalkState::Over;
            }
        }
        Ok(())
    }

    /// Waits for the end of the walk: nothing else is missing.
    fn fetch_walk(&mut self, number: u32, asked: Option<WalkAsked>) -> Result<(), Failure> {
        if let Some(asked) = asked {
            self.start_walk(&asked)?;
        }
        let WalkState::Running(running) = std::mem::replace(&mut self.walk, WalkState::Over) else {
            let lost = unknown(Reason::Unreadable, "walk", "the host gave no answer");
            self.captured.known_mut().walk.get_or_insert(Err(lost));
            return Ok(());
        };
        let (plan, asked, mut walked) = *running;
        let questions = format!("M={WALK_BYTES_MAX};w;");
        let script = shell::script(&self.session.mark, number, &questions);
        self.session.send(&script)?;
        let body = self.session.answer(number)?;
        let sections = sections(&self.session.mark, &body);
        let mut result = Ok(());
        for index in 0..plan.enter.len() {
            let id = (index + 1).to_string();
            let parts = sections.get(id.as_bytes()).map_or(&[][..], Vec::as_slice);
            result = result
                .and_then(|()| walk::take(&mut Parts::new(parts), asked.list_max, &mut walked));
        }
        walk::finish(&asked, &mut walked);
        self.captured.known_mut().walk = Some(result.map(|()| walked));
        Ok(())
    }
}

/// What was asked and not answered: a file of a batch is asked alone, everything else is unknown for
/// good. So each question is asked twice at most.
fn settle(batch: &Batch, known: &mut super::captured::Known, alone: &mut BTreeSet<String>) {
    fn fill<'a, T>(
        paths: impl IntoIterator<Item = &'a String>,
        answers: &mut std::collections::HashMap<String, Found<T>>,
    ) {
        for path in paths {
            answers
                .entry(path.clone())
                .or_insert_with(|| no_answer(path).into());
        }
    }
    match batch {
        Batch::StatKeep(asked) => fill(asked, &mut known.stats_keep),
        Batch::StatFollow(asked) => fill(asked, &mut known.stats_follow),
        Batch::Links(asked) => fill(asked, &mut known.links),
        Batch::Lists(asked) => fill(asked, &mut known.lists),
        Batch::Trees(_) => {}
        Batch::Contents(asked) => {
            let left = asked.iter().filter(|path| !known.has_content(path));
            alone.extend(left.cloned());
        }
        Batch::Content(path, cap) => {
            if !known.has_content(path) {
                known.put(path, no_answer(path).into(), *cap);
            }
        }
        Batch::Hashes(asked, _) => fill(asked, &mut known.hashes),
        Batch::PackageList(path) => fill([path], &mut known.package_lists),
        Batch::Program(program, ..) => {
            let name = program.programs.join(", ");
            known
                .programs
                .entry(program.clone())
                .or_insert_with(|| Err(no_answer(&name)));
        }
    }
}

fn no_answer(object: &str) -> Unknown {
    unknown(Reason::Unreadable, object, "the host gave no clear answer")
}
