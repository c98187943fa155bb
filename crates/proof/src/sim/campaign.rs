//! Many seeds: in processes of their own, the counts summed up here.

use std::{
    env, io,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread,
};

use world::{Clock, Random, RealClock, RealRandom};

use super::{breach::Checker, once, swarm::Swarm, tally::Tally, trace::Trace};

/// What one seed gave, as a worker prints it.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
enum Told {
    Begins(u64),
    Held(Box<Tally>),
    Broken {
        seed: u64,
        checker: Checker,
        words: String,
    },
}

/// What some seeds came to.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) tally: Tally,
    pub(crate) broken: Option<Broken>,
}

#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) seed: u64,
    pub(crate) checker: Checker,
    pub(crate) words: String,
}

pub(crate) fn run(seed: Option<u64>, seeds: u64, jobs: Option<u64>) -> io::Result<ExitCode> {
    let seed = match seed {
        Some(seed) => seed,
        // Small enough to be copied by hand.
        None => RealRandom.number()? >> 40,
    };
    let processors = || thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let jobs = jobs.unwrap_or_else(processors).clamp(1, seeds);
    println!("seeds {seed} to {}, {jobs} at once", seed + (seeds - 1));
    let clock = RealClock::new();
    let program = env::current_exe()?;
    let each = seeds.div_ceil(jobs);
    let parts = (0..jobs).map(|job| {
        let from = seed + job * each;
        (from, each.min((seed + seeds).saturating_sub(from)))
    });
    let workers = parts.filter(|(_, count)| *count > 0).map(|(from, count)| {
        let worker = start(&program, from, count);
        thread::spawn(move || worker.and_then(listen))
    });
    let workers: Vec<_> = workers.collect();
    let mut summary = Summary::default();
    for worker in workers {
        let ended = worker
            .join()
            .map_err(|_| io::Error::other("a worker's listener panicked"))??;
        summary.tally.merge(&ended.tally);
        summary.broken = summary.broken.or(ended.broken);
    }
    let seconds = clock.monotonic().as_secs_f64();
    print!("{}", summary.tally);
    let tally = &summary.tally;
    let simulated = std::time::Duration::from_micros(tally.simulated).as_secs_f64();
    println!(
        "  {:<48}{:>12.0}",
        "seeds a minute",
        rate(tally.runs) * 60.0 / seconds
    );
    let by_processor = simulated / seconds / rate(jobs.min(processors()));
    println!(
        "  {:<48}{by_processor:>12.0}",
        "simulated seconds per processor second"
    );
    let Some(broken) = summary.broken else {
        return Ok(ExitCode::SUCCESS);
    };
    println!("{:?}: {}", broken.checker, broken.words);
    println!("{}", Swarm::of(broken.seed));
    println!("again: cargo proof sim --seed {} --trace", broken.seed);
    Ok(ExitCode::from(1))
}

/// Exact below 2^53, far above what is counted here.
#[allow(clippy::cast_precision_loss, reason = "a figure for a reader")]
fn rate(count: u64) -> f64 {
    count as f64
}

#[allow(clippy::disallowed_methods, reason = "runs itself")]
fn start(program: &Path, seed: u64, seeds: u64) -> io::Result<Child> {
    Command::new(program)
        .args([
            "sim",
            "--worker",
            "--seed",
            &seed.to_string(),
            "--seeds",
            &seeds.to_string(),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
}

/// Runs seeds one after the other and prints a line for each, up to the first that is broken.
pub(crate) fn work(seed: u64, seeds: u64) -> io::Result<ExitCode> {
    for seed in seed..seed + seeds {
        println!("{}", serde_json::to_string(&Told::Begins(seed))?);
        let mut ended = once(seed, Trace::Off);
        ended.tally.runs = 1;
        let told = match ended.breach {
            None => Told::Held(Box::new(ended.tally)),
            Some(breach) => Told::Broken {
                seed,
                checker: breach.checker,
                words: breach.words,
            },
        };
        println!("{}", serde_json::to_string(&told)?);
        if matches!(told, Told::Broken { .. }) {
            return Ok(ExitCode::from(1));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes in what a worker tells. One that dies had found itself wrong.
pub(crate) fn listen(mut worker: Child) -> io::Result<Summary> {
    let mut summary = Summary::default();
    let mut begun = 0;
    let stdout = worker.stdout.take().expect("it was piped");
    for line in BufReader::new(stdout).lines() {
        match serde_json::from_str(&line?)? {
            Told::Begins(seed) => begun = seed,
            Told::Held(tally) => summary.tally.merge(&tally),
            Told::Broken {
                seed,
                checker,
                words,
            } => {
                summary.broken = Some(Broken {
                    seed,
                    checker,
                    words,
                });
            }
        }
    }
    let status = worker.wait()?;
    if !status.success() && summary.broken.is_none() {
        summary.broken = Some(Broken {
            seed: begun,
            checker: Checker::Panic,
            words: format!("the process of seed {begun} ended by {status}"),
        });
    }
    Ok(summary)
}
