#!/usr/bin/env bash
# The hub's KQL beside other engines': test-kql.sh TARGET_DIR DATA_SETS. KQL_SEED makes other stores.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$1 data_sets=$2
python=$target/kql/python/bin/python
# The investigation guide's, ours that both engines know, and those that come with the hub. A folder without a query is a
# fault: the pattern stays as it is and names no file.
queries=(tests/fixtures/kql/guide/*.kql tests/kql/further.kql)
if [[ -d packaging/hub/queries ]]; then queries+=(packaging/hub/queries/*.kql); fi

if "$python" -c 'import chdb' 2>/dev/null; then
    "$python" tests/kql/differential.py "$target/debug/edgewarden-hub" "$data_sets" "${KQL_SEED:-1}" "${queries[@]}"
else
    echo "skipped: no ClickHouse (the Python package chdb-core) to compare answers with"
fi
if [[ -d $target/kql/node_modules/@kusto ]]; then
    NODE_PATH=$target/kql/node_modules node tests/kql/bind.cjs packaging/hub/adx/tables.kql \
        "${queries[@]}" tests/fixtures/kql/{compare,convert,dynamic,math,operators,strings,times}.txt docs/kql.md
else
    echo "skipped: no language service (the npm package @kusto/language-service-next) to read the queries"
fi
