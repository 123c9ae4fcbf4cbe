#!/usr/bin/env bash
# What `make test` needs besides Rust: a C compiler and headers (SQLite and ring are compiled in), an MQTT broker and a
# subscriber that are not ours, real daemons to log in to, machines of other releases to log in to, `ss` to compare with,
# and openssl for test certificates.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec ./need-packages.sh \
    gcc:gcc /usr/include/stdio.h:libc6-dev \
    mosquitto:mosquitto mosquitto_sub:mosquitto-clients \
    sshd:openssh-server ssh:openssh-client dropbear:dropbear-bin socat:socat unshare:util-linux \
    busybox:busybox-static auditd:auditd ss:iproute2 openssl:openssl \
    systemd-nspawn:systemd-container mmdebstrap:mmdebstrap pgrep:procps
