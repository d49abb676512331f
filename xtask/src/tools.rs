//! What the tests need beyond Rust: a JDK, Maven, Go, iproute2 and to be root; and the benchmarks
//! strace.

use std::process::{Command, Stdio};

use anyhow::bail;

use crate::commands::{command, run};

struct Tool {
    /// Prints its version on either stream.
    program: &'static str,
    version: &'static str,
    is_enough: fn(&str) -> bool,
    package: &'static str,
    what: &'static str,
}

const TOOLS: [Tool; 3] = [
    Tool {
        program: "javac",
        version: "-version",
        is_enough: |text| number_after(text, "javac ").is_some_and(|major| 17 <= major),
        package: "openjdk-17-jdk-headless",
        what: "JDK 17",
    },
    Tool {
        program: "mvn",
        version: "--version",
        is_enough: |text| text.contains("Apache Maven"),
        package: "maven",
        what: "Maven",
    },
    Tool {
        program: "go",
        version: "version",
        is_enough: |text| text.contains("go version"),
        package: "golang-go",
        what: "Go",
    },
];

/// Makes the networks of `reach.rs`.
const IP: Tool = Tool {
    program: "ip",
    version: "-V",
    is_enough: |text| text.contains("iproute2"),
    package: "iproute2",
    what: "iproute2",
};

/// Makes a disk slow, for `store-bench`.
const STRACE: Tool = Tool {
    program: "strace",
    version: "--version",
    is_enough: |text| text.contains("strace"),
    package: "strace",
    what: "strace",
};

fn number_after(text: &str, word: &str) -> Option<u32> {
    let rest = text.split_once(word)?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What the tests with foreign clients need.
pub fn require() -> anyhow::Result<()> {
    find_or_install(&TOOLS)
}

/// What our own need.
pub fn require_network_and_mounts() -> anyhow::Result<()> {
    if !rustix::process::getuid().is_root() {
        bail!(
            "run it as root: tests make networks and mount file systems (reach.rs and disk.rs of \
             crates/apogee/tests); those with foreign clients alone: cargo xtask compat"
        );
    }
    find_or_install(&[IP])
}

pub fn require_strace() -> anyhow::Result<()> {
    find_or_install(&[STRACE])
}

/// Installs what is missing where it may.
fn find_or_install(tools: &[Tool]) -> anyhow::Result<()> {
    let missing: Vec<_> = tools.iter().filter(|tool| !is_there(tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let whats: Vec<_> = missing.iter().map(|tool| tool.what).collect();
    if !rustix::process::getuid().is_root() || !answers("apt-get", "--version") {
        bail!("install {} first", whats.join(", "));
    }
    run(&mut command("apt-get", &["update", "-qq"]))?;
    let mut install = command("apt-get", &["install", "-qq", "-y", "--no-install-recommends"]);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    run(install.args(missing.iter().map(|tool| tool.package)))?;
    match missing.iter().find(|tool| !is_there(tool)) {
        None => Ok(()),
        Some(tool) => bail!("package {} is installed and gives no {}", tool.package, tool.what),
    }
}

fn is_there(tool: &Tool) -> bool {
    let output = Command::new(tool.program).arg(tool.version).stdin(Stdio::null()).output();
    output.is_ok_and(|output| {
        let text = [output.stdout, output.stderr].concat();
        (tool.is_enough)(&String::from_utf8_lossy(&text))
    })
}

fn answers(program: &str, arg: &str) -> bool {
    Command::new(program).arg(arg).output().is_ok_and(|output| output.status.success())
}
