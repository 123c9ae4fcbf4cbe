#!/usr/bin/env bash
# Installs Debian packages that are missing, and only those.
#
#   need-packages.sh PROBE:PACKAGE...
#
# PROBE is a command or an absolute path whose presence means that the package is there. Root gets the missing packages
# installed; anybody else gets told which they are, and the script ends with 3.
#
# Services that come along (mosquitto, sshd) are neither started nor left enabled: the tests and the demo start their
# own on a port of their own, and a set-up script must not open a port on somebody's machine.
set -euo pipefail
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

missing=()
for pair in "$@"; do
    probe="${pair%%:*}"
    if [[ "$probe" == /* ]]; then
        [[ -e "$probe" ]] || missing+=("${pair#*:}")
    else
        command -v "$probe" >/dev/null || missing+=("${pair#*:}")
    fi
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $EUID -ne 0 ]]; then
    echo "missing on this machine: ${missing[*]}" >&2
    echo "install with: sudo apt-get install ${missing[*]}" >&2
    exit 3
fi
if ! command -v apt-get >/dev/null; then
    echo "missing on this machine: ${missing[*]} (Debian's names; there is no apt-get here to install them with)" >&2
    exit 3
fi

# invoke-rc.d asks this script before it starts a service; 101 means no. One that is already there is left alone.
policy=/usr/sbin/policy-rc.d
if [[ ! -e "$policy" ]]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -q)
"${apt[@]}" update
"${apt[@]}" install -y --no-install-recommends "${missing[@]}"

if [[ -d /run/systemd/system ]]; then
    for package in "${missing[@]}"; do
        case "$package" in
            mosquitto) systemctl disable --now mosquitto.service ;;
            auditd) systemctl disable --now auditd.service ;;
            openssh-server) systemctl disable --now ssh.service ;;
        esac
    done
fi
