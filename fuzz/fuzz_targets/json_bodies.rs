//! See `apogee_fuzz::json_bodies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apogee_fuzz::json_bodies(bytes));
