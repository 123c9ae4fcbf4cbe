#!/usr/bin/env bash
# The archive for systems without dpkg, in a root that has a kernel, busybox and nothing else: test-tarball.sh ARCHIVE
#
# Installs, starts, kills the agent, replaces it while it runs, stops, purges, and looks at what is left. For root, and
# for an archive of this machine's architecture.
set -euo pipefail
archive=$(realpath "$1")
"$(dirname "${BASH_SOURCE[0]}")/need-packages.sh" /bin/busybox:busybox-static
# A loader is not in the root.
if ldd /bin/busybox >/dev/null 2>&1; then
    echo "busybox is not static: apt-get install busybox-static" >&2
    exit 3
fi
# In namespaces of its own: no other agent is seen, and nothing outlives the test.
if [[ $$ -ne 1 ]]; then
    exec unshare --mount --pid --fork --kill-child --mount-proc --propagation private "$0" "$archive"
fi

root=$(mktemp -d --suffix=-edgewarden-tarball)
trap 'umount "$root/proc"; rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,sbin,etc/init.d,proc,var/run,var/log,tmp,root,usr/bin,usr/sbin,dev}
cp /bin/busybox "$root/bin/"
chroot "$root" /bin/busybox --install -s
echo root:x:0:0:root:/root:/bin/sh >"$root/etc/passwd"
echo root:x:0: >"$root/etc/group"
: >"$root/var/log/auth.log"
mknod "$root/dev/null" c 1 3
mount -t proc none "$root/proc"
tar -C "$root/root" -xzf "$archive"
before=$(cd "$root" && find . -xdev -path ./proc -prune -o -path ./root -prune -o -print | sort)
inside() { env -i PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root chroot "$root" "$@"; }
must() { "$@" || { echo "FAILED: $*" >&2; exit 1; }; }
holds() { grep -q -- "$2" <<<"$1" || { printf 'FAILED: %s is not in\n%s\n' "$2" "$1" >&2; exit 1; }; }
until_ok() { for _ in $(seq 60); do "$@" >/dev/null 2>&1 && return; sleep 0.5; done; echo "waited for: $*" >&2; exit 1; }
agent() {
    for process in /proc/[0-9]*; do
        [[ $(readlink "$process/exe") != *"$root/usr/bin/edgewarden" ]] || echo "${process#/proc/}"
    done
}
install() { inside sh -c 'cd /root/edgewarden-* && ./install.sh'; }

# 1. It installs, and says what to do.
holds "$(must install)" "not running: it has to know its hub"
must inside edgewarden check >/dev/null
# 2. It starts, as a user of its own; the number in a file that a power cut left is another program's by now.
sleep 1000 &
stranger=$!
echo $stranger >"$root/var/run/edgewarden.pid"
must inside /etc/init.d/edgewarden stop
must kill -0 $stranger
echo $stranger >"$root/var/run/edgewarden.pid"
must inside /etc/init.d/edgewarden start
until_ok inside edgewarden status
running=$(agent)
uid=$(sed -n 's/^edgewarden:x:\([0-9]*\):.*/\1/p' "$root/etc/passwd")
holds "$(cat "/proc/$running/status")" "^Uid:	$uid	$uid	$uid	$uid"
holds "$(inside edgewarden status --json)" '"user":"edgewarden"'
# 3. One that is killed comes back.
kill -KILL "$running"
until_ok inside edgewarden status
# 4. Another version takes its place, and goes on with what the first kept.
running=$(agent)
must install >/dev/null
until_ok inside edgewarden status
[[ "$(agent)" != "$running" ]] || { echo "FAILED: the old one still runs" >&2; exit 1; }
holds "$(inside edgewarden status)" "the run before was stopped"
# 5. It stops, and a purge leaves nothing; one of an image is not taken for one of this system.
code=0
inside sh /usr/lib/edgewarden/install.sh --root /tmp purge 2>/dev/null || code=$?
must test $code = 2
must test -e "$root/usr/bin/edgewarden"
must inside /etc/init.d/edgewarden stop
must inside sh /usr/lib/edgewarden/install.sh purge
after=$(cd "$root" && find . -xdev -path ./proc -prune -o -path ./root -prune -o -print | sort)
# Directories that a package may leave, as dpkg does with shared ones.
left=$(comm -13 <(echo "$before") <(echo "$after") | grep -vxE './(usr/lib|usr/share|usr/share/(man|doc)|usr/share/man/man[58]|var/lib)' || true)
[[ -z $left ]] || { printf 'FAILED: a purge leaves\n%s\n' "$left" >&2; exit 1; }
holds "$(cat "$root/etc/passwd" "$root/etc/group" | wc -l)" '^2$'
echo "the archive installs, runs, is replaced and leaves nothing under $(inside busybox | head -n 1)"
