#!/usr/bin/env bash
# What `make fuzz` needs: a nightly compiler, and cargo-fuzz, which is built once per machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CARGO_FUZZ=0.13.2

scripts/need-packages.sh gcc:gcc g++:g++ /usr/include/stdio.h:libc6-dev
cargo +nightly --version >/dev/null 2>&1 || {
    echo "a nightly compiler is missing: rustup toolchain install nightly --profile minimal" >&2
    exit 1
}
if [[ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $CARGO_FUZZ" ]]; then
    echo "building cargo-fuzz $CARGO_FUZZ, once; this takes some minutes"
    cargo install cargo-fuzz --locked --version "$CARGO_FUZZ"
fi
