//! `device`: the devices file edited from the command line.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

/// Where the file is when nobody says.
const DEFAULT_FILE: &str = "/etc/edgewarden-hub/devices";

/// The arguments of `device`.
#[derive(Args)]
pub struct DeviceArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Add a device and print its password, this once.
    Add(Device),
    /// Remove a device: its next message is not taken.
    Remove(Device),
    /// Print the devices.
    List(DevicesFile),
}

#[derive(Args)]
struct Device {
    /// The device id.
    #[arg(value_name = "DEVICE")]
    id: String,
    #[command(flatten)]
    file: DevicesFile,
}

#[derive(Args)]
struct DevicesFile {
    /// The file that `serve --devices` reads.
    #[arg(long = "devices", value_name = "FILE", default_value = DEFAULT_FILE)]
    path: PathBuf,
}

impl DeviceArgs {
    /// Does it.
    ///
    /// # Errors
    ///
    /// A sentence for the operator.
    pub fn run(self, out: &mut impl Write) -> Result<(), String> {
        let mut print = |path: &Path, line: &str| {
            writeln!(out, "{line}").map_err(|error| format!("stdout: {error} ({})", path.display()))
        };
        match self.command {
            Command::Add(Device { id, file }) => print(&file.path, &super::add(&file.path, &id)?),
            Command::Remove(Device { id, file }) => super::remove(&file.path, &id),
            Command::List(file) => super::list(&file.path)?.iter().try_for_each(|device| print(&file.path, device)),
        }
    }
}
