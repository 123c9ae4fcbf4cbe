#!/usr/bin/env bash
# Builds the Debian packages: build-deb.sh CROSS_FOLDER OUT_FOLDER [ARCHITECTURE...]
#
# The same commit gives the same bytes: dates are the commit's, and no path of this machine gets into a binary.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cross=$(cd "$1" && pwd)
out=$(mkdir -p "$2" && cd "$2" && pwd)
shift 2
architectures=("$@")
[[ $# -gt 0 ]] || architectures=(amd64 arm64 armhf)

target_of() {
    case "$1" in
        amd64) echo x86_64-unknown-linux-musl ;;
        arm64) echo aarch64-unknown-linux-musl ;;
        armhf) echo armv7-unknown-linux-musleabihf ;;
        *) echo "no such architecture: $1; there are amd64, arm64 and armhf" >&2; exit 2 ;;
    esac
}

# shellcheck source=/dev/null
. "$cross/env"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)
export SOURCE_DATE_EPOCH
# What Rust and the C compiler write into a binary of where they found their sources. The last one that fits counts.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
target_dir=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
export CFLAGS='' remap=''
for moved in "$cargo_home=/cargo" "$PWD=/edgewarden" "$target_dir=/target"; do
    CFLAGS+=" -ffile-prefix-map=$moved"
    remap+=" --remap-path-prefix=$moved"
done

for architecture in "${architectures[@]}"; do
    target=$(target_of "$architecture")
    flags=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")_RUSTFLAGS
    export "$flags=${!flags}$remap"
    packages=(edgewarden)
    # The hub is for a server.
    [[ $architecture == armhf ]] || packages+=(edgewarden-hub)
    cargo-zigbuild zigbuild --locked --release --target "$target" "${packages[@]/#/--package=}" --bins
    for package in "${packages[@]}"; do
        "$cross/cargo/bin/cargo-deb" --package "$package" --target "$target" --no-build --no-strip --locked \
            --output "$out/" --quiet
    done
done
