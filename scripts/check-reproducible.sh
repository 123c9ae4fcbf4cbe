#!/usr/bin/env bash
# Whether the same commit gives the same bytes: check-reproducible.sh CROSS_FOLDER OUT_FOLDER [ARCHITECTURE...]
#
# Builds the commit again and compares with what `make deb` left in OUT_FOLDER: later, in another folder with a longer
# name, from a clone, into another target folder, with another umask, time zone and language.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cross=$(cd "$1" && pwd)
out=$(cd "$2" && pwd)
shift 2
architectures=("$@")
[[ $# -gt 0 ]] || architectures=(amd64 arm64 armhf)

if [[ -n $(git status --porcelain) ]]; then
    echo "there are changes that are in no commit, and the comparison is of a commit" >&2
    exit 1
fi
elsewhere=$(mktemp -d --suffix=-somewhere-else)
trap 'rm -rf "$elsewhere"' EXIT
git clone --quiet . "$elsewhere/a-clone-of-it"
(
    cd "$elsewhere/a-clone-of-it"
    umask 077
    export CARGO_TARGET_DIR=$elsewhere/built TZ=Pacific/Chatham LANG=C
    scripts/build-deb.sh "$cross" "$elsewhere/out" "${architectures[@]}"
)
differs=0
cd "$elsewhere/out"
for file in *; do
    if cmp "$file" "$out/$file"; then
        echo "same    $(sha256sum "$file")"
    else
        echo "DIFFERS $file"
        differs=1
    fi
done
exit $differs
