#!/usr/bin/env bash
# Measures what a flood of failed logins costs: an auth.log gets what sshd writes of ATTEMPTS attempts from as many
# connections and a thousand addresses, spread over a minute. Logins only, without folding; the other collectors are off.
#
#   measure-flood.sh AGENT [ATTEMPTS]
#
# rows      what a subscriber of the broker on this machine got: all, and of how many different connections
# cpu       utime + stime of the agent (/proc/PID/stat), from before the first line until all rows are there
# memory    most that was ever resident (VmHWM), and the PSS at the end
#
# The numbers belong in docs/measurements.md together with the lines around them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
agent="$(realpath "${1:?path of the release binary}")"
attempts="${2:-10000}"
PATH="$PATH:/usr/sbin"
scripts/need-packages.sh mosquitto:mosquitto mosquitto_sub:mosquitto-clients python3:python3
source scripts/processes.sh

dir="$(mktemp -d)"
started=()
trap 'kill "${started[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
port=$((20000 + RANDOM % 10000))
printf 'allow_anonymous true\npersistence false\nmax_queued_messages 0\nlistener %s 127.0.0.1\n' "$port" >"$dir/mosquitto.conf"
mosquitto -c "$dir/mosquitto.conf" >/dev/null 2>&1 &
started+=($!)
sleep 1
mosquitto_sub -p "$port" -q 1 -t 'edgewarden/+/security' >"$dir/hub" &
started+=($!)
cat >"$dir/twin.json" <<JSON
{ "deviceId": "flood", "stateDirectory": "$dir/state", "connection": { "url": "mqtt://127.0.0.1:$port" },
  "properties": { "desired": {
    "ms_iotn:urn_azureiot_Security_SecurityAgentConfiguration": {
      "eventPriorityLocalUsers": { "value": "Off" }, "eventPriorityListeningPorts": { "value": "Off" },
      "eventPriorityProcessCreate": { "value": "Off" }, "highPriorityMessageFrequency": { "value": "PT1S" } },
    "edgewarden": { "loginSource": "$dir/auth.log" } } } }
JSON
mkdir "$dir/state"
touch "$dir/auth.log"
"$agent" run --config "$dir/twin.json" 2>"$dir/log" &
pid=$!
started+=("$pid")
sleep 5
kill -0 "$pid" 2>/dev/null || { echo "the agent ended:" >&2; cat "$dir/log" >&2; exit 1; }

# The address and the port of each connection are its own.
connections() { grep -oE '"RemoteAddress":"[0-9.]+","RemotePort":"[0-9]+"' "$dir/hub" | "$@" | wc -l; }
before="$(ticks "$pid")"
python3 - "$dir/auth.log" "$attempts" <<'PY'
import sys, time
path, attempts = sys.argv[1], int(sys.argv[2])
began = time.time()
with open(path, "a") as log:
    for n in range(attempts):
        late = began + n * 60 / attempts - time.time()
        if late > 0:
            log.flush()
            time.sleep(late)
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + ".%06d+00:00" % (now % 1 * 1e6)
        address, port, pid = "198.18.%d.%d" % (n % 1000 // 250, n % 250 + 1), 1024 + n % 60000, 1000 + n % 30000
        pam = "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=" + address
        if n % 3:
            lines = [pam + "  user=root", f"Failed password for root from {address} port {port} ssh2",
                     f"Connection closed by authenticating user root {address} port {port} [preauth]"]
        else:
            lines = [f"Invalid user admin{n} from {address} port {port}", "pam_unix(sshd:auth): check pass; user unknown",
                     pam + " ", f"Failed password for invalid user admin{n} from {address} port {port} ssh2",
                     f"Connection closed by invalid user admin{n} {address} port {port} [preauth]"]
        log.writelines(f"{stamp} board sshd[{pid}]: {line}\n" for line in lines)
PY
for _ in $(seq 30); do
    (($(connections sort -u) < attempts)) || break
    sleep 2
done
taken=$(($(ticks "$pid") - before))
echo "rows      $(connections cat), of $(connections sort -u) connections; $attempts attempts were made"
awk -v t="$taken" -v hz="$(getconf CLK_TCK)" -v n="$attempts" \
    'BEGIN { printf "cpu       %.2f s, %.0f us an attempt\n", t / hz, 1e6 * t / hz / n }'
echo "memory    VmHWM $(sed -n 's/^VmHWM:[[:space:]]*//p' "/proc/$pid/status"), PSS $(pss_kb "$pid") kB"
echo "log       $(stat -c %s "$dir/auth.log") bytes"
echo "date      $(date -u +%Y-%m-%dT%H:%MZ)"
echo "machine   $(uname -srm), $(nproc) x $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), load $(cut -d' ' -f1-3 /proc/loadavg)"
echo "command   scripts/measure-flood.sh $agent $attempts"
