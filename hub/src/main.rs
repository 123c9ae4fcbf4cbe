//! The hub's command line. Results go to stdout, what happened to stderr.

use std::io::{self, BufWriter, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use edgewarden_hub::broker::{Listen, tls};
use edgewarden_hub::demo;
use edgewarden_hub::devices::command::DeviceArgs;
use edgewarden_hub::fleet;
use edgewarden_hub::import::{self, Table};
use edgewarden_hub::investigate::{self, InvestigateError};
use edgewarden_hub::kql::Limits;
use edgewarden_hub::query::{self, Format, QueryError};
use edgewarden_hub::rows::{self, PrintError};
use edgewarden_hub::serve;
use edgewarden_hub::store::Store;
use edgewarden_hub::store::read::Filter;
use edgewarden_hub::store::retention::Keep;
use jiff::Timestamp;
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
    /// Say which devices may log in with a password.
    Device(DeviceArgs),
    /// Print the devices that have reported: since and until when, how much, and what is missing of it.
    Devices(DevicesArgs),
    /// Print stored rows, oldest first.
    Rows(RowsArgs),
    /// Ask the store in the Kusto Query Language; docs/kql.md lists what is there of it.
    Query(QueryArgs),
    /// Say what there is to know about a device, findings first.
    Investigate(InvestigateArgs),
    /// Store events from files, and raise their alerts: for a machine without a network.
    Import(ImportArgs),
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
    /// PEM file of the authorities that vouch for devices: a certificate's common name is the device id.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    client_ca: Option<PathBuf>,
    /// PEM file of the certificates these authorities have taken back.
    #[arg(long, value_name = "FILE", requires = "client_ca")]
    client_crl: Option<PathBuf>,
    /// Devices that log in with a password, as `device add` writes them; read again when it changes.
    #[arg(long, value_name = "FILE")]
    devices: Option<PathBuf>,
    /// How many devices may be connected at once.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    max_connections: usize,
    /// Topic the devices publish to; {deviceId} is one level of it.
    #[arg(long, value_name = "TOPIC", default_value = "edgewarden/{deviceId}/security")]
    topic: String,
    /// Rows stay this many days after they came; 0 is for ever.
    #[arg(long, value_name = "N", default_value_t = 400)]
    keep_days: u32,
    /// The oldest rows leave when the store holds more bytes, at least 64 MiB; 0 is without limit.
    #[arg(long, value_name = "N", default_value_t = 10 << 30, value_parser = keep_bytes)]
    keep_bytes: u64,
}

fn keep_bytes(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 64 << 20;
    match text.parse::<u64>() {
        Ok(bytes) if bytes == 0 || bytes >= LEAST => Ok(bytes),
        Ok(_) => Err(format!("expected 0 or at least {LEAST}: refused messages and the log need room too")),
        Err(error) => Err(error.to_string()),
    }
}

#[derive(Args)]
struct RowsArgs {
    #[command(flatten)]
    state: StateArg,
    /// Which table.
    #[arg(long, value_enum, default_value_t)]
    table: Table,
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
struct DevicesArgs {
    #[command(flatten)]
    state: StateArg,
    /// Only devices that last spoke to this hub or, when they never did, whose newest row names it.
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// One JSON object a line instead of a table.
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
    /// How the rows are written.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// MiB of rows that are kept for sorting and grouping; a query that needs more ends with a sentence.
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    max_memory: u16,
    /// Seconds after which a query ends with a sentence.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    max_seconds: u32,
}

#[derive(Args)]
struct InvestigateArgs {
    /// The device id.
    #[arg(value_name = "DEVICE")]
    device: String,
    /// Only rows of hubs with this in their name.
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// How long before the device's last event to begin; what came first in this time is new.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = investigate::window)]
    since: i64,
    #[command(flatten)]
    state: StateArg,
    /// How the report is written.
    #[arg(long, value_enum, default_value_t)]
    format: investigate::Format,
}

#[derive(Args)]
struct ImportArgs {
    #[command(flatten)]
    state: StateArg,
    /// Which table the lines belong to.
    #[arg(long, value_enum, default_value_t)]
    table: Table,
    /// Name of the hub, for lines without AssociatedResourceId or ResourceId.
    #[arg(long, value_name = "NAME")]
    hub: Option<String>,
    /// Device of lines that name none: messages, and EventDetails objects.
    #[arg(long, value_name = "ID")]
    device: Option<String>,
    /// Kind of EventDetails objects, which do not say it, for example Login.
    #[arg(long, value_name = "KIND")]
    name: Option<String>,
    /// One JSON object a line: a message, a row, or an EventDetails object. May be compressed with gzip; `-` is standard
    /// input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
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
    /// The store's SQLite file itself, instead of events.db in that directory.
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    db: Option<PathBuf>,
}

impl StateArg {
    fn dir(self) -> PathBuf {
        let systemd = || std::env::var_os("STATE_DIRECTORY").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        self.dir.or_else(systemd).unwrap_or_else(|| PathBuf::from("/var/lib/edgewarden-hub"))
    }

    fn open(self) -> Result<Store, String> {
        let store = match self.db {
            Some(file) => Store::open_file(&file),
            None => Store::open(&self.dir()),
        };
        store.map_err(|error| error.to_string())
    }

    fn open_to_read(self) -> Result<Store, String> {
        let store = match self.db {
            Some(file) => Store::open_file_to_read(&file),
            None => Store::open_to_read(&self.dir()),
        };
        store.map_err(|error| error.to_string())
    }
}

fn main() -> ExitCode {
    // The broker crate reports every connection; its errors are enough.
    let levels = Targets::new().with_default(LevelFilter::ERROR).with_target("edgewarden_hub", LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    tracing_subscriber::registry().with(lines).with(levels).init();
    let done = match Cli::parse().command {
        Command::Serve(args) => serve(args),
        Command::Device(args) => args.run(&mut io::stdout()),
        Command::Devices(args) => print_devices(args),
        Command::Rows(args) => print_rows(args),
        Command::Query(args) => ask(args),
        Command::Investigate(args) => investigate(args),
        Command::Import(args) => import_files(args),
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
    let (client_ca, client_crl) = (args.client_ca, args.client_crl);
    let tls = args.tls_cert.zip(args.tls_key).map(|(cert, key)| tls::Files { cert, key, client_ca, client_crl });
    let listen = Listen { address: args.listen, tls, devices: args.devices, max_connections: args.max_connections };
    let keep = Keep {
        days: Some(args.keep_days).filter(|days| *days > 0),
        bytes: Some(args.keep_bytes).filter(|bytes| *bytes > 0),
    };
    let db = args.state.db.clone();
    let settings = serve::Settings { hub: args.hub, listen, state: args.state.dir(), db, topic: args.topic, keep };
    serve::run(&settings, &mut io::stdout()).await
}

#[tokio::main(flavor = "current_thread")]
async fn demo(args: DemoArgs) -> Result<(), String> {
    demo::run(&demo::Options { keep: args.keep, agent: args.agent }, &mut io::stdout()).await
}

fn print_rows(args: RowsArgs) -> Result<(), String> {
    let store = args.state.open_to_read()?;
    let filter = Filter { device: args.device.as_deref(), name: args.name.as_deref() };
    let mut out = BufWriter::new(io::stdout().lock());
    told(match args.table {
        Table::SecurityIoTRawEvent => rows::print(&store, filter, args.json, &mut out),
        Table::SecurityAlert => rows::print_alerts(&store, args.device.as_deref(), args.json, &mut out),
    })
}

fn print_devices(args: DevicesArgs) -> Result<(), String> {
    let store = args.state.open_to_read()?;
    let mut out = BufWriter::new(io::stdout().lock());
    told(fleet::print(&store, args.hub.as_deref(), Timestamp::now(), args.json, &mut out))
}

fn told(printed: Result<(), PrintError>) -> Result<(), String> {
    match printed {
        // The reader has seen enough, as `head` does.
        Err(PrintError::Out(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(PrintError::Out(error)) => Err(format!("stdout: {error}")),
        Err(PrintError::Store(error)) => Err(error.to_string()),
        Ok(()) => Ok(()),
    }
}

fn ask(args: QueryArgs) -> Result<(), String> {
    let text = query::text(&args.query)?;
    let store = args.state.open_to_read()?;
    let limits = Limits {
        memory_bytes: usize::from(args.max_memory) << 20,
        time: Duration::from_secs(u64::from(args.max_seconds)),
    };
    match query::print(&text, &store, args.format, limits, &mut BufWriter::new(io::stdout().lock())) {
        Err(QueryError::Out(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(()) => Ok(()),
    }
}

fn investigate(args: InvestigateArgs) -> Result<(), String> {
    let store = args.state.open_to_read()?;
    let settings = investigate::Settings { device: args.device, hub: args.hub, window: args.since };
    match investigate::run(&store, &settings, args.format, &mut BufWriter::new(io::stdout().lock())) {
        Err(InvestigateError::Out(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(InvestigateError::Out(error)) => Err(format!("stdout: {error}")),
        Err(InvestigateError::Store(why)) => Err(why),
        Ok(()) => Ok(()),
    }
}

fn import_files(args: ImportArgs) -> Result<(), String> {
    let store = args.state.open()?;
    let settings = import::Settings { table: args.table, hub: args.hub, device: args.device, name: args.name };
    import::run(store, settings, &args.files, &mut io::stdout(), &mut io::stderr())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use clap::CommandFactory as _;
    use clap_complete::{Shell, generate};

    use super::Cli;

    /// A shell that offers options which are gone is worse than one that offers none.
    #[test]
    fn shells_complete_the_options_there_are() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/completions");
        for (shell, file) in [
            (Shell::Bash, "edgewarden-hub.bash"),
            (Shell::Zsh, "_edgewarden-hub"),
            (Shell::Fish, "edgewarden-hub.fish"),
        ] {
            let mut script = Vec::new();
            generate(shell, &mut Cli::command(), "edgewarden-hub", &mut script);
            let path = format!("{directory}/{file}");
            if std::env::var_os("WRITE_GOLDEN").is_some() {
                std::fs::write(&path, &script).unwrap();
            }
            let is_same = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}")) == script;
            assert!(is_same, "{path} is old: WRITE_GOLDEN=1 cargo test -p edgewarden-hub shells_complete");
        }
    }
}
