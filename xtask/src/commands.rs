//! Runs other programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// A command of words, run from the root of the workspace.
pub fn command(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(root());
    command
}

/// Says what it does, runs it, and fails if it does.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let text = text(command);
    println!("\n$ {text}");
    let status = command.status().with_context(|| text.clone())?;
    ensure!(status.success(), "`{text}` failed: {status}");
    Ok(())
}

/// What it prints.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let text = text(command);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| text.clone())?;
    ensure!(output.status.success(), "`{text}` failed: {}", output.status);
    String::from_utf8(output.stdout).with_context(|| text)
}

fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Cargo itself, as it runs us.
pub fn cargo(args: &[&str]) -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), args)
}

/// Builds the program as it is released, and says where it is.
pub fn build_apogee() -> anyhow::Result<PathBuf> {
    run(&mut cargo(&["build", "--release", "--package", "apogee"]))?;
    Ok(target_dir().join("release/apogee"))
}

pub fn target_dir() -> PathBuf {
    let dir = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(dir)
}
