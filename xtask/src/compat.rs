//! `cargo xtask test`, `compat` and `door`: the suites, ours and those of foreign clients.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::commands::{self, cargo, command, run};
use crate::{peers, tools};

/// Java clients that must work: what is current, and what many still run.
const JAVA_CLIENTS: [&str; 2] = ["5.5.0", "4.9.8"];

#[derive(Args)]
pub struct CompatArgs {
    /// The server under test. With the real one the suite tests itself.
    #[arg(long, value_enum, default_value = "apogee")]
    peer: Peer,
    /// Versions of the Java client.
    #[arg(long, value_name = "VERSION", value_delimiter = ',', default_values = JAVA_CLIENTS)]
    client: Vec<String>,
    /// Where Apache RocketMQ lies or will be fetched to.
    #[arg(long, value_name = "DIR")]
    apache_home: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Peer {
    Apogee,
    Apache,
}

/// Everything, from the cheapest to the slowest.
pub fn test() -> anyhow::Result<()> {
    let started = Instant::now();
    tools::require_network_and_mounts()?;
    tools::require()?;
    run(&mut cargo(&["test", "--locked", "--workspace"]))?;
    let program = commands::build_apogee()?;
    let clients = JAVA_CLIENTS.map(str::to_owned);
    foreign_clients(&Server::Apogee(&program), &clients)?;
    two_way_door(&program)?;
    // What Apache RocketMQ does not pass would be no test of compatibility.
    let home = peers::fetch_apache(peers::APACHE_VERSION, None)?;
    java_client(&Server::Apache(&home), JAVA_CLIENTS[0])?;
    println!("\nall tests passed in {} s", started.elapsed().as_secs());
    Ok(())
}

pub fn compat(args: &CompatArgs) -> anyhow::Result<()> {
    tools::require()?;
    match args.peer {
        Peer::Apogee => {
            let program = commands::build_apogee()?;
            foreign_clients(&Server::Apogee(&program), &args.client)
        }
        Peer::Apache => {
            let home = peers::fetch_apache(peers::APACHE_VERSION, args.apache_home.as_deref())?;
            foreign_clients(&Server::Apache(&home), &args.client)
        }
    }
}

/// Lets Apache RocketMQ and Apogee take turns on one store.
pub fn door() -> anyhow::Result<()> {
    tools::require()?;
    two_way_door(&commands::build_apogee()?)
}

fn two_way_door(program: &Path) -> anyhow::Result<()> {
    let home = |version| Ok(peers::fetch_apache(version, None)?.display().to_string());
    let versions = [peers::APACHE_VERSION, peers::APACHE_VERSION_OLD];
    let homes = versions.map(home).into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let mut maven = command("mvn", &["-q", "-B", "-f", "compat/java", "test", "-Dtest=DoorTest"]);
    maven.arg(format!("-Ddoors={}", homes.join(",")));
    run(maven.arg(format!("-Dapogee.bin={}", program.display())))
}

enum Server<'a> {
    /// The program.
    Apogee(&'a Path),
    /// The directory with its jars.
    Apache(&'a Path),
}

fn foreign_clients(server: &Server<'_>, java_clients: &[String]) -> anyhow::Result<()> {
    java_clients.iter().try_for_each(|version| java_client(server, version))?;
    let (peer, variable, path) = match server {
        Server::Apogee(path) => ("apogee", "APOGEE_BIN", path),
        Server::Apache(path) => ("apache", "APACHE_HOME", path),
    };
    let mut go = command("go", &["test", "-count=1", "./..."]);
    go.current_dir(commands::root().join("compat/go"));
    run(go.env("PEER", peer).env(variable, path))
}

fn java_client(server: &Server<'_>, version: &str) -> anyhow::Result<()> {
    let (peer, property, path) = match server {
        Server::Apogee(path) => ("apogee", "apogee.bin", path),
        Server::Apache(path) => ("apache", "apache.home", path),
    };
    let mut maven = command("mvn", &["-q", "-B", "-f", "compat/java", "test"]);
    maven.arg(format!("-Dpeer={peer}")).arg(format!("-Dclient.version={version}"));
    run(maven.arg(format!("-D{property}={}", path.display())))
}
