#!/usr/bin/env bash
# Boots the boards that make-board.sh makes, in an emulator.
#
#   board.sh up NAME FOLDER     boots FOLDER's board; ends when its ssh answers
#   board.sh run NAME COMMAND   runs a shell command on it as root; ends as the command does
#   board.sh put NAME FILE TO   copies FILE onto it
#   board.sh port NAME          says on which port of this machine's loopback address its sshd answers
#   board.sh down NAME          turns it off
#
# What happens on the disk lasts until the board is turned off, restarts of the board included; FOLDER is never
# written to. From the board, the loopback address of this machine is 10.0.2.2; clients of this machine come from
# there as well. State and the serial console's log are in $BOARDS/NAME ($BOARDS is /tmp/boards if not set).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

[[ $# -ge 2 ]] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
verb="$1" name="$2"
state="${BOARDS:-/tmp/boards}/$name"
shift 2

ssh_options=(-i "$state/key" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR
    -o BatchMode=yes -o ConnectTimeout=30)
on_board() { ssh -n "${ssh_options[@]}" -p "$(cat "$state/port")" root@127.0.0.1 "$@"; }
runs() { [[ -e "$state/pid" ]] && kill -0 "$(cat "$state/pid")" 2>/dev/null; }

# Starting from one that depends on the name, so that boards started at the same time do not look at the same one.
free_port() {
    local port=$((20000 + $(cksum <<<"$name" | cut -d ' ' -f 1) % 10000))
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}

up() {
    local folder="$1" port qemu processor
    if runs; then
        echo "board.sh: $name is up already" >&2
        exit 1
    fi
    if [[ ! -e "$folder/made" ]]; then
        echo "board.sh: $folder has no board: scripts/make-board.sh arm64 $folder" >&2
        exit 1
    fi
    case "$(cut -d ' ' -f 2 "$folder/made")" in
        arm64) qemu=qemu-system-aarch64 processor=cortex-a53 ;;
        armhf) qemu=qemu-system-arm processor=cortex-a15 ;;
    esac
    "$here/need-packages.sh" "$qemu:qemu-system-arm" ssh:openssh-client >&2
    mkdir -p "$state"
    port="$(free_port)"
    echo "$port" >"$state/port"
    install -m 600 "$folder/key" "$state/key"
    "$qemu" -M virt -cpu "$processor" -smp 2 -m 1024 -display none -serial "file:$state/console.log" -daemonize \
        -pidfile "$state/pid" -kernel "$folder/vmlinuz" -initrd "$folder/initrd" \
        -append 'root=/dev/vda rw console=ttyAMA0 systemd.unit=multi-user.target' \
        -drive "if=none,id=disk,format=raw,snapshot=on,file=$folder/disk.img" -device virtio-blk-device,drive=disk \
        -netdev "user,id=net,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-device,netdev=net
    # Ten times what it takes on a machine that does nothing else.
    local deadline=$((SECONDS + 300))
    until on_board true 2>/dev/null; do
        if ! runs || ((SECONDS > deadline)) || grep -q 'Kernel panic' "$state/console.log"; then
            tail -n 20 "$state/console.log" >&2
            echo "board.sh: $name did not come up; the console's log is $state/console.log" >&2
            exit 1
        fi
        sleep 1
    done
}

down() {
    runs || return 0
    local pid
    pid="$(cat "$state/pid")"
    on_board systemctl poweroff 2>/dev/null || true
    for _ in $(seq 60); do
        kill -0 "$pid" 2>/dev/null || return 0
        sleep 1
    done
    kill -KILL "$pid"
}

case "$verb" in
    up) up "$1" ;;
    run) on_board "$@" ;;
    put) scp -q "${ssh_options[@]}" -P "$(cat "$state/port")" "$1" "root@127.0.0.1:$2" ;;
    port) cat "$state/port" ;;
    down) down ;;
    *) echo "board.sh: no such verb: $verb; there are up, run, put, port and down" >&2; exit 2 ;;
esac
