//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::consume::ConsumeArgs;
use crate::produce::ProduceArgs;
use crate::sim::SimArgs;
use crate::store::StoreCommand;

/// A messaging server that speaks Apache RocketMQ's protocol. Without a command it is a name server
/// and a broker in one process.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub standalone: Standalone,
    /// What is logged: off, error, warn, info, debug, trace, or `apogee_broker=debug,info`
    /// [default: APOGEE_LOG in the environment, else info].
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
}

/// Name server and broker in one process.
#[derive(Debug, Args)]
pub struct Standalone {
    /// Where messages are kept [default: ./data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Port for clients; name server and broker both answer on it [default: 9876].
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Port of the broker alone, as clients of Apache RocketMQ know it [default: 10911].
    #[arg(long, value_name = "PORT")]
    pub broker_port: Option<u16>,
    /// Address to listen on [default: 0.0.0.0].
    #[arg(long, value_name = "ADDR")]
    pub bind: Option<String>,
    /// File of settings, as `broker.conf` of Apache RocketMQ.
    #[arg(short = 'c', long = "config", alias = "configFile", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Standalone {
    /// Whether any of these was given, which says nothing to the commands.
    pub fn is_given(&self) -> bool {
        let Self { data, port, broker_port, bind, config } = self;
        data.is_some()
            || port.is_some()
            || broker_port.is_some()
            || bind.is_some()
            || config.is_some()
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a name server.
    Namesrv(Namesrv),
    /// Run a broker.
    Broker(Broker),
    /// Send messages to a topic of any RocketMQ cluster.
    Produce(ProduceArgs),
    /// Print the messages of a topic of any RocketMQ cluster as they come.
    Consume(ConsumeArgs),
    /// Check, print or repair a store directory while no broker runs on it.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Measure any RocketMQ cluster.
    Bench(BenchArgs),
    /// Live histories of a node in a simulation, and say which break a promise: for developers.
    #[command(hide = true)]
    Sim(SimArgs),
    /// Make the scripts mqnamesrv, mqbroker, mqadmin and mqshutdown, which run this program.
    Links {
        /// Where to make them.
        dir: PathBuf,
    },
    /// Print every request of the remoting protocol.
    Protocol,
    /// Print every setting with its default, in Markdown.
    Settings,
}

#[derive(Debug, Default, Args)]
pub struct Namesrv {
    /// File of settings, as `namesrv.conf` of Apache RocketMQ.
    #[arg(short = 'c', long = "config", alias = "configFile", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print all settings and exit.
    #[arg(short = 'p', long = "print", alias = "printConfigItem")]
    pub print: bool,
    /// Accepted for compatibility.
    #[arg(short = 'n', long = "namesrvAddr", hide = true)]
    pub namesrv_addr: Option<String>,
}

#[derive(Debug, Default, Args)]
pub struct Broker {
    /// File of settings, as `broker.conf` of Apache RocketMQ.
    #[arg(short = 'c', long = "config", alias = "configFile", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name servers to register with, `host:port;host:port`.
    #[arg(short = 'n', long = "namesrv-addr", alias = "namesrvAddr", value_name = "ADDRS")]
    pub namesrv_addr: Option<String>,
    /// Print all settings and exit.
    #[arg(short = 'p', long = "print", alias = "printConfigItem")]
    pub print: bool,
    /// Print the important settings and exit.
    #[arg(short = 'm', long = "print-important", alias = "printImportantConfig")]
    pub print_important: bool,
}
