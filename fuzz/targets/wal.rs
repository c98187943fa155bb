//! The journal's doors; the first byte of an input chooses one.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| wal::fuzzing::any(input));
