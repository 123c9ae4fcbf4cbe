#!/usr/bin/env bash
# Builds the packages: build-deb.sh CROSS_FOLDER OUT_FOLDER [ARCHITECTURE...]
#
#   edgewarden_VERSION_ARCH.deb, edgewarden-hub_VERSION_ARCH.deb   the hub is for a server, and not for armhf
#   edgewarden-VERSION-ARCH.tar.gz                                 for systems without dpkg, with an install script
#   edgewarden-VERSION-ARCH.cdx.json, edgewarden-hub-...           what is linked in (CycloneDX)
#
# PACKAGES="edgewarden" in the environment leaves the hub out.
#
# The same commit gives the same bytes: dates are the commit's, and no path of this machine gets into a binary.
# scripts/check-reproducible.sh builds again elsewhere and compares.
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
umask 022
export LC_ALL=C.UTF-8
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y CHANGELOG.md)
export SOURCE_DATE_EPOCH
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

# What Rust and the C compiler write into a binary of where they found their sources. The last one that fits counts.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
target_dir=$(cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
export CFLAGS=''
remap=''
for moved in "$cargo_home=/cargo" "$PWD=/edgewarden" "$target_dir=/target"; do
    CFLAGS+=" -ffile-prefix-map=$moved"
    remap+=" --remap-path-prefix=$moved"
done

# bill PACKAGE FOLDER ARCHITECTURE: what is linked in, by name for scanners and with its terms for people.
bill() {
    local target folder=agent
    target=$(target_of "$3")
    [[ $1 == edgewarden ]] || folder=hub
    scripts/list-crates.py "$1" "$target" "$2"
    gzip -9nf "$2/$1.licences"
    "$cross/cargo/bin/cargo-cyclonedx" cyclonedx --quiet --manifest-path "$folder/Cargo.toml" --target "$target" \
        --format json --spec-version 1.5 --override-filename bill.cdx
    sed "s#path+file://$PWD#path+file:///edgewarden#g" "$folder/bill.cdx.json" >"$out/$1-$version-$3.cdx.json"
    rm -f {agent,hub,collector-common}/bill.cdx.json
    gzip -9nc "$out/$1-$version-$3.cdx.json" >"$2/$1.cdx.json.gz"
}

# tarball BINARIES ARCHITECTURE
tarball() {
    local name=edgewarden-$version-$2 stage
    stage=$(mktemp -d)
    mkdir -p "$stage/$name/files/doc"
    cp packaging/install.sh LICENSE "$stage/$name/"
    cp "$1/edgewarden" packaging/twin.json packaging/man/edgewarden{.8,-twin.5} packaging/init/* \
        systemd/edgewarden.service systemd/edgewarden-tight.conf "$stage/$name/files/"
    cp README.md CHANGELOG.md docs/events.md docs/threat-model.md "$1"/edgewarden.{cdx.json,licences}.gz \
        "$stage/$name/files/doc/"
    cp "$1/edgewarden.copyright" "$stage/$name/files/doc/copyright"
    tar --directory "$stage" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
        --mode=u=rwX,go=rX --format=gnu -cf - "$name" | gzip -9n >"$out/$name.tar.gz"
    rm -r "$stage"
}

for architecture in "${architectures[@]}"; do
    target=$(target_of "$architecture")
    binaries=$target_dir/$target/release
    flags=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$target")_RUSTFLAGS
    export "$flags=${!flags}$remap"
    packages=()
    for package in ${PACKAGES:-edgewarden edgewarden-hub}; do
        [[ $architecture == armhf && $package == edgewarden-hub ]] || packages+=("$package")
    done
    for package in "${packages[@]}"; do
        # One by one: built together, the agent would get the features that the hub wants of crates both use.
        cargo-zigbuild zigbuild --locked --release --target "$target" --package "$package" --bins
        bill "$package" "$binaries" "$architecture"
        "$cross/cargo/bin/cargo-deb" --package "$package" --target "$target" --no-build --no-strip --locked \
            --output "$out/" --quiet
    done
    [[ " ${packages[*]} " != *" edgewarden "* ]] || tarball "$binaries" "$architecture"
done
