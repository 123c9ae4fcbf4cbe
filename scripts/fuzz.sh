#!/usr/bin/env bash
# Runs every fuzz target for so many seconds; the first that fails ends it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds="${1:?how many seconds for each target}"

cargo +nightly fuzz build -s none
for target in $(cargo +nightly fuzz list); do
    echo "== $target for $seconds s"
    mkdir -p "fuzz/corpus/$target"
    inputs=("fuzz/corpus/$target")
    if [[ -d "fuzz/seeds/$target" ]]; then inputs+=("fuzz/seeds/$target"); fi
    cargo +nightly fuzz run -s none "$target" "${inputs[@]}" -- -max_total_time="$seconds" -rss_limit_mb=1024 -verbosity=0
done
