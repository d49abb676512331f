//! The binary under the names of Apache RocketMQ's scripts: `mqnamesrv`, `mqbroker`, `mqadmin`,
//! `mqshutdown`. Their command lines: spec `config.md` 1.5 and 1.7.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context;
use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};

use crate::args::{Cli, Command};

/// The names under which the binary is a script.
const NAMES: [&str; 4] = ["mqnamesrv", "mqbroker", "mqadmin", "mqshutdown"];

/// Options of `mqnamesrv` and `mqbroker`: long and short name, whether a value follows.
const OPTIONS: [(&str, &str, bool); 5] = [
    ("configFile", "c", true),
    ("namesrvAddr", "n", true),
    ("printConfigItem", "p", false),
    ("printImportantConfig", "m", false),
    ("help", "h", false),
];

/// What a call under a script's name means.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// This command line of ours.
    Ours(Vec<OsString>),
    Admin(Vec<String>),
    Shutdown(Option<String>),
    /// A mistake: message, exit code 1.
    Wrong(String),
}

/// What a command line means, whose first word is the name of the program.
pub fn call(args: &[String]) -> Option<Call> {
    let program = Path::new(args.first()?).file_name()?.to_str()?;
    let rest = &args[1..];
    Some(match program {
        "mqnamesrv" => server("namesrv", rest),
        "mqbroker" => server("broker", rest),
        "mqadmin" => Call::Admin(rest.to_vec()),
        "mqshutdown" => Call::Shutdown(rest.first().cloned()),
        _ => return None,
    })
}

/// Makes the links in `dir`.
pub fn link(dir: &Path) -> anyhow::Result<()> {
    let binary = std::env::current_exe()?;
    for name in NAMES {
        let link = dir.join(name);
        std::os::unix::fs::symlink(&binary, &link)
            .with_context(|| format!("cannot make the link {}", link.display()))?;
        println!("{} -> {}", link.display(), binary.display());
    }
    Ok(())
}

/// `mqadmin`: which commands there are.
pub fn admin(_args: &[String]) -> i32 {
    eprintln!(
        "mqadmin: there are no commands yet; Apache RocketMQ's mqadmin works with this server"
    );
    1
}

/// `mqshutdown`: asks our servers of that role to stop. Exit code 1 if there is none.
pub fn shut_down(role: Option<&str>) -> anyhow::Result<i32> {
    let role = match role {
        Some(role @ ("broker" | "namesrv")) => role,
        _ => {
            println!("Usage: mqshutdown broker | namesrv");
            return Ok(1);
        }
    };
    let processes = running(role)?;
    if processes.is_empty() {
        println!("No mq{role} running.");
        return Ok(1);
    }
    let pids = processes.iter().map(|pid| pid.as_raw_nonzero().to_string());
    let pids = pids.collect::<Vec<_>>().join(" ");
    println!("The mq{role}({pids}) is running...");
    for pid in processes {
        kill_process(pid, Signal::TERM).with_context(|| format!("cannot stop process {pid:?}"))?;
    }
    println!("Send shutdown request to mq{role}({pids}) OK");
    Ok(0)
}

/// Our processes that have a role; a standalone server has both.
fn running(role: &str) -> anyhow::Result<Vec<Pid>> {
    let own_name = std::env::current_exe()?.file_name().map(ToOwned::to_owned);
    let mut found = Vec::new();
    for entry in Path::new("/proc").read_dir().context("cannot list processes")?.flatten() {
        let path = entry.path();
        let raw = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = raw.and_then(Pid::from_raw) else { continue };
        // Processes of others, and those that have just ended, cannot be read.
        let Ok(binary) = path.join("exe").read_link() else { continue };
        let same = binary.file_name().map(ToOwned::to_owned) == own_name;
        if same && has_role(&command_line(&path), role) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[allow(clippy::disallowed_methods, reason = "the process table is no disk")]
fn command_line(process: &Path) -> Vec<String> {
    let bytes = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.split_terminator('\0').map(ToOwned::to_owned).collect()
}

fn has_role(args: &[String], role: &str) -> bool {
    let cli = match call(args) {
        None => Cli::try_parse_from(args),
        Some(Call::Ours(args)) => Cli::try_parse_from(args),
        Some(_) => return false,
    };
    match cli.map(|cli| cli.command) {
        Ok(None) => true,
        Ok(Some(Command::Broker(_))) => role == "broker",
        Ok(Some(Command::Namesrv(_))) => role == "namesrv",
        _ => false,
    }
}

/// A command line as commons-cli takes it, as one of ours.
fn server(role: &str, args: &[String]) -> Call {
    let mut ours: Vec<OsString> = vec!["apogee".into(), role.into()];
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some((name, _, takes_value, attached)) = option(role, arg) else {
            if arg.starts_with('-') {
                return Call::Wrong(format!("Unrecognized option: {arg}\n{}", usage(role)));
            }
            continue;
        };
        ours.push(format!("--{name}").into());
        if takes_value {
            let Some(value) = attached.or(args.next().map(String::as_str)) else {
                return Call::Wrong(format!("Missing argument for option: {arg}\n{}", usage(role)));
            };
            ours.push(value.trim_matches('"').into());
        }
    }
    Call::Ours(ours)
}

/// The option that a word names, and the value in the same word.
fn option<'a>(
    role: &str,
    arg: &'a str,
) -> Option<(&'static str, &'static str, bool, Option<&'a str>)> {
    let word = arg.strip_prefix('-')?;
    let word = word.strip_prefix('-').unwrap_or(word);
    let (name, value) = word.split_once('=').map_or((word, None), |(name, v)| (name, Some(v)));
    let options = || OPTIONS.into_iter().filter(|(_, short, _)| role == "broker" || *short != "m");
    let exact = |(long, short, _): &(&str, &str, bool)| name == *long || name == *short;
    if let Some((long, short, takes_value)) = options().find(exact) {
        return Some((long, short, takes_value, value));
    }
    let mut prefixes = options().filter(|(long, ..)| 1 < name.len() && long.starts_with(name));
    if let (Some((long, short, takes_value)), None) = (prefixes.next(), prefixes.next()) {
        return Some((long, short, takes_value, value));
    }
    let joined = |(long, short, takes_value): (&'static str, &'static str, bool)| {
        let value = word.strip_prefix(short).filter(|_| takes_value && !arg.starts_with("--"))?;
        Some((long, short, takes_value, Some(value)))
    };
    options().find_map(joined)
}

fn usage(role: &str) -> String {
    let (important, line) = match role {
        "broker" => (" [-m]", " -m,--printImportantConfig   Print important config item\n"),
        _ => ("", ""),
    };
    format!(
        "usage: mq{role} [-c <arg>] [-h]{important} [-n <arg>] [-p]\n \
         -c,--configFile <arg>       Config properties file\n \
         -h,--help                   Print help\n\
         {line} \
         -n,--namesrvAddr <arg>      Name server address list, eg: 'localhost:9876;host2:9876'\n \
         -p,--printConfigItem        Print all config items"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> String {
        let args: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        match call(&args) {
            Some(Call::Ours(args)) => args.join(" ".as_ref()).into_string().unwrap(),
            Some(Call::Wrong(message)) => message.lines().next().unwrap().to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn every_form_of_an_option_that_java_takes_is_taken() {
        for form in ["-c f", "-cf", "--configFile f", "--configFile=f", "-configFile f", "--conf f"]
        {
            let line = format!("/opt/bin/mqbroker {form}");
            assert_eq!(translated(&line), "apogee broker --configFile f", "{form}");
        }
        let line = "mqbroker -n localhost:9876 -p -m word";
        let ours =
            "apogee broker --namesrvAddr localhost:9876 --printConfigItem --printImportantConfig";
        assert_eq!(translated(line), ours);
        assert_eq!(translated("mqnamesrv -x"), "Unrecognized option: -x");
        assert_eq!(translated("mqbroker -c"), "Missing argument for option: -c");
        assert_eq!(translated("apogee broker"), "None");
    }

    #[test]
    fn what_is_translated_is_understood() {
        let args = ["mqbroker", "-c", "f", "-n", "a:1", "-p", "-m"].map(ToOwned::to_owned);
        let Some(Call::Ours(ours)) = call(&args) else { panic!() };
        let Some(Command::Broker(broker)) = Cli::try_parse_from(ours).unwrap().command else {
            panic!()
        };
        assert_eq!(broker.namesrv_addr.as_deref(), Some("a:1"));
        assert!(broker.print && broker.print_important);
    }

    #[test]
    fn a_standalone_server_is_found_under_both_roles() {
        let args = |line: &str| line.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
        assert!(has_role(&args("apogee --data d"), "broker"));
        assert!(has_role(&args("apogee --data d"), "namesrv"));
        assert!(has_role(&args("mqbroker -c f"), "broker"));
        assert!(!has_role(&args("mqbroker -c f"), "namesrv"));
        assert!(!has_role(&args("mqshutdown broker"), "broker"));
    }
}
