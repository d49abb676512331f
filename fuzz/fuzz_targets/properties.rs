//! See `apogee_fuzz::properties`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apogee_fuzz::properties(bytes));
