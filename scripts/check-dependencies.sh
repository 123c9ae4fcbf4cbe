#!/usr/bin/env bash
# Licences, banned crates and sources always (deny.toml); advisories when their database can be had. When it cannot,
# that is said, because "no advisory found" and "nobody looked" must not read the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo deny --locked check --hide-inclusion-graph bans licenses sources

log="$(mktemp)"
trap 'rm -f "$log"' EXIT
if timeout 120 cargo deny --locked fetch db >"$log" 2>&1; then
    cargo deny --locked check --disable-fetch advisories
else
    echo "ADVISORIES WERE NOT CHECKED: the RustSec database could not be fetched: $(grep -v '^[[:space:]]*$' "$log" | tail -n 1)" >&2
fi
