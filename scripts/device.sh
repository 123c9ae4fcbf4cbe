#!/usr/bin/env bash
# A Debian machine to try things in: boots a root file system as a container with its own systemd, journal and network.
#
#   device.sh root RELEASE FOLDER         makes the root file system that the tests share, see make-root.sh
#   device.sh up NAME FOLDER [--no-init]  starts a machine and waits until it is up; without systemd on request
#   device.sh run NAME COMMAND...         runs a command in it
#   device.sh down NAME                   switches it off and removes every trace of it
#
# FOLDER is never written to: what the machine changes lies in memory and goes with it; it outlives a reboot. `up` prints
# five words: the host's folder that is /mnt/share in the machine, the host's network link to it, the machine's IPv4 and
# IPv6 address on that link, and the host's IPv4 address on it. With KEEPER=PID the machine goes down by itself when that
# process is gone.
#
# The process with id 1 of this host need not be systemd. Wants root.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
machines=/run/edgewarden-devices

# What both the tests of logins and those of the packages need. One list, so that one root serves both.
PACKAGES=(systemd systemd-sysv dbus udev kmod openssh-server dropbear-bin rsyslog busybox-static iproute2 procps
    libpam-systemd login adduser passwd sudo)

usage() { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }

[[ $# -ge 2 ]] || usage
what="$1" name="$2"
shift 2
if [[ $EUID -ne 0 ]]; then
    echo "device.sh: a machine needs namespaces and a network of its own: run this as root" >&2
    exit 3
fi
state="$machines/$name"

# The first process of the machine, the child of the nspawn that runs now.
leader() { pgrep -o -P "$(cat "$state/nspawn" 2>/dev/null || echo 0)"; }

run() {
    local pid
    if ! pid="$(leader)"; then
        echo "device.sh: there is no machine $name" >&2
        return 4
    fi
    nsenter -t "$pid" -m -u -i -n -p -C -r -w env -i HOME=/root TERM=dumb LANG=C.UTF-8 SYSTEMD_PAGER=cat PAGER=cat \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# A link of two ends: ewdevN on the host, host0 in the machine, each with an address of both kinds.
connect() {
    local number=1
    exec 9>"$machines/lock"
    flock 9
    while [[ -e /sys/class/net/ewdev$number ]]; do number=$((number + 1)); done
    ip netns add "$name"
    ip link add "ewdev$number" type veth peer name host0 netns "$name"
    flock -u 9
    ip addr add "10.213.$number.1/24" dev "ewdev$number"
    ip addr add "fd00:ed9e:$number::1/64" dev "ewdev$number" nodad
    ip link set "ewdev$number" up
    ip -n "$name" link set lo up
    ip -n "$name" addr add "10.213.$number.2/24" dev host0
    ip -n "$name" addr add "fd00:ed9e:$number::2/64" dev host0 nodad
    ip -n "$name" link set host0 up
    ip -n "$name" route add default via "10.213.$number.1"
    echo "$state/share ewdev$number 10.213.$number.2 fd00:ed9e:$number::2 10.213.$number.1" >"$state/words"
}

# Runs in a mount namespace of its own, as long as the machine lives.
keep() {
    local root="$1" init=("${@:2}") status
    # nspawn wants one cgroup tree of the second version; the host's may be of the first.
    umount -R /sys/fs/cgroup
    mount -t cgroup2 none /sys/fs/cgroup
    mkdir -p "/sys/fs/cgroup/$name"
    echo $BASHPID >"/sys/fs/cgroup/$name/cgroup.procs"
    mount -t tmpfs -o size=2g none "$state/memory"
    mkdir "$state"/memory/{upper,work,root}
    mount -t overlay -o "lowerdir=$root,upperdir=$state/memory/upper,workdir=$state/memory/work" none "$state/memory/root"
    root="$state/memory/root"
    echo "$name" >"$root/etc/hostname"
    # Addresses are set from outside, and there is no disk to look after.
    for unit in systemd-networkd.service systemd-networkd.socket e2scrub_reap.service; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
    while :; do
        SYSTEMD_SECCOMP=0 systemd-nspawn --quiet --register=no --keep-unit --machine="$name" --capability=all \
            --network-namespace-path="/run/netns/$name" --resolv-conf=off --bind="$state/share:/mnt/share" \
            --directory="$root" --console=pipe "${init[@]}" </dev/null &
        echo $! >"$state/nspawn"
        status=0
        wait $! || status=$?
        # With --keep-unit this is what is left of a reboot.
        [[ $status -eq 133 ]] || break
    done
    rm -f "$state/nspawn"
}

is_up() {
    if [[ "$1" == --boot ]]; then
        [[ "$(run systemctl is-system-running 2>/dev/null)" =~ ^(running|degraded)$ ]]
    else
        run true 2>/dev/null
    fi
}

up() {
    local root="$1" init=(--boot)
    [[ "${2:-}" != --no-init ]] || init=(--as-pid2 sleep infinity)
    "$here/need-packages.sh" systemd-nspawn:systemd-container ip:iproute2 pgrep:procps >&2
    if [[ -e "$state" ]]; then
        echo "device.sh: there is a machine $name already: device.sh down $name" >&2
        exit 1
    fi
    mkdir -p "$state"/{share,memory}
    trap 'down >/dev/null 2>&1' ERR
    connect
    export -f keep
    export name state
    setsid unshare --mount --propagation private bash -euc 'keep "$@"' keep "$root" "${init[@]}" \
        </dev/null >"$state/console" 2>&1 9>&- &
    if [[ -n "${KEEPER:-}" ]]; then
        setsid bash -c 'tail --pid="$1" -f /dev/null; exec "$2" down "$3"' keeper "$KEEPER" "$here/device.sh" "$name" \
            </dev/null >/dev/null 2>&1 9>&- &
    fi
    for _ in {1..600}; do
        if is_up "${init[0]}"; then
            cat "$state/words"
            return
        fi
        sleep 0.1
    done
    echo "device.sh: $name did not come up; the end of its console:" >&2
    tail -n 20 "$state/console" >&2
    false
}

down() {
    local nspawn first link
    nspawn="$(cat "$state/nspawn" 2>/dev/null || true)"
    first="$(leader || true)"
    # What was run in it and has not ended: its parent is out here, and systemd would wait for it to be reaped.
    [[ -z "$first" ]] || pkill -KILL -f "^nsenter -t $first " || true
    if [[ -n "$first" && "$(cat "/proc/$first/comm")" == systemd ]]; then
        run systemctl poweroff 2>/dev/null || true
        for _ in {1..100}; do
            kill -0 "$first" 2>/dev/null || break
            sleep 0.1
        done
    fi
    # The kernel ends whatever is left in a machine with its first process; with nspawn alone it would live on.
    [[ -z "$first" ]] || kill -KILL "$first" 2>/dev/null || true
    for _ in {1..100}; do
        [[ -n "$nspawn" ]] && kill -0 "$nspawn" 2>/dev/null || break
        sleep 0.1
    done
    [[ -z "$nspawn" ]] || kill -KILL "$nspawn" 2>/dev/null || true
    link="$(cut -d' ' -f2 "$state/words" 2>/dev/null || true)"
    [[ -z "$link" ]] || ip link del "$link" 2>/dev/null || true
    ip netns del "$name" 2>/dev/null || true
    find /sys/fs/cgroup /sys/fs/cgroup/unified -maxdepth 1 -name "$name" -type d 2>/dev/null | while read -r group; do
        find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
    rm -rf --one-file-system "$state"
}

case "$what" in
    root)
        [[ $# -ge 1 ]] || usage
        # Tests that run at the same time ask for the same one.
        mkdir -p "$(dirname "$1")"
        exec 9>"$1.lock"
        flock 9
        "$here/make-root.sh" "$name" "$1" "${PACKAGES[@]}"
        ;;
    up) [[ $# -ge 1 ]] || usage; up "$@" ;;
    run) run "$@" ;;
    down) down ;;
    *) usage ;;
esac
