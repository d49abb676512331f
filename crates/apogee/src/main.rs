//! One binary that can be a name server, a broker, or both, and the tools for them.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::exit;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use args::{Broker, Cli, Command, Namesrv, Standalone};
use config::{Config, Role};
use scripts::Call;

mod args;
mod bench;
mod config;
mod consume;
mod greeting;
mod machine;
mod mqadmin;
mod produce;
mod retention;
mod roles;
mod scripts;
mod sim;
mod steps;
mod store;

fn main() {
    let args: Vec<String> = std::env::args_os().map(|arg| arg.to_string_lossy().into()).collect();
    let result = match scripts::call(&args) {
        None => run(std::env::args_os().collect()),
        Some(Call::Ours(ours)) => run(ours),
        Some(Call::Admin(args)) => start_logging(None, "warn").map(|()| exit(mqadmin::main(&args))),
        Some(Call::Shutdown(role)) => scripts::shut_down(role.as_deref()).map(|code| exit(code)),
        Some(Call::Help(usage)) => {
            println!("{usage}");
            exit(0);
        }
        Some(Call::Wrong(message, usage)) => {
            eprintln!("{message}");
            println!("{usage}");
            exit(1);
        }
    };
    if let Err(error) = result {
        eprintln!("apogee: {error:#}");
        exit(1);
    }
}

fn run(args: Vec<OsString>) -> anyhow::Result<()> {
    let cli = Cli::parse_from(args);
    // What a tool does is its output; its log speaks up only if something is wrong.
    let level = match cli.command {
        Some(Command::Produce(_) | Command::Consume(_) | Command::Bench(_)) => "warn",
        // Everything goes wrong there all the time.
        Some(Command::Sim(_)) => "off",
        // They say themselves what they find, better than a start that goes past it.
        Some(Command::Store(_)) => "off",
        _ => "info",
    };
    start_logging(cli.log, level)?;
    if cli.command.is_some() && cli.standalone.is_given() {
        anyhow::bail!("give options after the command; before it, only --log has a meaning");
    }
    match cli.command {
        None => standalone(cli.standalone),
        Some(Command::Namesrv(args)) => namesrv(args),
        Some(Command::Broker(args)) => broker(args),
        Some(Command::Produce(args)) => tool(produce::run(args)),
        Some(Command::Consume(args)) => tool(consume::run(args)),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Store(command)) => store::run(command).map(|code| match code {
            0 => {}
            code => exit(code),
        }),
        Some(Command::Sim(args)) => sim::run(&args),
        Some(Command::Links { dir }) => scripts::link(&dir),
        Some(Command::Protocol) => {
            greeting::say(&apogee_wire::remoting::requests::protocol_page());
            Ok(())
        }
        Some(Command::Settings) => {
            greeting::print_manual();
            Ok(())
        }
    }
}

/// Runs a command to its end; standard input may still be waiting for a line, so nothing is joined.
fn tool(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}

fn start_logging(level: Option<String>, default: &str) -> anyhow::Result<()> {
    let level = level.or_else(|| std::env::var("APOGEE_LOG").ok()).unwrap_or(default.into());
    let filter: Targets = level.parse().with_context(|| format!("--log {level}"))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    Ok(())
}

fn standalone(args: Standalone) -> anyhow::Result<()> {
    let given = [
        ("storePathRootDir", args.data.map(|dir| dir.to_string_lossy().into_owned())),
        ("listenPort", args.broker_port.map(|port| port.to_string())),
        ("bindAddress", args.bind),
    ];
    let config = load(Role::Standalone, args.config.as_deref(), &given)?;
    roles::standalone(config, args.port.unwrap_or(9876))
}

fn namesrv(args: Namesrv) -> anyhow::Result<()> {
    let mut config = load(Role::Namesrv, args.config.as_deref(), &[])?;
    if args.print {
        greeting::print_settings(&config.rows(), false);
        return Ok(());
    }
    roles::namesrv(config)
}

fn broker(args: Broker) -> anyhow::Result<()> {
    let given = [("namesrvAddr", args.namesrv_addr)];
    let mut config = load(Role::Broker, args.config.as_deref(), &given)?;
    if args.print || args.print_important {
        greeting::print_settings(&config.rows(), !args.print);
        return Ok(());
    }
    roles::broker(config)
}

fn load(
    role: Role,
    file: Option<&std::path::Path>,
    flags: &[(&'static str, Option<String>)],
) -> anyhow::Result<Config> {
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let given = flags.iter().filter_map(|(key, value)| Some((*key, value.clone()?)));
    let given: Vec<_> = given.collect();
    let mut config = Config::load(role, file, &environment, &given)?;
    if role != Role::Namesrv {
        config.adopt_sizes()?;
    }
    for notice in &config.notices {
        match notice.is_warning {
            true => tracing::warn!("{}", notice.text),
            false => tracing::info!("{}", notice.text),
        }
    }
    Ok(config)
}
