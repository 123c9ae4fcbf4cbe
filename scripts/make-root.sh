#!/usr/bin/env bash
# Makes a small Debian root file system to try things in, from the mirror that this machine's apt uses already.
#
#   make-root.sh RELEASE FOLDER [PACKAGE...]
#
# RELEASE is bullseye, bookworm or trixie. FOLDER is left alone if it is such a root with these packages; one that is
# half made or has others is made anew. Wants root. Nobody should write to FOLDER: mount an overlay over it.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

[[ $# -ge 2 ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
release="$1" folder="$2"
shift 2
if [[ $EUID -ne 0 ]]; then
    echo "make-root.sh: a root file system has files of several users: run this as root" >&2
    exit 3
fi

made="$folder.packages" # Beside it: nothing in the root that Debian did not put there.
wanted="$release $*"
[[ ! -e "$made" || "$(cat "$made")" != "$wanted" ]] || exit 0

"$here/need-packages.sh" mmdebstrap:mmdebstrap >&2
# Where this machine's apt gets Debian itself from; labels tell it from the archive of security updates.
mirror="$(apt-get indextargets --format '$(LABEL) $(CREATED_BY) $(REPO_URI)' | sed -n 's/^Debian Packages //p' | head -n 1)"
if [[ -z "$mirror" ]]; then
    echo "make-root.sh: apt knows no archive of Debian: run apt-get update" >&2
    exit 3
fi

rm -rf --one-file-system "$made" "$folder"
mkdir -p "$(dirname "$folder")"
include="$(IFS=,; echo "$*")"
log="$folder.log"
# No network of its own and no daemons: what packages would start is held back by mmdebstrap itself.
mmdebstrap --quiet --variant=minbase ${include:+--include="$include"} \
    --aptopt='Acquire::Retries "3"' --dpkgopt=path-exclude='/usr/share/doc/*' --dpkgopt=path-exclude='/usr/share/locale/*' \
    "$release" "$folder" "deb $mirror $release main" >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    echo "make-root.sh: no $release root in $folder; the whole log is $log" >&2
    exit 1
}
echo "$wanted" >"$made"
