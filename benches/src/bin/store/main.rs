//! The store against its own journal, fjall and redb.
//!
//! `cargo run --release --bin store -- [commit|load|read] [--rounds N] [--keys N] [--dir DIR]`
//!
//! `commit`: durable single commits against appends of as many bytes to a journal, by 1, 8 and 64
//! threads. `load`: a new store is filled in durable batches of 1000. `read`: random reads, first
//! as the load left the tables, then merged; time is that of the processor, so that neighbours
//! count less.

mod engine;

use std::{fs, path::Path, process::ExitCode, sync::Arc, thread, time::Instant};

use benches::{Series, interleave, machine, number, option, print_table, require, scratch};
use engine::{Dice, Engine, item};
use wal::{Journal, Local, RecordKind};

const BATCH: u64 = 1000;
/// A commit record of one item.
const RECORD: [u8; 194] = [7; 194];
/// Reads of one engine before the next has its turn.
const READS: u64 = 50_000;

fn main() -> ExitCode {
    println!("{}", machine());
    let wanted = std::env::args()
        .nth(1)
        .filter(|word| !word.starts_with("--"));
    let is_wanted = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let dir = scratch();
    let keys = number("--keys", 1_000_000) as u64;
    let mut holds = true;
    if is_wanted("commit") {
        holds &= commit(&dir.path().join("commit"));
    }
    if is_wanted("load") {
        holds &= load(&dir.path().join("load"), keys);
    }
    if is_wanted("read") {
        holds &= read(&dir.path().join("read"), keys);
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Something durable, `each` times by each of `threads`; how often in a second.
type Durable = Box<dyn FnMut(u64, u64) -> f64>;

fn at_once(threads: u64, each: u64, body: impl Fn(u64) + Sync) -> f64 {
    let start = Instant::now();
    thread::scope(|scope| {
        for index in 0..threads {
            let body = &body;
            scope.spawn(move || (0..each).for_each(|turn| body(index * each + turn)));
        }
    });
    (threads * each) as f64 / start.elapsed().as_secs_f64()
}

fn commit(dir: &Path) -> bool {
    let store = engine::open("holdfast", &dir.join("store"));
    let options = wal::Options::on_this_machine(dir.join("journal"));
    let (journal, _) = Local::open(options).expect("a new journal");
    let journal = Arc::new(journal);
    let mut round = 0;
    let commits: Durable = Box::new(move |threads, each| {
        round += 1;
        at_once(threads, each, |turn| {
            store.write(&[item(round << 32 | turn)])
        })
    });
    let appends: Durable = Box::new(move |threads, each| {
        at_once(threads, each, |_| {
            let record = [(RecordKind(99), RECORD.as_slice())];
            journal.append(&record).expect("a sound disk");
        })
    });
    let mut contestants = [
        ("commits".to_owned(), commits),
        ("appends".to_owned(), appends),
    ];
    let mut holds = true;
    for (threads, each) in [(1, 500), (8, 200), (64, 100)] {
        let measure = |durable: &mut Durable| durable(threads, each);
        let series = interleave(number("--rounds", 11), &mut contestants, measure);
        print_table(&format!("durable, {threads} at once"), "a second", &series);
        if threads == 1 {
            holds &= require("single commits", &series[0], &series[1], 0.8);
        }
    }
    holds
}

fn fill(engine: &dyn Engine, keys: u64) {
    for first in (0..keys).step_by(BATCH as usize) {
        let items: Vec<_> = (first..(first + BATCH).min(keys)).map(item).collect();
        engine.write(&items);
    }
}

fn load(dir: &Path, keys: u64) -> bool {
    let names = engines(&["holdfast", "fjall"]);
    let mut contestants = names.map(|name| (name.clone(), name));
    let series = interleave(number("--rounds", 5), &mut contestants, |name| {
        let engine = engine::open(name, dir);
        let start = Instant::now();
        fill(&*engine, keys);
        let rate = keys as f64 / start.elapsed().as_secs_f64();
        drop(engine);
        fs::remove_dir_all(dir).expect("removing what was loaded");
        rate
    });
    print_table("load in durable batches of 1000", "keys a second", &series);
    require("load", &series[0], &series[1], 1.0 / 1.2)
}

fn engines<const N: usize>(names: &[&str; N]) -> [String; N] {
    names.map(str::to_owned)
}

/// Processor time of this thread in seconds.
fn processor_time() -> f64 {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path).expect("a Linux with scheduler statistics");
    let nanos = text
        .split_whitespace()
        .next()
        .and_then(|word| word.parse::<f64>().ok());
    nanos.expect("nanoseconds come first") / 1e9
}

struct Loaded {
    engine: Box<dyn Engine>,
    keys: u64,
    dice: Dice,
}

impl Loaded {
    /// Reads a second of processor time; keys are made beforehand.
    fn reads(&mut self) -> f64 {
        let draw = |_| {
            let number = self.dice.next() % self.keys;
            (number, item(number).0)
        };
        let keys: Vec<_> = (0..READS).map(draw).collect();
        let reader = self.engine.reader();
        let start = processor_time();
        for (number, key) in &keys {
            assert_eq!(reader.get(key), Some(*number));
        }
        READS as f64 / (processor_time() - start)
    }

    fn absent(&mut self) -> f64 {
        let keys: Vec<_> = (0..READS)
            .map(|_| item(self.dice.next() | 1 << 63).0)
            .collect();
        let reader = self.engine.reader();
        let start = processor_time();
        for key in &keys {
            assert_eq!(reader.get(key), None);
        }
        READS as f64 / (processor_time() - start)
    }

    fn ranges(&mut self) -> f64 {
        let keys: Vec<_> = (0..READS / 10).map(|_| item(self.dice.next()).0).collect();
        let reader = self.engine.reader();
        let start = processor_time();
        let found: usize = keys.iter().map(|key| reader.range(key, 10)).sum();
        assert!(found > keys.len() * 9);
        keys.len() as f64 / (processor_time() - start)
    }
}

fn read(dir: &Path, keys: u64) -> bool {
    let names = if option("--without-redb").is_some() {
        vec!["holdfast", "fjall"]
    } else {
        vec!["holdfast", "redb", "fjall"]
    };
    let mut contestants: Vec<_> = names
        .iter()
        .map(|name| {
            let engine = engine::open(name, &dir.join(name));
            fill(&*engine, keys);
            let dice = Dice(99);
            ((*name).to_owned(), Loaded { engine, keys, dice })
        })
        .collect();
    let mut holds = true;
    for state in ["as loaded", "merged"] {
        // Into the caches.
        contestants.iter_mut().for_each(|(_, loaded)| {
            for _ in 0..keys / READS {
                loaded.reads();
            }
        });
        let rounds = number("--rounds", 21);
        let mut table = |what: &str, measure: fn(&mut Loaded) -> f64| -> Vec<Series> {
            let series = interleave(rounds, &mut contestants, measure);
            print_table(&format!("{what}, {state}"), "a second", &series);
            series
        };
        let series = table("random reads", Loaded::reads);
        table("absent keys", Loaded::absent);
        table("ranges of 10", Loaded::ranges);
        let (ours, theirs) = (&series[0], series.last().expect("two at least"));
        holds &= require(&format!("random reads, {state}"), ours, theirs, 1.0);
        contestants
            .iter_mut()
            .for_each(|(_, loaded)| loaded.engine.compact());
    }
    holds
}
