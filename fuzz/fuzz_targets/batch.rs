//! See `apogee_fuzz::batch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apogee_fuzz::batch(bytes));
