#!/usr/bin/env bash
# Builds the BPF objects that are committed beside their sources, so that nobody else needs a compiler for them.
#
#   build-bpf.sh          replaces bpf/*.bpf.o
#   build-bpf.sh --check  says whether they are byte for byte what their sources give
#
# The bytes are those of one compiler, Debian 12's clang 14.0.6, on any machine and in any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CLANG=14.0.6

scripts/need-packages.sh "clang-${CLANG%%.*}:clang-${CLANG%%.*}" "llvm-strip-${CLANG%%.*}:llvm-${CLANG%%.*}"
if ! "clang-${CLANG%%.*}" --version | grep -qF "version $CLANG"; then
    echo "clang-${CLANG%%.*} is not $CLANG, whose bytes are committed: build the BPF objects on Debian 12" >&2
    exit 1
fi

dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
cd bpf
for source in *.bpf.c; do
    object="${source%.c}.o"
    # -g is for the BTF, which names the fields; what it says about lines is taken out again.
    "clang-${CLANG%%.*}" -target bpf -mcpu=v2 -O2 -g -fdebug-compilation-dir=. -Wall -Wextra -Werror -c "$source" -o "$dir/$object"
    "llvm-strip-${CLANG%%.*}" -g "$dir/$object"
    if [[ "${1:-}" != --check ]]; then
        cp "$dir/$object" "$object"
        echo "bpf/$object: $(stat -c %s "$object") bytes"
    elif ! cmp "$dir/$object" "$object"; then
        echo "bpf/$object is not what bpf/$source gives: run make bpf, and commit both" >&2
        exit 1
    fi
done
