#!/usr/bin/env bash
# What builds static binaries for other machines: setup-cross.sh FOLDER [ARCHITECTURE...]
#
# The standard library for the musl targets is compiled here, from Debian's source of it, since Debian packages none:
#
#   rustc-web, rust-web-src   Debian's compiler and exactly its library; of the same age as ours in rust-toolchain.toml
#   ziglang                   C compiler and linker for every target, with the C library in it
#   cargo-deb, lintian        make the packages and check them
#   cargo-cyclonedx           lists what is linked in
#
# Both stay in FOLDER, with a file `env` to be sourced. A second run finds what is there and does nothing.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Later ones have a heap of their own in the place of musl's, which gives nothing back to the system: what loading the
# kernel's types takes for a moment stays, 3 MB of it.
ZIG=0.15.2
ZIGBUILD=0.24.0
CARGO_DEB=3.8.0
CYCLONEDX=0.5.9
declare -A TARGET_OF=(
    [amd64]=x86_64-unknown-linux-musl [arm64]=aarch64-unknown-linux-musl [armhf]=armv7-unknown-linux-musleabihf
)
# Thumb-2 instructions, which every ARMv7-A has: three quarters of the bytes for the same program. The compiler warns that
# the name of the feature may change some day; the compiler here is Debian's, and does not.
declare -A FLAGS_OF=([armv7-unknown-linux-musleabihf]=" -C target-feature=+thumb-mode")
shift
architectures=("$@")
[[ $# -gt 0 ]] || architectures=("${!TARGET_OF[@]}")
TARGETS=()
for architecture in "${architectures[@]}"; do TARGETS+=("${TARGET_OF[$architecture]}"); done
NO_UNWINDING="-C force-unwind-tables=no"
LIBRARY=/usr/lib/rustlib/src/rust/library
RUSTC=/usr/bin/rustc

"$here/need-packages.sh" /usr/lib/rustlib/x86_64-unknown-linux-gnu/lib:rustc-web "$LIBRARY/std/Cargo.toml:rust-web-src"
python3 -c 'import ensurepip' 2>/dev/null || "$here/need-packages.sh" "python3-venv is missing:python3-venv"
pins=$(printf '%s\n' "cargo-zigbuild==$ZIGBUILD" "ziglang==$ZIG")
if [[ "$("$folder/python/bin/pip" freeze --disable-pip-version-check 2>/dev/null)" != "$pins" ]]; then
    python3 -m venv --clear "$folder/python"
    # shellcheck disable=SC2086 # several packages
    "$folder/python/bin/pip" install --quiet --disable-pip-version-check $pins
fi

# One identity of compiler, zig and how the library is made: when one changes, it is built again, in a folder of another
# name, by which cargo sees that what was compiled against the old one is of no use.
how="$("$RUSTC" -V) zig $ZIG $NO_UNWINDING $(sed -n '/^sysroot=/,/^done/p' "${BASH_SOURCE[0]}" | sha256sum)"
sysroot=$folder/sysroot-$(sha256sum <<<"$how" | head -c 12)
find "$folder" -maxdepth 1 -name 'sysroot*' ! -path "$sysroot" -exec rm -r {} +
mkdir -p "$sysroot/lib/rustlib" "$folder/seed/src"
ln -sfn /usr/lib/rustlib/x86_64-unknown-linux-gnu "$sysroot/lib/rustlib/x86_64-unknown-linux-gnu"
# A crate that makes cargo build the library; nothing else is wanted of it.
# A panic ends the agent at once, so there is nothing to unwind, and nothing reads what unwinding would need: some hundred
# kilobytes less.
printf '[package]\nname = "seed"\nedition = "2024"\n[workspace]\n[profile.release]\npanic = "abort"\n' \
    >"$folder/seed/Cargo.toml"
echo 'fn main() {}' >"$folder/seed/src/main.rs"

for target in "${TARGETS[@]}"; do
    made_by=$how${FLAGS_OF[$target]:-}
    library=$sysroot/lib/rustlib/$target/lib
    [[ "$(cat "$library/.made-by" 2>/dev/null)" == "$made_by" ]] && continue
    echo "compiling the standard library for $target"
    # RUSTC_BOOTSTRAP lets a stable compiler take -Z build-std. Bitcode is what link-time optimisation reads. Debian's
    # compiler has no C library of its own for these targets: zig's is linked.
    (
        cd "$folder/seed"
        RUSTC=$RUSTC RUSTC_BOOTSTRAP=1 RUSTUP_TOOLCHAIN='' PATH="$folder/python/bin:$PATH" \
            RUSTFLAGS="-C link-self-contained=no -C embed-bitcode=yes $NO_UNWINDING${FLAGS_OF[$target]:-}
                --remap-path-prefix=$LIBRARY=/rustc/library
                --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
            CARGO_TARGET_DIR="$folder/seed/target" \
            cargo-zigbuild zigbuild --quiet --release --target "$target" \
            -Z build-std=std,panic_abort -Z build-std-features=
    )
    rm -rf "$library"
    mkdir -p "$library"
    cp "$folder/seed/target/$target/release/deps/"lib*.rlib "$library/"
    echo "$made_by" >"$library/.made-by"
done
rm -rf "$folder/seed/target"

if [[ "$("$folder/cargo/bin/cargo-deb" --version 2>/dev/null)" != *"$CARGO_DEB"* ]]; then
    cargo install --quiet cargo-deb --version "$CARGO_DEB" --locked --root "$folder/cargo"
fi
if [[ "$("$folder/cargo/bin/cargo-cyclonedx" cyclonedx --version 2>/dev/null)" != *"$CYCLONEDX"* ]]; then
    cargo install --quiet cargo-cyclonedx --version "$CYCLONEDX" --locked --root "$folder/cargo"
fi
"$here/need-packages.sh" lintian:lintian

# What another call has set up stays in it.
{
    echo "export RUSTC=$RUSTC PATH=$folder/python/bin:\$PATH"
    for target in "${TARGET_OF[@]}"; do
        [[ "$(cat "$sysroot/lib/rustlib/$target/lib/.made-by" 2>/dev/null)" == "$how${FLAGS_OF[$target]:-}" ]] || continue
        name=$(tr 'a-z-' 'A-Z_' <<<"$target")
        flags="-C link-self-contained=no $NO_UNWINDING${FLAGS_OF[$target]:-}"
        echo "export CARGO_TARGET_${name}_RUSTFLAGS=\"--sysroot $sysroot $flags\""
    done
} >"$folder/env"
