#!/usr/bin/env bash
# What `make test-kql` and `make test-scale` compare with: ClickHouse as a Python module, and Microsoft's language service
# for Node. Both are large and pinned, and go into a folder of their own: setup-kql.sh FOLDER. What cannot be had is left
# out; the tests say so.
set -euo pipefail
folder=$1
here=$(dirname "${BASH_SOURCE[0]}")
CHDB=26.9.0
PYYAML=6.0.3
LANGUAGE_SERVICE=12.4.1

mkdir -p "$folder"
python3 -c 'import ensurepip' 2>/dev/null || "$here/need-packages.sh" "python3-venv is missing:python3-venv"
if [[ ! -x $folder/python/bin/python ]]; then
    python3 -m venv "$folder/python"
fi
"$folder/python/bin/pip" install --quiet --disable-pip-version-check "chdb-core==$CHDB" "pyyaml==$PYYAML" ||
    echo "skipped: chdb-core $CHDB cannot be had here, so nothing is compared with ClickHouse" >&2
if command -v npm >/dev/null; then
    npm install --silent --no-fund --no-audit --prefix "$folder" "@kusto/language-service-next@$LANGUAGE_SERVICE" ||
        echo "skipped: @kusto/language-service-next $LANGUAGE_SERVICE cannot be had here" >&2
else
    echo "skipped: there is no npm here, so no query is read by Microsoft's language service" >&2
fi
