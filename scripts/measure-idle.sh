#!/usr/bin/env bash
# Measures the idle agent: all four collectors on, no hub, a state directory of its own. Where no journal is live and we
# are root, the measurement gets a journald of its own in a mount namespace, so that the reader of the journal counts.
#
#   measure-idle.sh AGENT [SECONDS]
#
# CPU is utime + stime of the agent and all its descendants (/proc/PID/stat fields 14 and 15, ticks of CLK_TCK, and 16
# and 17 for children that ended and were waited for) over SECONDS, 60 unless told otherwise, after 20 s of warm-up.
# Wake-ups are voluntary context switches of all threads. How much happened on the machine meanwhile is printed too:
# each exec anywhere is an event, and work.
# Memory is PSS, the sum of smaps_rollup over the same processes (proc(5)). The numbers belong in docs/measurements.md
# together with the lines around them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"
agent="${1:?path of the release binary}"
seconds="${2:-60}"
[[ -x "$agent" ]] || { echo "$agent is no executable file: cargo build --release -p edgewarden" >&2; exit 1; }

journald=/lib/systemd/systemd-journald
if [[ ! -S /run/systemd/journal/socket && "$(id -u)" = 0 && -x $journald && -z "${EDGEWARDEN_MEASURE_JOURNALD:-}" ]]; then
    EDGEWARDEN_MEASURE_JOURNALD=1 exec unshare --mount --propagation private "$0" "$@"
fi

dir="$(mktemp -d)"
pid=
journald_pid=
trap '[[ -z "$pid" ]] || kill "$pid" 2>/dev/null || true
    [[ -z "$journald_pid" ]] || kill "$journald_pid" 2>/dev/null || true
    wait; umount /run/systemd /run/log 2>/dev/null || true; rm -rf "$dir"' EXIT
if [[ -n "${EDGEWARDEN_MEASURE_JOURNALD:-}" ]]; then
    mkdir -p /run/systemd /run/log
    mount -t tmpfs none /run/systemd && mount -t tmpfs none /run/log
    mkdir -p /run/log/journal /run/systemd/journald.conf.d
    printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n' >/run/systemd/journald.conf.d/measure.conf
    "$journald" &
    journald_pid=$!
    for _ in $(seq 50); do
        compgen -G '/run/log/journal/*/system.journal' >/dev/null && break
        sleep 0.1
    done
fi
cat >"$dir/twin.json" <<JSON
{
  "deviceId": "measure-idle",
  "stateDirectory": "$dir/state",
  "properties": { "desired": {
    "ms_iotn:urn_azureiot_Security_SecurityAgentConfiguration": {
      "eventPriorityLocalUsers": { "value": "High" },
      "eventPriorityListeningPorts": { "value": "High" },
      "eventPriorityLogin": { "value": "High" },
      "eventPriorityProcessCreate": { "value": "High" }
    } } }
}
JSON
mkdir "$dir/state"

# How often any thread of all of them went to sleep, which is how often it was woken.
wakeups() {
    local p
    for p in $(family "$pid"); do cat "/proc/$p/task/"*/status; done | awk '/^voluntary_ctxt_switches:/ { sum += $2 } END { print sum + 0 }'
}

collected() { "$agent" status --config "$dir/twin.json" --json | sed 's/.*"collected":\([0-9]*\).*/\1/'; }

"$agent" run --config "$dir/twin.json" 2>"$dir/log" &
pid=$!
sleep 20
kill -0 "$pid" 2>/dev/null || { echo "the agent ended during warm-up:" >&2; cat "$dir/log" >&2; exit 1; }
events="$(collected)"
before="$(ticks "$pid")"
woken="$(wakeups)"
sleep "$seconds"
after="$(ticks "$pid")"
woken=$(($(wakeups) - woken))
kill -0 "$pid" 2>/dev/null || { echo "the agent ended during the measurement:" >&2; cat "$dir/log" >&2; exit 1; }

echo "date      $(date -u +%Y-%m-%dT%H:%MZ)"
echo "machine   $(uname -srm), $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), load $(cut -d' ' -f1-3 /proc/loadavg)"
echo "command   scripts/measure-idle.sh $agent $seconds"
echo "binary    $(stat -c %s "$agent") bytes, $("$agent" --version)"
echo "processes $(family "$pid" | wc -l)"
awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v s="$seconds" \
    'BEGIN { printf "cpu       %.3f %% of one core (%d ticks of 1/%d s in %d s)\n", 100 * t / hz / s, t, hz, s }'
echo "wake-ups  $((woken * 60 / seconds)) a minute"
echo "pss       $(pss_kb "$pid") kB"
echo "events    $(($(collected) - events)) collected meanwhile; a machine is idle when these are few"
"$agent" status --config "$dir/twin.json" --json | sed 's/^/status    /'
