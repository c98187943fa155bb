//! The doors of the fuzz targets, in every run: the kept corpus, and mutations of it from a seed.

use std::{fs, path::PathBuf};

use world::{Random, sim};

use crate::fuzzing::any;

/// Inputs made of the corpus. As many as a second or two allows; the fuzzer proper runs for longer.
const MUTATIONS: u64 = 1500;

fn corpus() -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/wal");
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn no_input_of_the_corpus_and_no_mutation_of_one_breaks_an_invariant() {
    let corpus = corpus();
    assert!(corpus.len() > 10, "{} inputs", corpus.len());
    for input in &corpus {
        any(input);
    }
    for seed in 0..MUTATIONS {
        let random = sim::Random::new(seed);
        let below =
            |limit: usize| usize::try_from(random.number().unwrap() % limit as u64).unwrap();
        let mut input = corpus[below(corpus.len())].clone();
        for _ in 0..=below(6) {
            let at = below(input.len() + 1);
            match below(4) {
                0 => input.insert(at, u8::try_from(below(256)).unwrap()),
                1 => input.truncate(at),
                _ if at < input.len() => input[at] = u8::try_from(below(256)).unwrap(),
                _ => input.push(0),
            }
        }
        any(&input);
    }
}
