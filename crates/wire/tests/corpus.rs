//! The kept inputs of the fuzz targets, run as a plain test.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

#[test]
#[allow(clippy::disallowed_methods, reason = "a test reads its inputs from the repository")]
fn no_kept_input_fails() {
    for (name, run) in targets::TARGETS {
        let folder = format!("{}/../../fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).expect("each target has a corpus") {
            let path = entry.unwrap().path();
            run(&std::fs::read(&path).unwrap());
            count += 1;
        }
        assert!((1..40).contains(&count), "{name}: {count} inputs");
    }
}
