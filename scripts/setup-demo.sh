#!/usr/bin/env bash
# What `make demo` needs besides Rust: a C compiler and headers (SQLite and ring are compiled in), and the daemons and
# tools that make real activity. Without root nothing is installed; the demo then goes on with what there is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./need-packages.sh gcc:gcc /usr/include/stdio.h:libc6-dev
./need-packages.sh sshd:openssh-server ssh:openssh-client busybox:busybox-static ip:iproute2 || {
    [[ $? -eq 3 ]] || exit 1
    echo "the demo goes on without them and says what it leaves out" >&2
}
