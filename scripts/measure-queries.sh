#!/usr/bin/env bash
# Measures what is asked of a store of 1.25 million rows, one device with 250,000 ProcessCreate rows among 1,000 others,
# and of one whose device has a million: the investigation guide's five queries, `investigate` and `devices`. Prints
# seconds and the most memory of each, and fails when one of the five is over its limits.
#
# usage: measure-queries.sh RELEASE_DIR
set -euo pipefail

release="$1"
cd "$(dirname "$0")/.."
scripts/need-packages.sh /usr/bin/time:time
state="$(mktemp -d)"
trap 'rm -rf "$state"' EXIT

MOST_SECONDS=3
MOST_KB=$((300 * 1024))
failed=0

# measure NAME ARGUMENT...: what came of it, and in $state/figures how long it took and how much memory
measure() {
    local name=$1 outcome=answered
    shift
    /usr/bin/time --quiet --format '%e %M' --output "$state/figures" \
        "$release/edgewarden-hub" "$@" --state "$state" >"$state/answer" 2>"$state/errors" || outcome="refused: $(tail -1 "$state/errors")"
    read -r seconds kb <"$state/figures"
    printf '%-40s %6s s %8s kB  %s\n' "$name" "$seconds" "$kb" "$outcome"
}

fill() {
    rm -f "$state"/events.db*
    "$release/examples/fill_store" "$state" "$1"
    echo "$1 ProcessCreate rows of one device, $(du -m "$state/events.db" | cut -f1) MB"
}

fill 250000
for query in tests/fixtures/kql/guide/*.kql; do
    # Twice: the second finds the file in the page cache.
    for _ in 1 2; do
        measure "$(basename "$query")" query "$query" --format json
        if [[ $kb -gt $MOST_KB || ${seconds%.*} -ge $MOST_SECONDS || ! -s $state/answer ]]; then
            echo "over $MOST_SECONDS s or $MOST_KB kB, or no answer" >&2
            failed=1
        fi
    done
done
measure investigate investigate YOUR_DEVICE_ID
measure devices devices
fill 1000000
for query in tests/fixtures/kql/guide/*.kql; do
    measure "$(basename "$query")" query "$query" --format json
done
# Each command line once is more than the memory of a query; it has to say so, and not to take it.
measure "distinct EventDetails" query 'SecurityIoTRawEvent | distinct EventDetails | count'
measure investigate investigate YOUR_DEVICE_ID
exit "$failed"
