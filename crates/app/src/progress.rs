//! What a person watches while facts are collected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use scan::{collect::Progress, facts::Unknown};

use crate::screen::Screen;

/// Redraws of the spinner; a terminal over a slow line should not be kept busy by it.
const TICK: Duration = Duration::from_millis(120);

/// Collectors named as they run, then a bar for the walk, on a terminal only; and the way a stop
/// request reaches the collectors.
#[derive(Debug)]
pub(crate) struct Watch {
    bar: ProgressBar,
    screen: Screen,
    stop: Arc<AtomicBool>,
}

impl Watch {
    pub(crate) fn new(screen: Screen, stop: Arc<AtomicBool>) -> Self {
        let bar = if screen.shows_progress() {
            let bar = ProgressBar::new_spinner();
            bar.set_style(spinner());
            bar.enable_steady_tick(TICK);
            bar
        } else {
            ProgressBar::hidden()
        };
        Self { bar, screen, stop }
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is valid")
}

fn walk_bar() -> ProgressStyle {
    // One line from 40 columns on: what a narrow terminal wraps, the next redraw cannot take away.
    ProgressStyle::with_template(
        "{spinner} walking  {wide_bar} {percent}% of {human_len}, {eta} left",
    )
    .expect("the template is valid")
    .progress_chars("█▉▊▋▌▍▎▏░")
}

impl Progress for Watch {
    fn started(&self, collector: &'static str) {
        self.bar.set_message(format!("collecting {collector}"));
    }

    fn finished(&self, collector: &'static str, took: Duration, unknown: Option<&Unknown>) {
        match unknown {
            Some(unknown) => self.screen.step(format_args!("{collector}: {unknown}")),
            None => self
                .screen
                .step(format_args!("{collector}: {} ms", took.as_millis())),
        }
    }

    fn walked(&self, seen: u64, expected: Option<u64>) {
        if let Some(expected) = expected
            && self.bar.length().is_none()
        {
            self.bar.set_style(walk_bar());
            self.bar.set_length(expected);
        }
        // Inodes in use are an estimate: links and new files may take the walk past it.
        if self.bar.length().is_some_and(|length| seen > length) {
            self.bar.set_length(seen);
        }
        self.bar.set_position(seen);
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
