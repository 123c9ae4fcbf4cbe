use std::process::ExitCode;

use clap::Parser;
use edgewarden::cli;

fn main() -> ExitCode {
    cli::main(cli::Arguments::parse())
}
