//! The hub's command line. Results go to stdout, what happened to stderr.

use std::io::{self, BufWriter, IsTerminal};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use edgewarden_hub::broker::{Listen, tls};
use edgewarden_hub::demo;
use edgewarden_hub::devices::command::DeviceArgs;
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
    /// Say which devices may log in with a password.
    Device(DeviceArgs),
    /// Print stored rows, oldest first.
    Rows(RowsArgs),
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
        Command::Device(args) => args.run(&mut io::stdout()),
        Command::Rows(args) => print_rows(args),
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
