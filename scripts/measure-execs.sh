#!/usr/bin/env bash
# Measures what it costs to know of every exec: EXECS programs of one instruction each, started at full speed by two
# workers, each with an argument of its own. Beside the agent, which makes JSON, keeps it on disk and sends it to a
# broker on this machine, stand three tools that print or log what they see. Needs root.
#
#   measure-execs.sh AGENT [EXECS]
#
# captured  of the EXECS, those whose argument came out at the end: at the subscriber of the broker for the agent. For
#           the agent what stands behind it counts the rows that lack something too, whoever executed them
# cpu       utime + stime of the tool, its threads and its children (/proc/PID/stat), from before the first exec until
#           next to nothing is added any more, at most 12 s, an exec. What others execute meanwhile counts too: for the
#           agent, which says how many those were, the time is divided by all. For auditd kauditd's share stands behind
#           the plus. What the kernel does inside the process that executes is not in it.
# in exec   for BPF, what its program takes inside the process that executes (kernel.bpf_stats_enabled, bpftool)
# memory    most that was ever resident (VmHWM), and for the agent the PSS at the end, children included
#
# Fails when one of these does not hold, and says which. BPF: every exec with its command line, at most 15 us of the
# agent's and 3 us of the program's an exec, PSS of at most 16 MB. Process connector: 99 % as events, the rest counted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
agent="$(realpath "${1:?path of the release binary}")"
execs="${2:-20000}"
PATH="$PATH:/usr/sbin:/sbin"
[[ $EUID = 0 ]] || { echo "only root can measure this" >&2; exit 1; }
scripts/need-packages.sh gcc:gcc mosquitto:mosquitto mosquitto_sub:mosquitto-clients execsnoop:libbpf-tools \
    forkstat:forkstat auditd:auditd bpftool:bpftool

# execsnoop wants tracefs, and a mount namespace of our own leaves the machine's mounts alone.
if [[ -z "${EDGEWARDEN_MEASURE_EXECS:-}" ]]; then
    EDGEWARDEN_MEASURE_EXECS=1 exec unshare --mount --propagation private "$0" "$agent" "$execs"
fi
# The tests that change audit hold this lock, and what they execute would count.
exec {lock}>"${TMPDIR:-/tmp}/edgewarden-audit-test.lock"
flock "$lock"
[[ -d /sys/kernel/tracing/events ]] || mount -t tracefs none /sys/kernel/tracing

dir="$(mktemp -d)"
chmod 755 "$dir"
started=()
finish() {
    kill "${started[@]}" 2>/dev/null || true
    auditctl -D >/dev/null 2>&1 || true
    wait
    rm -rf "$dir"
}
trap finish EXIT
gcc -O2 -o "$dir/burst" tests/support/burst.c
gcc -O2 -static -nostdlib -o "$dir/tiny" tests/support/tiny.c

source scripts/processes.sh
# Until next to nothing is added any more, but not for ever: on a machine that executes something all the time it does.
settled_ticks() {
    local before now look
    now="$(ticks "$1")"
    for look in 1 2 3 4; do
        before="$now"
        sleep 3
        now="$(ticks "$1")"
        ((now - before > 1)) || break
    done
    echo "$now"
}
per_exec() { awk -v t="$1" -v hz="$(getconf CLK_TCK)" -v n="${2:-$execs}" 'BEGIN { printf "%.1f", 1e6 * t / hz / n }'; }
peak_kb() { sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/$1/status"; }
# The marks that a file holds, of those that were executed.
captured() { grep -oaE "$1-[0-9]{6}" "$2" | sort -u | comm -12 - <(seq -f "$1-%06.0f" 0 $((execs - 1))) | wc -l; }

# Of how many execs the agent of the configuration `twin` has told, whoever executed them.
told() { "$agent" status --config "$twin" --json | grep -o '"ProcessCreate":[0-9]*' | head -n 1 | grep -o '[0-9]*$'; }

# The rows that came out for them, or lack something.
events() { sed 's/{"Executable"/\n&/g' "$2" | awk -v mark="$1-" '/^{"Executable"/ && (index($0, mark) || /"Incomplete"/) { n++ } END { print n + 0 }'; }

printf '%-34s %10s %10s %12s %14s %s\n' tool captured execs/s "cpu us/exec" "in exec us" memory
# measure NAME PID MARK FILE [PID of a kernel thread that works for it]
measure() {
    local before after extra='' helper=0 runs_before runs_after seconds rows='' told_before=0
    all="$execs" in_exec=-
    sleep 3
    [[ "$1" != edgewarden* ]] || told_before="$(told)"
    before="$(ticks "$2")"
    [[ -z "${5:-}" ]] || helper="$(ticks "$5")"
    runs_before="$(runs)"
    seconds="$("$dir/burst" "$dir/tiny" "$3" "$execs" 2)"
    after="$(settled_ticks "$2")"
    runs_after="$(runs)"
    [[ "$1" != edgewarden* ]] || all=$(($(told) - told_before))
    [[ -z "${5:-}" ]] || extra=" + $(per_exec $(($(ticks "$5") - helper)))"
    caught="$(captured "$3" "$4")" cpu_us="$(per_exec $((after - before)) "$all")"
    [[ "$runs_after" = "$runs_before" ]] || in_exec="$(awk -v a="$runs_before" -v b="$runs_after" \
        'BEGIN { split(a, x); split(b, y); printf "%.1f", (y[1] - x[1]) / (y[2] - x[2]) / 1000 }')"
    if [[ "$1" = edgewarden* ]]; then
        memory_kb="$(pss_kb "$2")" as_events="$(events "$3" "$4")"
        rows=", PSS $memory_kb kB, $((all - execs)) execs of others, $(awk -v c="$as_events" -v n="$execs" 'BEGIN { printf "%.2f", 100 * c / n }')% as events"
    fi
    printf '%-34s %9s%% %10s %12s %14s %s\n' "$1" \
        "$(awk -v c="$caught" -v n="$execs" 'BEGIN { printf "%.2f", 100 * c / n }')" \
        "$(awk -v s="$seconds" -v n="$execs" 'BEGIN { printf "%.0f", n / s }')" \
        "$cpu_us$extra" "$in_exec" "VmHWM $(peak_kb "$2") kB$rows"
}
# Nanoseconds and runs of our program, if it is there.
runs() {
    { bpftool -j prog show name on_exec 2>/dev/null || true; } |
        awk -F'[:,}]' '{ for (i = 1; i < NF; i++) { if ($i ~ /run_time_ns/) t = $(i + 1); if ($i ~ /run_cnt/) c = $(i + 1) } } END { print t + 0, c + 0 }'
}

port=$((20000 + RANDOM % 10000))
printf 'allow_anonymous true\npersistence false\nmax_queued_messages 0\nuser root\nlistener %s 127.0.0.1\n' "$port" >"$dir/mosquitto.conf"
mosquitto -c "$dir/mosquitto.conf" >/dev/null 2>&1 &
started+=($!)
sleep 1
mosquitto_sub -p "$port" -q 1 -t 'edgewarden/+/security' >"$dir/hub" &
started+=($!)

stats="$(sysctl -n kernel.bpf_stats_enabled 2>/dev/null || true)"
by_agent() {
    mkdir "$dir/$1"
    cat >"$dir/$1.json" <<JSON
{ "deviceId": "bench", "stateDirectory": "$dir/$1", "connection": { "url": "mqtt://127.0.0.1:$port" },
  "properties": { "desired": {
    "ms_iotn:urn_azureiot_Security_SecurityAgentConfiguration": {
      "eventPriorityProcessCreate": { "value": "High" }, "highPriorityMessageFrequency": { "value": "PT1S" } },
    "edgewarden": { "processBackend": "$1" } } } }
JSON
    twin="$dir/$1.json"
    "$agent" run --config "$twin" 2>"$dir/$1.log" &
    local pid=$!
    started+=("$pid")
    sleep 5
    measure "edgewarden, $1${2:-}" "$pid" "mk-$1${3:-}" "$dir/hub"
    "$agent" status --config "$twin" --json >"$dir/$1.status" || true
    lost="$({ grep -o '"lost":{[^}]*}' "$dir/$1.status" || true; } | tr ',{' '\n\n' |
        awk -F: '/^"ProcessCreate/ { n += $2 } END { print n + 0 }')"
    grep -o '"lost":{[^}]*}*' "$dir/$1.status" | sed "s/^/                                   /" || true
    kill "$pid"
    wait "$pid" || true
    rm -r "${dir:?}/$1"
}
by_agent bpf
limit "execs with their command line, BPF" "$caught" at-least "$execs"
limit "CPU us an exec, BPF" "$cpu_us" at-most 15
limit "PSS in kB, BPF" "$memory_kb" at-most $((16 * 1024))
if sysctl -qw kernel.bpf_stats_enabled=1 2>/dev/null; then
    by_agent bpf ", its program timed" -timed
    [[ "$in_exec" = - ]] || limit "us in an exec, BPF" "$in_exec" at-most 3
fi
[[ -z "$stats" ]] || sysctl -qw "kernel.bpf_stats_enabled=$stats" 2>/dev/null || true
by_agent connector
limit "execs as events, process connector" "$as_events" at-least $((execs * 99 / 100))
limit "execs as events or counted as lost, process connector" $((as_events + lost)) at-least "$execs"

execsnoop >"$dir/execsnoop" 2>&1 &
started+=($!)
measure "execsnoop (libbpf-tools)" $! mk-snoop "$dir/execsnoop"
kill $!
forkstat -e exec -l >"$dir/forkstat" 2>&1 &
started+=($!)
measure "forkstat -e exec" $! mk-fork "$dir/forkstat"
kill -INT $!

# The kernel may go on naming an owner that has ended.
owner="$(auditctl -s 2>/dev/null | sed -n 's/^pid //p' || true)"
if [[ -z "$owner" ]]; then
    echo "auditd: left out, there is no audit in this kernel"
elif [[ "$owner" != 0 && -d "/proc/$owner" ]]; then
    echo "auditd: left out, audit is owned by process $owner"
else
    mkdir "$dir/audit"
    printf 'log_file = %s\nlog_format = RAW\nmax_log_file = 200\nnum_logs = 2\nflush = INCREMENTAL_ASYNC\nfreq = 50\nspace_left = 75\nspace_left_action = IGNORE\nadmin_space_left = 50\nadmin_space_left_action = IGNORE\ndisk_full_action = IGNORE\ndisk_error_action = IGNORE\n' \
        "$dir/audit/log" >"$dir/audit/auditd.conf"
    chmod 640 "$dir/audit/auditd.conf"
    auditd -n -c "$dir/audit" >"$dir/audit/said" 2>&1 &
    audit_pid=$!
    started+=("$audit_pid")
    sleep 2
    auditctl -b 8192 >/dev/null
    auditctl -a always,exit -F arch=b64 -S execve >/dev/null
    measure "auditd, + kauditd" "$audit_pid" mk-audit "$dir/audit/log" "$(pgrep -x kauditd)"
    auditctl -D >/dev/null
    auditctl -e 0 >/dev/null
    kill "$audit_pid"
fi
echo
echo "date      $(date -u +%Y-%m-%dT%H:%MZ)"
echo "machine   $(uname -srm), $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), load $(cut -d' ' -f1-3 /proc/loadavg)"
echo "command   scripts/measure-execs.sh $agent $execs"
report_limits
