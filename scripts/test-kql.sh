#!/usr/bin/env bash
# The hub's KQL beside other engines': test-kql.sh TARGET_DIR DATA_SETS
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$1 data_sets=$2
python=$target/kql/python/bin/python
queries=tests/fixtures/kql/guide

if "$python" -c 'import chdb' 2>/dev/null; then
    "$python" tests/kql/differential.py "$target/debug/edgewarden-hub" "$queries" "$data_sets"
else
    echo "skipped: no ClickHouse (the Python package chdb-core) to compare answers with"
fi
if [[ -d $target/kql/node_modules/@kusto ]]; then
    NODE_PATH=$target/kql/node_modules node tests/kql/bind.cjs packaging/hub/adx/tables.kql \
        "$queries"/*.kql packaging/hub/queries/*.kql
else
    echo "skipped: no language service (the npm package @kusto/language-service-next) to read the queries"
fi
