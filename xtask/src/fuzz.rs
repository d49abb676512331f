//! `cargo xtask fuzz`: every target of `fuzz/` for a while, with the stable compiler and no other
//! tool than a C++ compiler for the engine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, ensure};
use clap::Args;

use crate::commands::{self, cargo, command, output, root};

/// What the engine needs to see which branches an input takes; as cargo-fuzz has it, without a
/// sanitizer: the code under test has no `unsafe`.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0 -Ccodegen-units=1 -Cdebug-assertions";

#[derive(Args)]
pub struct FuzzArgs {
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// How many run at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Only these, by name.
    targets: Vec<String>,
}

pub fn run(args: &FuzzArgs) -> anyhow::Result<()> {
    let dir = commands::target_dir().join("fuzz");
    let programs = build(&dir)?;
    let all = names()?;
    for name in &args.targets {
        ensure!(all.contains(name), "no target is called {name}; there are {}", all.join(", "));
    }
    let is_meant = |name: &String| args.targets.is_empty() || args.targets.contains(name);
    let waiting = Mutex::new(all.into_iter().filter(is_meant));
    let next = || waiting.lock().ok()?.next();
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some(name) = next() {
            match fuzz(&programs.join(&name), &name, &dir, args.seconds) {
                Ok(summary) => println!("{name:14} {summary}"),
                Err(error) => {
                    println!("{name:14} FAILED: {error:#}");
                    failed.lock().expect("nobody panics while holding it").push(name);
                }
            }
        }
    };
    std::thread::scope(|scope| (0..args.jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner()?;
    ensure!(failed.is_empty(), "these fuzz targets failed: {}", failed.join(", "));
    Ok(())
}

/// Builds all targets, and says where they are.
fn build(dir: &Path) -> anyhow::Result<PathBuf> {
    let about = output(&mut command("rustc", &["-vV"]))?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc -vV does not name the host")?;
    // Naming the host keeps the flags away from build scripts.
    let args = ["build", "--locked", "--release", "--manifest-path", "fuzz/Cargo.toml", "--bins"];
    let mut cargo = cargo(&args);
    cargo.args(["--target", host, "--target-dir"]).arg(dir).env("RUSTFLAGS", FLAGS);
    commands::run(cargo.env_remove("CARGO_ENCODED_RUSTFLAGS"))?;
    Ok(dir.join(host).join("release"))
}

/// Every file of `fuzz_targets` is one.
fn names() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in root().join("fuzz/fuzz_targets").read_dir().context("fuzz/fuzz_targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Runs one target; what it finds stays in `dir/found`, what breaks it in `dir/broken`.
fn fuzz(program: &Path, name: &str, dir: &Path, seconds: u32) -> anyhow::Result<String> {
    let (found, broken) = (dir.join("found").join(name), dir.join("broken").join(name));
    std::fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
    std::fs::create_dir_all(&broken).with_context(|| broken.display().to_string())?;
    let mut command = Command::new(program);
    command.args([format!("-max_total_time={seconds}"), "-print_final_stats=1".into()]);
    command.args(["-timeout=10".into(), format!("-artifact_prefix={}/", broken.display())]);
    // New inputs go to the first directory, the others are only read.
    command.arg(&found).arg(root().join("fuzz/corpus").join(name));
    let ended = command.output().with_context(|| program.display().to_string())?;
    let log = String::from_utf8_lossy(&ended.stderr);
    ensure!(
        ended.status.success(),
        "{}; the input is in {}\n{}",
        ended.status,
        broken.display(),
        last_lines(&log, 40)
    );
    Ok(summary(&log))
}

/// Executions, and how many edges and features of the code they have reached.
fn summary(log: &str) -> String {
    let executions =
        log.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let word_after = |name: &str| {
        let line = log.lines().rfind(|line| line.contains(" cov: "))?;
        line.split_whitespace().skip_while(|word| *word != name).nth(1)
    };
    format!(
        "{:>10} executions, {:>6} edges, {:>6} features",
        executions.unwrap_or("?").trim(),
        word_after("cov:").unwrap_or("?"),
        word_after("ft:").unwrap_or("?"),
    )
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
