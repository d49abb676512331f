//! See `apogee_fuzz::header_binary`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| apogee_fuzz::header_binary(bytes));
