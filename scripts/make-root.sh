#!/usr/bin/env bash
# Makes a small Debian root file system to try things in, from the mirror that this machine's apt uses already.
#
#   make-root.sh RELEASE[:ARCH] FOLDER [PACKAGE...]
#
# RELEASE is bullseye, bookworm or trixie; ARCH is a Debian architecture, this machine's own if left out. FOLDER is left
# alone if it is such a root with these packages; one that is half made or has others is made anew. Wants root. Nobody
# should write to FOLDER: mount an overlay over it.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

[[ $# -ge 2 ]] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
release="${1%%:*}" folder="$2"
native="$(dpkg --print-architecture)"
arch="$native"
[[ "$1" != *:* ]] || arch="${1#*:}"
shift 2
if [[ $EUID -ne 0 ]]; then
    echo "make-root.sh: a root file system has files of several users: run this as root" >&2
    exit 3
fi

made="$folder.packages" # Beside it: nothing in the root that Debian did not put there.
wanted="$release:$arch $*"
[[ ! -e "$made" || "$(cat "$made")" != "$wanted" ]] || exit 0

"$here/need-packages.sh" mmdebstrap:mmdebstrap >&2
if [[ "$arch" != "$native" ]]; then
    # What the packages of another architecture run while they are installed runs in an emulator.
    "$here/need-packages.sh" qemu-aarch64-static:qemu-user-static arch-test:arch-test >&2
    formats=/proc/sys/fs/binfmt_misc
    mountpoint -q "$formats" || mount -t binfmt_misc binfmt_misc "$formats"
    compgen -G "$formats/qemu-*" >/dev/null || /lib/systemd/systemd-binfmt qemu-aarch64.conf qemu-arm.conf
fi

# Where this machine's apt gets Debian itself from; labels tell it from the archive of security updates.
# shellcheck disable=SC2016 # These are apt's variables.
mirror="$(apt-get indextargets --format '$(LABEL) $(CREATED_BY) $(REPO_URI)' | sed -n 's/^Debian Packages //p' | head -n 1)"
if [[ -z "$mirror" ]]; then
    echo "make-root.sh: apt knows no archive of Debian: run apt-get update" >&2
    exit 3
fi

rm -rf --one-file-system "$made" "$folder"
mkdir -p "$(dirname "$folder")"
include="$(IFS=,; echo "$*")"
log="$folder.log"
mmdebstrap --quiet --variant=minbase --mode=root --arch="$arch" ${include:+--include="$include"} \
    --aptopt='Acquire::Retries "3"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt=path-exclude='/usr/share/doc/*' --dpkgopt=path-exclude='/usr/share/locale/*' \
    "$release" "$folder" "deb $mirror $release main" >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    echo "make-root.sh: no root of $release for $arch in $folder; the whole log is $log" >&2
    exit 1
}
echo "$wanted" >"$made"
