//! See `apogee_fuzz::requests`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apogee_fuzz::requests(bytes));
