//! What the measurements share: interleaved rounds, medians, ratios, and a look at the machine.
//!
//! A figure means something only beside another one of the same run: disks drift by the minute and
//! neighbours come and go. So contestants take short turns within each round, a ratio is the median
//! over the rounds of the ratio within a round, and its quartiles are printed with it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// One contestant's figures, one per round.
#[derive(Clone, Debug)]
pub struct Series {
    pub name: String,
    pub figures: Vec<f64>,
}

impl Series {
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            figures: Vec::new(),
        }
    }

    pub fn median(&self) -> f64 {
        quantile(&self.figures, 0.5)
    }

    /// What this is of `reference`, round by round.
    pub fn ratios(&self, reference: &Self) -> Vec<f64> {
        let pairs = self.figures.iter().zip(&reference.figures);
        pairs.map(|(ours, theirs)| ours / theirs).collect()
    }
}

/// Of unsorted figures; 0 of none.
pub fn quantile(figures: &[f64], at: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len => sorted[((len - 1) as f64 * at).round() as usize],
    }
}

/// Runs the contestants in turn, `rounds` times, each round beginning with another one, and
/// returns one series per contestant.
pub fn interleave<C>(
    rounds: usize,
    contestants: &mut [(String, C)],
    mut measure: impl FnMut(&mut C) -> f64,
) -> Vec<Series> {
    let mut series: Vec<Series> = contestants
        .iter()
        .map(|(name, _)| Series::new(name))
        .collect();
    for round in 0..rounds {
        for turn in 0..contestants.len() {
            let index = (round + turn) % contestants.len();
            let figure = measure(&mut contestants[index].1);
            series[index].figures.push(figure);
        }
    }
    series
}

/// Prints medians, and what each is of the last one (the limit or the peer), with quartiles.
pub fn print_table(title: &str, unit: &str, series: &[Series]) {
    println!("\n{title}\n");
    println!("| | {unit} (median) | ratio | quartiles |");
    println!("|---|---:|---:|---:|");
    let Some(reference) = series.last() else {
        return;
    };
    for one in series {
        let ratios = one.ratios(reference);
        println!(
            "| {} | {:.0} | {:.2} | {:.2} to {:.2} |",
            one.name,
            one.median(),
            quantile(&ratios, 0.5),
            quantile(&ratios, 0.25),
            quantile(&ratios, 0.75),
        );
    }
}

/// Prints whether `ours` reaches `bound` times `theirs`; a miss is told, and returned.
pub fn require(what: &str, ours: &Series, theirs: &Series, bound: f64) -> bool {
    let ratio = quantile(&ours.ratios(theirs), 0.5);
    let holds = ratio >= bound;
    println!(
        "{} {what}: {} is {ratio:.2} of {} (bound {bound:.2})",
        if holds { "ok  " } else { "MISS" },
        ours.name,
        theirs.name
    );
    holds
}

/// `--name value` from the command line.
pub fn option(name: &str) -> Option<String> {
    let mut words = std::env::args().skip_while(|word| word != name);
    words.nth(1)
}

pub fn number(name: &str, default: usize) -> usize {
    option(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} takes a number, not {text}"))
    })
}

/// Where files go: `--dir`, or the temporary directory.
pub fn scratch() -> tempfile::TempDir {
    let parent = option("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::tempdir_in(&parent)
        .unwrap_or_else(|error| panic!("no scratch directory in {}: {error}", parent.display()))
}

/// Peak resident memory of this process in MiB.
pub fn peak_mib() -> u64 {
    status_kib("VmHWM:") / 1024
}

/// Resident memory of this process in MiB.
pub fn resident_mib() -> u64 {
    status_kib("VmRSS:") / 1024
}

fn status_kib(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// One line that says on what and beside what this was measured.
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| {
            rest.trim_matches([' ', ':', '\t'])
        });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    format!(
        "{cores} x {model}, Linux {}, load {}",
        kernel.trim(),
        load.join(" ")
    )
}

/// Drops a file's pages from the page cache, as far as the kernel does as told.
pub fn make_cold(path: &Path) {
    let file = fs::File::open(path).expect("a file that was just listed");
    file.sync_all().expect("syncing before dropping pages");
    let advice = rustix::fs::Advice::DontNeed;
    rustix::fs::fadvise(&file, 0, None, advice).expect("advice that costs nothing");
}

pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
