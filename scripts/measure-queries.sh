#!/usr/bin/env bash
# Measures the investigation guide's five queries on the store of hub/examples/fill_store.rs: 250,000 ProcessCreate rows
# of one device among 1,000 others with 1,000 rows each, 1 GB. Prints seconds and the most memory of each, and fails when
# one is over its limit.
#
# usage: measure-queries.sh RELEASE_DIR
set -euo pipefail

max_seconds=3
max_kb=$((300 * 1024))

release="$1"
cd "$(dirname "$0")/.."
scripts/need-packages.sh /usr/bin/time:time
state="$(mktemp -d)"
trap 'rm -rf "$state"' EXIT
"$release/examples/fill_store" "$state"
over=0
for query in tests/fixtures/kql/guide/*.kql; do
    # Twice: the second finds the file in the page cache.
    for _ in 1 2; do
        /usr/bin/time --format "%e %M" --output "$state/took" \
            "$release/edgewarden-hub" query "$query" --state "$state" --format json >"$state/answer"
        read -r seconds kb <"$state/took"
        echo "$(basename "$query"): $seconds s, $kb kB"
        if awk "BEGIN { exit !($seconds >= $max_seconds || $kb >= $max_kb) }"; then
            echo "over its limit of $max_seconds s and $max_kb kB" >&2
            over=1
        fi
    done
done
exit "$over"
