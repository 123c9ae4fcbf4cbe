#!/usr/bin/env bash
# The recipes for fleets, as far as one machine can test them: test-scale.sh TARGET_DIR
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$1
python=$target/kql/python/bin/python

"$python" tests/kql/shapes.py packaging/hub
if ! "$python" -c 'import chdb' 2>/dev/null; then
    echo "skipped: no ClickHouse (the Python package chdb-core) to test its tables with"
    exit 0
fi
messages=$(mktemp)
trap 'rm -f "$messages"' EXIT
# A real agent, and something for it to see.
"$target/debug/edgewarden" collect LocalUsers ListeningPorts ProcessCreate --for 3s --format envelope >"$messages" &
sleep 1
for number in 1 2 3; do /bin/sh -c "sleep 0.1; : $number"; done
wait
"$python" tests/kql/clickhouse.py "$target/debug/edgewarden-hub" "$messages" tests/fixtures/kql/guide
