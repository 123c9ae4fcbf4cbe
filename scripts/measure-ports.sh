#!/usr/bin/env bash
# Measures what it costs to know what listens: the agent, beside tools that say it once. Needs root.
#
#   measure-ports.sh AGENT
#
# Everything happens in a network namespace of its own; `poll` in a pid namespace of its own too, so that nobody else's
# processes count, and `auto` with BPF among all processes of the machine. Idle is measured in the machine's namespace too,
# where it has to stay within a limit.
#
# opened    CPU of all the agent's threads (/proc/PID/task/*/schedstat) for a snapshot because of a new listener, rows as
#           JSON included: who holds it is looked for
# closed    the same when it is gone: who holds the others is known
# seen      milliseconds until the new listener's rows were printed
#           Each of the three is the median of three. Where others open and close sockets meanwhile, theirs count too.
# the rest  utime + stime of one run, mean of ten; net is the four tables of TCP and UDP read without being parsed
# idle      the agent with 20 listeners and nothing else to do, a minute; and what each further namespace adds
IDLE_MS_AT_MOST=10
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
agent="$(realpath "${1:?path of the release binary}")"
[[ $EUID = 0 ]] || { echo "only root can measure this" >&2; exit 1; }
if [[ -z "${2:-}" ]]; then
    scripts/need-packages.sh gcc:gcc ss:iproute2 lsof:lsof busybox:busybox-static
    echo "date      $(date -u +%Y-%m-%dT%H:%MZ)"
    echo "machine   $(uname -srm), $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), load $(cut -d' ' -f1-3 /proc/loadavg)"
    echo "command   scripts/measure-ports.sh $agent"
    unshare --net --pid --fork --mount-proc --kill-child "$0" "$agent" poll
    unshare --net "$0" "$agent" auto
    "$0" "$agent" poll at-home
    exec "$0" "$agent" auto at-home
fi
backend="$2"

[[ -n "${3:-}" ]] || ip link set lo up
dir="$(mktemp -d)"
started=()
finish() { kill "${started[@]}" 2>/dev/null || true; wait; rm -rf "$dir"; }
trap finish EXIT
gcc -O2 -o "$dir/sockets" tests/support/sockets.c
# What reads from this waits for ever.
mkfifo "$dir/open"
exec 8<>"$dir/open"

# Without the redirection what runs in the background reads from /dev/null.
begin() { "$@" <&0 & started+=($!); last=$!; }
end() { kill "$1" 2>/dev/null || true; wait "$1" 2>/dev/null || true; }
cpu_us() { cat "/proc/$1/task/"*/schedstat | awk '{ sum += $1 } END { printf "%d", sum / 1000 }'; }
crowd() {
    : >"$dir/ready"
    begin "$dir/sockets" "$@" <"$dir/open" >"$dir/ready"
    crowd=$last
    until [[ -s "$dir/ready" ]]; do sleep 0.1; done
}
collect() {
    cat >"$dir/twin.json" <<JSON
{ "deviceId": "measure-ports", "properties": { "desired": { "edgewarden": { "processBackend": "$backend" } } } }
JSON
    begin "$agent" collect ListeningPorts --for 10m --config "$dir/twin.json" >"$dir/rows" 2>"$dir/log"
    collect=$last
}
# CPU of the agent for a change: what it took until a second after its rows were there, without the looks of that time.
change_us() {
    local before quiet start rows
    before="$(cpu_us "$collect")"; sleep 4; quiet=$(($(cpu_us "$collect") - before))
    rows="$(wc -l <"$dir/rows")"; before="$(cpu_us "$collect")"; start="$(date +%s%N)"
    "$@"
    until [[ "$(wc -l <"$dir/rows")" -gt "$rows" ]]; do sleep 0.05; done
    noticed=$((($(date +%s%N) - start) / 1000000))
    sleep 1
    echo $(($(cpu_us "$collect") - before - quiet * (noticed + 1000) / 4000))
}
median() { sort -n "$dir/$1" | sed -n 2p; }
open_one() { begin busybox nc -l -p 9 <"$dir/open"; one=$last; }
close_one() { end "$one"; }
mean_us() {
    local run before after me=$BASHPID
    before="$(awk '{ print $16 + $17 }' "/proc/$me/stat")"
    for run in 1 2 3 4 5 6 7 8 9 10; do "$@" >/dev/null 2>&1 || true; done
    after="$(awk '{ print $16 + $17 }' "/proc/$me/stat")"
    echo $(((after - before) * 1000))
}
tables() { cat /proc/self/net/tcp /proc/self/net/tcp6 /proc/self/net/udp /proc/self/net/udp6; }

woken() { cat "/proc/$1/task/"*/status | awk '/^voluntary_ctxt_switches:/ { sum += $2 } END { print sum + 0 }'; }
# Without a process of its own in between: the agent looks at those.
idle() {
    local before=0 after=0 woken cpu task
    woken="$(woken "$collect")"
    # Until what was started for this is no longer new.
    read -rt 5 <&8 || true
    for task in "/proc/$collect/task/"*; do read -r cpu _ <"$task/schedstat"; before=$((before + cpu)); done
    read -rt 60 <&8 || true
    for task in "/proc/$collect/task/"*; do read -r cpu _ <"$task/schedstat"; after=$((after + cpu)); done
    us="$(((after - before) / 1000))"
    wakeups="$((($(woken "$collect") - woken) * 60 / 65))"
}
if [[ -n "${3:-}" ]]; then
    crowd 20 20 0
    collect
    sleep 10
    idle
    listeners="$(ss -Htuln | wc -l)"
    echo "idle      $backend in the machine's namespace, $listeners listeners, $(find /proc -maxdepth 1 -name "[1-9]*" | wc -l) processes: $us us and $wakeups wake-ups a minute"
    [[ $us -le $((IDLE_MS_AT_MOST * 1000)) ]] || { echo "limits    above $IDLE_MS_AT_MOST ms" >&2; exit 1; }
    exit
fi

echo "== $backend: CPU in us"
printf '%9s %9s %9s %9s %9s %9s %9s %9s\n' listeners processes opened closed seen 'ss -tulpn' 'lsof -i' net
for processes in 50 500; do
    for listeners in 20 500 5000; do
        crowd "$processes" "$listeners" 0
        collect
        sleep 10
        : >"$dir/opened" >"$dir/closed" >"$dir/seen"
        for _ in 1 2 3; do
            change_us open_one >>"$dir/opened"
            echo "$noticed" >>"$dir/seen"
            change_us close_one >>"$dir/closed"
        done
        printf '%9s %9s %9s %9s %9s %9s %9s %9s\n' "$listeners" "$processes" "$(median opened)" "$(median closed)" "$(median seen)" \
            "$(mean_us ss -tulpn)" "$(mean_us lsof -nP -i)" "$(mean_us tables)"
        end "$collect"
        end "$crowd"
    done
done

crowd 20 20 0
collect
sleep 10
idle
alone=$us
echo "idle      $alone us and $wakeups wake-ups a minute"
for _ in 1 2 3 4 5 6 7 8 9 10; do begin unshare --net sleep 1000; done
sleep 5
idle
echo "idle      with 10 more namespaces $us us and $wakeups wake-ups: $(((us - alone) / 10)) us a namespace"
