#!/usr/bin/env bash
# Measures the idle agent: all four collectors on, connected to a broker on this machine, a state directory of its own.
# Where no journal is live and we are root, the measurement gets a journald of its own in a mount namespace, so that the
# reader of the journal counts.
#
#   measure-idle.sh AGENT [SECONDS [BACKEND]]
#
# over SECONDS, 180 unless told otherwise, after 20 s of warm-up; BACKEND is what processBackend says, auto unless told
# otherwise. Neither the waiting nor the looking executes a program.
#
# cpu       time on a processor of all threads of the agent and its descendants (/proc/PID/task/*/schedstat)
# wake-ups  their voluntary context switches
# events    how much happened on the machine meanwhile. Each exec anywhere is an event, and work: a machine on which
#           more than a few are counted was not idle, and neither was the agent.
# pss       sum of smaps_rollup over the same processes (proc(5))
#
# Fails when one of these does not hold, and says which: 0.02 s of CPU and 120 wake-ups (without BPF 180) a minute, PSS
# of 10 MB. With more than a few events they need not hold.
#
# The numbers belong in docs/measurements.md together with the lines around them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"
agent="${1:?path of the release binary}"
seconds="${2:-180}"
backend="${3:-auto}"
[[ -x "$agent" ]] || { echo "$agent is no executable file: cargo build --release -p edgewarden" >&2; exit 1; }

journald=/lib/systemd/systemd-journald
if [[ ! -S /run/systemd/journal/socket && "$(id -u)" = 0 && -x $journald && -z "${EDGEWARDEN_MEASURE_JOURNALD:-}" ]]; then
    EDGEWARDEN_MEASURE_JOURNALD=1 exec unshare --mount --propagation private "$0" "$@"
fi

"$(dirname "${BASH_SOURCE[0]}")/need-packages.sh" mosquitto:mosquitto
PATH="$PATH:/usr/sbin"

dir="$(mktemp -d)"
chmod 755 "$dir"
pid=
broker_pid=
journald_pid=
trap '[[ -z "$pid" ]] || kill "$pid" 2>/dev/null || true
    [[ -z "$broker_pid" ]] || kill "$broker_pid" 2>/dev/null || true
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
port=$((20000 + RANDOM % 10000))
printf 'allow_anonymous true\npersistence false\nlistener %s 127.0.0.1\n' "$port" >"$dir/mosquitto.conf"
mosquitto -c "$dir/mosquitto.conf" >/dev/null 2>&1 &
broker_pid=$!
cat >"$dir/twin.json" <<JSON
{
  "deviceId": "measure-idle",
  "stateDirectory": "$dir/state",
  "connection": { "url": "mqtt://127.0.0.1:$port" },
  "properties": { "desired": {
    "ms_iotn:urn_azureiot_Security_SecurityAgentConfiguration": {
      "eventPriorityLocalUsers": { "value": "High" },
      "eventPriorityListeningPorts": { "value": "High" },
      "eventPriorityLogin": { "value": "High" },
      "eventPriorityProcessCreate": { "value": "High" } },
    "edgewarden": { "processBackend": "$backend" }
  } }
}
JSON
mkdir "$dir/state"

collected() { "$agent" status --config "$dir/twin.json" --json | sed 's/.*"collected":\([0-9]*\).*/\1/'; }

"$agent" run --config "$dir/twin.json" 2>"$dir/log" &
pid=$!
sleep 17
kill -0 "$pid" 2>/dev/null || { echo "the agent ended during warm-up:" >&2; cat "$dir/log" >&2; exit 1; }
events="$(collected)"
# A pipe into which nobody writes, to wait at.
exec {never}<> <(:)
read -rt 3 -u "$never" || true
before="$(cpu_ns "$pid")"
woken="$(wakeups "$pid")"
read -rt "$seconds" -u "$never" || true
after="$(cpu_ns "$pid")"
woken=$(($(wakeups "$pid") - woken))
kill -0 "$pid" 2>/dev/null || { echo "the agent ended during the measurement:" >&2; cat "$dir/log" >&2; exit 1; }

echo "date      $(date -u +%Y-%m-%dT%H:%MZ)"
echo "machine   $(uname -srm), $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), load $(cut -d' ' -f1-3 /proc/loadavg)"
echo "command   scripts/measure-idle.sh $agent $seconds $backend"
echo "binary    $(stat -c %s "$agent") bytes, $("$agent" --version)"
echo "processes $(family "$pid" | wc -l)"
cpu="$(awk -v ns=$((after - before)) -v s="$seconds" 'BEGIN { printf "%.4f", ns * 60 / s / 1e9 }')"
awk -v cpu="$cpu" 'BEGIN { printf "cpu       %.4f s a minute, %.3f %% of one core\n", cpu, cpu / 60 * 100 }'
woken=$((woken * 60 / seconds))
echo "wake-ups  $woken a minute"
memory_kb="$(pss_kb "$pid")"
echo "pss       $memory_kb kB"
echo "events    $(($(collected) - events)) collected meanwhile"
status="$("$agent" status --config "$dir/twin.json" --json)"
echo "status    $status"
most_woken=180
[[ "$status" != *'"backend":"eBPF'* ]] || most_woken=120
limit "CPU s a minute" "$cpu" at-most 0.02
limit "wake-ups a minute" "$woken" at-most "$most_woken"
# What is installed is the static one of `make deb`; the heap of glibc keeps more.
ldd "$agent" >/dev/null 2>&1 || limit "PSS in kB" "$memory_kb" at-most $((10 * 1024))
report_limits
