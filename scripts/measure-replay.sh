#!/usr/bin/env bash
# Measures `edgewarden replay` of an auth.log of 100 MB without years: time, and the most memory it had (VmHWM).
#
#   measure-replay.sh AGENT
#
# Half of the connections name somebody who is no account, a third fail as root, the rest are lines of cron.
set -euo pipefail
agent="${1:?path of the release binary}"
[[ -x "$agent" ]] || { echo "$agent is no executable file: cargo build --release -p edgewarden" >&2; exit 1; }
log="$(mktemp)"
trap 'rm -f "$log" "$log.rows"' EXIT
awk 'BEGIN {
    srand(1); split("admin test oracle ubuntu git", names, " ")
    for (pid = 1000; bytes < 100000000; pid++) {
        day = int(pid / 12000)
        head = sprintf("%s %2d %02d:%02d:%02d press-17 sshd[%d]: ", day < 28 ? "Oct" : "Nov", day % 28 + 1, pid / 500 % 24,
            pid / 9 % 60, pid % 60, pid % 32768)
        at = sprintf("%d.%d.%d.%d", 1 + rand() * 222, rand() * 255, rand() * 255, rand() * 255)
        port = 1024 + int(rand() * 60000)
        kind = rand()
        if (kind < 0.5) {
            name = names[1 + int(rand() * 5)]
            lines = head "Invalid user " name " from " at " port " port "\n" \
                head "pam_unix(sshd:auth): check pass; user unknown\n" \
                head "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=" at " \n" \
                head "Failed password for invalid user " name " from " at " port " port " ssh2\n" \
                head "Received disconnect from " at " port " port ":11: Bye Bye [preauth]\n" \
                head "Disconnected from invalid user " name " " at " port " port " [preauth]\n"
        } else if (kind < 0.8) {
            lines = head "Failed password for root from " at " port " port " ssh2\n" \
                head "Connection closed by authenticating user root " at " port " port " [preauth]\n"
        } else {
            sub(/sshd/, "CRON", head)
            lines = head "pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)\n"
        }
        printf "%s", lines
        bytes += length(lines)
    }
}' >"$log"
echo "$(uname -m), $(nproc) CPUs, Linux $(uname -r), load $(cut -d' ' -f1 /proc/loadavg), $(date +%F)"
start="$(date +%s%N)"
"$agent" replay "$log" >"$log.rows" &
pid=$!
peak=0
while [[ -r /proc/$pid/status ]] && now="$(sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\).*/\1/p' /proc/$pid/status)" && [[ -n "$now" ]]; do
    peak=$now
    sleep 0.05
done
wait "$pid"
end="$(date +%s%N)"
echo "$(stat -c %s "$log") bytes, $(wc -l <"$log.rows") rows in $(((end - start) / 1000000)) ms, VmHWM $peak kB"
