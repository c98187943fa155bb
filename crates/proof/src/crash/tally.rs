//! What a run counts, and how far it got.

use std::{
    fmt,
    io::{IsTerminal, stderr},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Kills between two lines where no bar can be.
const LINE_EVERY: u64 = 20;

/// What was going on when a process was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// A start before its first answer: making a directory, opening one, recovery of recovery.
    Open,
    /// A writing load after its first acknowledgement.
    Load,
    /// `load check`.
    Check,
    /// `scan`, of facts or of this machine.
    Scan,
    /// `up`.
    Up,
}

const PHASES: [(Phase, &str); 5] = [
    (Phase::Open, "open"),
    (Phase::Load, "load"),
    (Phase::Check, "check"),
    (Phase::Scan, "scan"),
    (Phase::Up, "up"),
];

/// Counts of a run.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) rounds: u64,
    kills: [u64; PHASES.len()],
    kills_wanted: u64,
    /// Processes that had ended by themselves when the signal came.
    pub(super) late: u64,
    /// Processes that were asked to stop and did, in order.
    pub(super) stops: u64,
    /// Killed scans that were there afterwards, and that were not.
    pub(super) landed: [u64; 2],
    /// Acknowledgements taken in. Each is compared at least once before its directory is given up.
    pub(super) records_told: u64,
    pub(super) scans_told: u64,
    /// Comparisons of a whole directory with all its acknowledgements.
    pub(super) checks: u64,
    /// Answers of `status --at` and `history` about what was acknowledged earlier.
    pub(super) past_checked: u64,
    pub(super) directories: u64,
    /// Of data directories when they were given up.
    pub(super) bytes: u64,
    bar: Option<ProgressBar>,
}

impl Tally {
    pub(super) fn new(kills_wanted: u64, shows_progress: bool) -> Self {
        Self {
            rounds: 0,
            kills: [0; PHASES.len()],
            kills_wanted,
            late: 0,
            stops: 0,
            landed: [0; 2],
            records_told: 0,
            scans_told: 0,
            checks: 0,
            past_checked: 0,
            directories: 0,
            bytes: 0,
            bar: shows_progress.then(|| bar(kills_wanted)),
        }
    }

    pub(super) fn kills(&self) -> u64 {
        self.kills.iter().sum()
    }

    pub(super) const fn kills_wanted(&self) -> u64 {
        self.kills_wanted
    }

    #[cfg(test)]
    pub(super) fn kills_in(&self, phase: Phase) -> u64 {
        let mut counts = PHASES.iter().zip(self.kills);
        let found = counts.find(|((it, _), _)| *it == phase);
        found.map_or(0, |(_, count)| count)
    }

    pub(super) fn is_done(&self) -> bool {
        self.kills() >= self.kills_wanted
    }

    /// Counts a kill that found its process alive.
    pub(super) fn kill(&mut self, phase: Phase) {
        for ((it, _), count) in PHASES.iter().zip(&mut self.kills) {
            *count += u64::from(*it == phase);
        }
        let Some(bar) = &self.bar else { return };
        bar.set_position(self.kills());
        if bar.is_hidden() && self.kills().is_multiple_of(LINE_EVERY) {
            println!("{} of {} kills", self.kills(), self.kills_wanted);
        }
    }

    /// Takes the bar off the screen.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(kills: u64) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} kills  {eta} left")
        .expect("the template is valid")
        .progress_chars("█▉▊▋▌▍▎▏░");
    ProgressBar::new(kills).with_style(style)
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: u64| writeln!(f, "{name:<42}{value:>14}");
        row("rounds", self.rounds)?;
        for ((_, name), count) in PHASES.iter().zip(self.kills) {
            row(&format!("kills during {name}"), count)?;
        }
        row("kills in all", self.kills())?;
        row("kills that came too late, not counted", self.late)?;
        row("stops by SIGTERM, not counted", self.stops)?;
        let [there, absent] = self.landed;
        row("killed scans found recorded as a whole", there)?;
        row("killed scans found not recorded at all", absent)?;
        row("acknowledged records", self.records_told)?;
        row("comparisons with all of a directory's", self.checks)?;
        row("acknowledged scans", self.scans_told)?;
        row("answers about the past compared", self.past_checked)?;
        row("data directories", self.directories)?;
        row("bytes in them", self.bytes)
    }
}
