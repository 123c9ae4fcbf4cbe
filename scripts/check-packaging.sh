#!/usr/bin/env bash
# What the packages install besides programs: scripts, the AppArmor profile, and how far the units' sandboxes go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH="$PATH:/usr/sbin:/sbin"

shellcheck packaging/install.sh packaging/init/edgewarden.sysv packaging/debian/*/{postinst,prerm,postrm}
# The variables of OpenRC are set here and read there.
shellcheck --shell=sh --exclude=SC2034,SC2154 packaging/init/edgewarden.openrc
apparmor_parser --skip-kernel-load --skip-cache --quiet packaging/apparmor/edgewarden

# exposed UNIT MOST [DROP_IN]: `systemd-analyze security` gives at most so much.
exposed() {
    local folder exposure
    folder=$(mktemp -d)
    cp "systemd/$1" "$folder/"
    if [[ -n ${3:-} ]]; then
        mkdir "$folder/$1.d"
        cp "systemd/$3" "$folder/$1.d/"
    fi
    # It wants tenths of the number it prints.
    if ! exposure=$(systemd-analyze security --offline=yes --threshold=$((${2/./})) "$folder/$1" 2>&1); then
        echo "$exposure" >&2
        echo "systemd/$1 ${3:-} is exposed more than $2" >&2
        rm -r "$folder"
        return 1
    fi
    rm -r "$folder"
    echo "$1 ${3:-}: $(sed -n 's/.*Overall exposure level[^:]*: //p' <<<"$exposure"), at most $2"
}
exposed edgewarden.service 3.0
exposed edgewarden.service 2.0 edgewarden-tight.conf
exposed edgewarden-hub.service 1.5
