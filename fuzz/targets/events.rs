//! The doors of the events plane; the first byte of an input chooses one.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| events::fuzzing::any(input));
