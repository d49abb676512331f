//! See `apogee_fuzz::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apogee_fuzz::config(bytes));
