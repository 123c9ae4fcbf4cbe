#!/usr/bin/env bash
# What `make test` needs besides Rust: a C compiler and headers (SQLite and ring are compiled in), an MQTT broker and a
# subscriber that are not ours, real daemons to log in to, `ss` to compare with, and openssl for test certificates.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec ./need-packages.sh \
    gcc:gcc /usr/include/stdio.h:libc6-dev \
    mosquitto:mosquitto mosquitto_sub:mosquitto-clients \
    sshd:openssh-server ssh:openssh-client busybox:busybox auditd:auditd ss:iproute2 openssl:openssl
