//! The hub's command line. Results go to stdout, what happened to stderr.

use std::io::{self, BufWriter, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use edgewarden_hub::broker::Listen;
use edgewarden_hub::demo;
use edgewarden_hub::query::{self, Format, QueryError};
use edgewarden_hub::rows::{self, PrintError};
use edgewarden_hub::serve;
use edgewarden_hub::store::Store;
use edgewarden_hub::store::read::Filter;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The other end of Edgewarden for those who have none: MQTT broker and event store.
#[derive(Parser)]
#[command(name = "edgewarden-hub", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take messages over MQTT and store them; acknowledged is what is on disk.
    Serve(ServeArgs),
    /// Print stored rows, oldest first.
    Rows(RowsArgs),
    /// Ask the store in the Kusto Query Language; docs/kql.md lists what is there of it.
    Query(QueryArgs),
    /// Show hub and agent at work on this machine: real activity, and the rows it leads to. Needs no root.
    Demo(DemoArgs),
}

#[derive(Args)]
struct ServeArgs {
    /// Name of this hub; queries find it in AssociatedResourceId.
    #[arg(long, value_name = "NAME")]
    hub: String,
    /// Address and port; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:1883")]
    listen: SocketAddr,
    #[command(flatten)]
    state: StateArg,
    /// PEM file of the certificate chain, for TLS instead of plain TCP.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Topic the devices publish to; {deviceId} is one level of it.
    #[arg(long, value_name = "TOPIC", default_value = "edgewarden/{deviceId}/security")]
    topic: String,
}

#[derive(Args)]
struct RowsArgs {
    #[command(flatten)]
    state: StateArg,
    /// Only rows of this device.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Only rows of this kind, for example Login.
    #[arg(long, value_name = "KIND")]
    name: Option<String>,
    /// One JSON object a line instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct QueryArgs {
    /// A file with the query, the query itself, or `-` for standard input.
    #[arg(value_name = "FILE|TEXT|-", default_value = "-")]
    query: String,
    #[command(flatten)]
    state: StateArg,
    /// The store's file, instead of its directory.
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    db: Option<PathBuf>,
    /// How the rows are written.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Args)]
struct DemoArgs {
    /// Leave the temporary directory with the store and the logs.
    #[arg(long)]
    keep: bool,
    /// The agent's program [default: edgewarden beside this one].
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
}

#[derive(Args)]
struct StateArg {
    /// Directory of the store [default: $STATE_DIRECTORY, else /var/lib/edgewarden-hub].
    #[arg(long = "state", value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl StateArg {
    fn dir(self) -> PathBuf {
        let systemd = || std::env::var_os("STATE_DIRECTORY").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        self.dir.or_else(systemd).unwrap_or_else(|| PathBuf::from("/var/lib/edgewarden-hub"))
    }
}

fn main() -> ExitCode {
    // The broker crate reports every connection; its errors are enough.
    let levels = Targets::new().with_default(LevelFilter::ERROR).with_target("edgewarden_hub", LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines).with(levels).init();
    let done = match Cli::parse().command {
        Command::Serve(args) => serve(args),
        Command::Rows(args) => print_rows(args),
        Command::Query(args) => ask(args),
        Command::Demo(args) => demo(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve(args: ServeArgs) -> Result<(), String> {
    let listen = Listen { address: args.listen, tls: args.tls_cert.zip(args.tls_key) };
    let settings = serve::Settings { hub: args.hub, listen, state: args.state.dir(), topic: args.topic };
    serve::run(&settings, &mut io::stdout()).await
}

#[tokio::main(flavor = "current_thread")]
async fn demo(args: DemoArgs) -> Result<(), String> {
    demo::run(&demo::Options { keep: args.keep, agent: args.agent }, &mut io::stdout()).await
}

fn print_rows(args: RowsArgs) -> Result<(), String> {
    let store = Store::open_to_read(&args.state.dir()).map_err(|error| error.to_string())?;
    let filter = Filter { device: args.device.as_deref(), name: args.name.as_deref() };
    match rows::print(&store, filter, args.json, &mut BufWriter::new(io::stdout().lock())) {
        // The reader has seen enough, as `head` does.
        Err(PrintError::Out(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(PrintError::Out(error)) => Err(format!("stdout: {error}")),
        Err(PrintError::Store(error)) => Err(error.to_string()),
        Ok(()) => Ok(()),
    }
}

fn ask(args: QueryArgs) -> Result<(), String> {
    let text = query::text(&args.query)?;
    let store = match args.db {
        Some(file) => Store::open_file_to_read(&file),
        None => Store::open_to_read(&args.state.dir()),
    };
    let store = store.map_err(|error| error.to_string())?;
    match query::print(&text, &store, args.format, &mut BufWriter::new(io::stdout().lock())) {
        Err(QueryError::Out(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(()) => Ok(()),
    }
}
