#!/usr/bin/env bash
# What `make check` needs: the components named in rust-toolchain.toml; what looks at scripts, units and the AppArmor
# profile; and cargo-deny, which is built once per machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CARGO_DENY=0.20.2

scripts/need-packages.sh gcc:gcc /usr/include/stdio.h:libc6-dev shellcheck:shellcheck apparmor_parser:apparmor \
    systemd-analyze:systemd
for component in fmt clippy; do
    cargo "$component" --version >/dev/null || {
        echo "cargo $component is missing: rustup component add rustfmt clippy" >&2
        exit 1
    }
done
if [[ "$(cargo deny --version 2>/dev/null)" != "cargo-deny $CARGO_DENY" ]]; then
    echo "building cargo-deny $CARGO_DENY, once; this takes some minutes"
    cargo install cargo-deny --locked --version "$CARGO_DENY"
fi
