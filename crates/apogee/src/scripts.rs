//! The binary under the names of Apache RocketMQ's scripts: `mqnamesrv`, `mqbroker`, `mqadmin`,
//! `mqshutdown`. Their command lines: spec `config.md` 1.5 and 1.7.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
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
    /// `-h`: to standard output, exit code 0.
    Help(&'static str),
    /// A mistake: the message to standard error, the usage to standard output, exit code 1.
    Wrong(String, &'static str),
}

/// What a command line means. A script is named by its first argument, else by the program itself,
/// which then is a link to ours.
pub fn call(args: &[String]) -> Option<Call> {
    let program = Path::new(args.first()?).file_name()?.to_str()?;
    let (name, rest) = match args.get(1).map(String::as_str) {
        Some(name) if NAMES.contains(&name) => (name, &args[2..]),
        _ => (program, &args[1..]),
    };
    Some(match name {
        "mqnamesrv" => server("namesrv", rest),
        "mqbroker" => server("broker", rest),
        "mqadmin" => Call::Admin(rest.to_vec()),
        "mqshutdown" => Call::Shutdown(rest.first().cloned()),
        _ => return None,
    })
}

/// Makes the scripts in `dir`. They are no links, because many call them as `sh mqbroker`; and like
/// Apache RocketMQ's they lie in the `bin` of the home directory, unless that is set.
pub fn link(dir: &Path) -> anyhow::Result<()> {
    let binary = std::env::current_exe()?;
    let quoted = binary.display().to_string().replace('\'', r"'\''");
    for name in NAMES {
        let path = dir.join(name);
        let failed = || format!("cannot make {}", path.display());
        let text = format!(
            "#!/bin/sh\n# Made by `apogee links`.\n\
             : \"${{ROCKETMQ_HOME:=$(dirname \"$(dirname \"$(readlink -f \"$0\")\")\")}}\"\n\
             export ROCKETMQ_HOME\nexec '{quoted}' {name} \"$@\"\n"
        );
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o755);
        let mut script = options.open(&path).with_context(failed)?;
        script.write_all(text.as_bytes()).with_context(failed)?;
        println!("{} -> {}", path.display(), binary.display());
    }
    Ok(())
}

/// `mqshutdown`: asks our servers of that role to stop. Exit code 1 if there is none; as upstream 0
/// for a word that is no role.
pub fn shut_down(role: Option<&str>) -> anyhow::Result<i32> {
    let role = match role {
        Some(role @ ("broker" | "namesrv")) => role,
        Some(role @ ("controller" | "proxy")) => {
            println!("No mq{role} running.");
            return Ok(1);
        }
        Some("brokerContainer") => {
            println!("No broker container running.");
            return Ok(1);
        }
        _ => {
            println!("Usage: mqshutdown broker | namesrv | controller | proxy");
            return Ok(0);
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
        // The file may have been replaced by a newer one since.
        let binary = binary.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
        let same = Path::new(&binary).file_name().map(ToOwned::to_owned) == own_name;
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
fn server(role: &'static str, args: &[String]) -> Call {
    let mut ours: Vec<OsString> = vec!["apogee".into(), role.into()];
    let mut is_help = false;
    let wrong = |message: String| Call::Wrong(message, usage(role));
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some((name, short, takes_value, attached)) = option(role, arg) else {
            match arg.as_str() {
                "--enable-proxy" => return wrong(format!("{arg}: there is no proxy yet")),
                _ if arg.starts_with('-') => return wrong(format!("Unrecognized option: {arg}")),
                _ => continue,
            }
        };
        is_help |= name == "help";
        ours.push(format!("--{name}").into());
        if takes_value {
            let Some(value) = attached.or(args.next().map(String::as_str)) else {
                return wrong(format!("Missing argument for option: {short}"));
            };
            ours.push(value.trim_matches('"').into());
        }
    }
    if is_help { Call::Help(usage(role)) } else { Call::Ours(ours) }
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

/// As commons-cli formats it from upstream's options.
fn usage(role: &str) -> &'static str {
    match role {
        "broker" => {
            "\
usage: mqbroker [-c <arg>] [-h] [-m] [-n <arg>] [-p]
 -c,--configFile <arg>       Broker config properties file
 -h,--help                   Print help
 -m,--printImportantConfig   Print important config item
 -n,--namesrvAddr <arg>      Name server address list, eg: '192.168.0.1:9876;192.168.0.2:9876'
 -p,--printConfigItem        Print all config item"
        }
        _ => {
            "\
usage: mqnamesrv [-c <arg>] [-h] [-n <arg>] [-p]
 -c,--configFile <arg>    Name server config properties file
 -h,--help                Print help
 -n,--namesrvAddr <arg>   Name server address list, eg: '192.168.0.1:9876;192.168.0.2:9876'
 -p,--printConfigItem     Print all config items"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(line: &str) -> String {
        let args: Vec<String> = line.split(' ').map(ToOwned::to_owned).collect();
        match call(&args) {
            Some(Call::Ours(args)) => args.join(" ".as_ref()).into_string().unwrap(),
            Some(Call::Wrong(message, _)) => message,
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
        assert_eq!(translated("mqbroker -c"), "Missing argument for option: c");
        assert_eq!(translated("mqbroker --conf"), "Missing argument for option: c");
        assert_eq!(translated("apogee mqbroker -p"), "apogee broker --printConfigItem");
        assert_eq!(
            call(&["mqbroker", "-p", "-h"].map(Into::into)),
            Some(Call::Help(usage("broker")))
        );
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
        assert!(has_role(&args("/opt/apogee mqnamesrv -c f"), "namesrv"));
        assert!(!has_role(&args("/opt/apogee mqshutdown namesrv"), "namesrv"));
    }
}
