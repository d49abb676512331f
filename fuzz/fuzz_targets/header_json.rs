//! See `apogee_fuzz::header_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apogee_fuzz::header_json(bytes));
