//! How scores went, and when changes were recorded: what the charts and the slider show.
//!
//! A score of a past moment does not change any more, so that it is computed once and remembered; what
//! is remembered is bounded.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use maud::Markup;
use scan::{ledger::Recording, token::Scope};
use wal::Lsn;
use world::Timestamp;

use super::{
    chart,
    slider::{Mark, Span},
    visit::Visit,
    when,
};
use crate::view::{self, Reader};

/// Points of a chart: one for each that can be told apart on a phone.
const POINTS: u64 = 30;
/// How far back a chart goes.
const REACH: Duration = Duration::from_secs(30 * 86_400);
/// The shortest chart: of less, a scan or two, nothing can be told.
const REACH_MIN: Duration = Duration::from_secs(3_600);
/// Scores that are remembered, some 100 bytes each.
const SCORES_MAX: usize = 20_000;
/// Marks of a slider: more are closer together than they are wide. What was recorded earlier is found by the
/// date.
const MARKS_MAX: usize = 300;
/// Of how many scopes it is remembered when something was recorded, some 5 KB each.
const SPANS_MAX: usize = 16;

type Key = (Option<String>, Scope, u64);

/// Scores of past moments.
#[derive(Debug, Default)]
pub(super) struct Scores(Mutex<HashMap<Key, Option<f64>>>);

impl Scores {
    fn get(
        &self,
        key: Key,
        find: impl FnOnce() -> Result<Option<f64>, view::Error>,
    ) -> Result<Option<f64>, view::Error> {
        let known = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = find()?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SCORES_MAX {
            all.clear();
        }
        all.insert(key, found);
        Ok(found)
    }
}

/// A score over a time.
#[derive(Clone, Debug)]
pub(super) struct Trend {
    points: Vec<(Timestamp, f64)>,
    from: Timestamp,
    to: Timestamp,
}

impl Trend {
    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    pub(super) fn chart(&self, what: &str) -> Markup {
        chart::trend(&self.points, self.from, self.to, what)
    }

    /// `up 2.3 points in 7 days`: since a week before, or since the first score.
    pub(super) fn movement(&self, score: f64) -> Option<String> {
        const WEEK_NANOS: u64 = 7 * 86_400 * 1_000_000_000;
        let week_ago = self.to.nanos().saturating_sub(WEEK_NANOS);
        let before = self
            .points
            .iter()
            .rev()
            .find(|(at, _)| at.nanos() <= week_ago);
        let &(since, before) = before.or_else(|| self.points.first())?;
        let length = self.to.nanos().saturating_sub(since.nanos());
        let moved = score - before;
        let over = when::span(length);
        (length > 0).then(|| match moved {
            _ if moved.abs() < 0.05 => format!("as {over} ago"),
            _ if moved > 0.0 => format!("up {moved:.1} points in {over}"),
            _ => format!("down {:.1} points in {over}", -moved),
        })
    }
}

/// `score` is that of the moment that is shown.
pub(super) fn of_fleet(visit: &Visit<'_>, score: Option<f64>) -> Result<Trend, view::Error> {
    trend(visit, None, score, &|at| view::score_at(&visit.reader, at))
}

/// `score` is that of the moment that is shown.
pub(super) fn of_host(
    visit: &Visit<'_>,
    host: &str,
    score: Option<f64>,
) -> Result<Trend, view::Error> {
    trend(visit, Some(host), score, &|at| {
        view::host_score_at(&visit.reader, host, at)
    })
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Asked for at round moments, so that one look finds what the one before has computed.
fn trend(
    visit: &Visit<'_>,
    host: Option<&str>,
    score: Option<f64>,
    find: &dyn Fn(Timestamp) -> Result<Option<f64>, view::Error>,
) -> Result<Trend, view::Error> {
    let to = visit.readable();
    let first = visit.span()?.from;
    let reach = to
        .nanos()
        .saturating_sub(first.nanos())
        .clamp(nanos(REACH_MIN), nanos(REACH));
    let step = round(reach / POINTS);
    let from = (to.nanos() - reach) / step * step;
    let mut points = Vec::new();
    let mut at = from;
    while at < to.nanos() {
        if at >= first.nanos() {
            let key = (host.map(str::to_owned), visit.reader.scope.clone(), at);
            let moment = Timestamp::from_nanos(at);
            points.extend(
                visit
                    .scores
                    .get(key, || find(moment))?
                    .map(|score| (moment, score)),
            );
        }
        at += step;
    }
    points.extend(score.map(|score| (to, score)));
    Ok(Trend {
        points,
        from: Timestamp::from_nanos(from),
        to,
    })
}

/// The next length that people count in.
fn round(step: u64) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    let lengths = [
        60, 120, 300, 600, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400,
    ];
    let found = lengths
        .into_iter()
        .map(|seconds| seconds * SECOND)
        .find(|length| *length >= step);
    found.unwrap_or(86_400 * SECOND)
}

/// From the first record to now, and when changes were recorded between.
pub(super) fn span(visit: &Visit<'_>) -> Result<Span, view::Error> {
    let recorded = visit.spans.of(&visit.reader)?;
    let hour_ago = visit.now.nanos().saturating_sub(nanos(REACH_MIN));
    let from = recorded.from.map_or(hour_ago, Timestamp::nanos);
    Ok(Span {
        from: Timestamp::from_nanos(from.min(hour_ago)),
        marks: recorded.marks.clone(),
    })
}

/// What a slider shows of the record, whatever the moment that is looked at.
#[derive(Debug)]
struct Recorded {
    from: Option<Timestamp>,
    /// Oldest first.
    marks: Vec<Mark>,
}

impl Recorded {
    fn of(reader: &Reader<'_>) -> Result<Self, view::Error> {
        let view::Recorded { from, newest } = view::recorded(reader, MARKS_MAX)?;
        let mut marks: Vec<Mark> = Vec::with_capacity(newest.len());
        for Recording { at, changes } in newest.into_iter().rev() {
            match marks.last_mut() {
                Some(mark) if when::millis(mark.at) == when::millis(at) => mark.changes += changes,
                _ => marks.push(Mark { at, changes }),
            }
        }
        Ok(Self { from, marks })
    }
}

/// What was read of the record for sliders, by who looks: each is of a position of the store, and given only
/// to whoever found the store there. So a slider that is moved costs nothing of it.
#[derive(Default)]
pub(super) struct Spans(Mutex<Vec<(Scope, Lsn, Arc<Recorded>)>>);

impl fmt::Debug for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spans")
    }
}

impl Spans {
    fn of(&self, reader: &Reader<'_>) -> Result<Arc<Recorded>, view::Error> {
        // Before anything is read: all of it is of this position or of a later one.
        let position = reader.store.newest()?.lsn;
        let holds = |(scope, at, _): &&(Scope, Lsn, _)| scope == reader.scope && *at >= position;
        if let Some((.., found)) = self.lock().iter().find(holds) {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(Recorded::of(reader)?);
        let mut all = self.lock();
        all.retain(|(scope, ..)| scope != reader.scope);
        if all.len() >= SPANS_MAX {
            all.remove(0);
        }
        all.push((reader.scope.clone(), position, Arc::clone(&found)));
        Ok(found)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Scope, Lsn, Arc<Recorded>)>> {
        // Nothing is left half done by a panic: what is kept is put in and taken out whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
