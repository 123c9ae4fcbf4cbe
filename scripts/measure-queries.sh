#!/usr/bin/env bash
# Measures the investigation guide's five queries on the store of hub/examples/fill_store.rs: 250,000 ProcessCreate rows
# of one device among 1,000 others with 1,000 rows each, 1 GB. Prints seconds and the most memory of each.
#
# usage: measure-queries.sh RELEASE_DIR
set -euo pipefail

release="$1"
cd "$(dirname "$0")/.."
scripts/need-packages.sh /usr/bin/time:time
state="$(mktemp -d)"
trap 'rm -rf "$state"' EXIT
"$release/examples/fill_store" "$state"
for query in tests/fixtures/kql/guide/*.kql; do
    # Twice: the second finds the file in the page cache.
    for _ in 1 2; do
        /usr/bin/time --format "$(basename "$query"): %e s, %M kB" \
            "$release/edgewarden-hub" query "$query" --state "$state" --format json >"$state/answer"
    done
done
