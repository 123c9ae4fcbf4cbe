#!/usr/bin/env bash
# Makes an ARM board to boot in an emulator: Debian's kernel, an initrd and a disk with a Debian 12 root.
#
#   make-board.sh ARCH FOLDER [PACKAGE...]
#
# ARCH is arm64 or armhf. Makes FOLDER/{vmlinuz,initrd,disk.img} and the key pair FOLDER/key, with which root logs in by
# ssh; a FOLDER that was made with the same packages is left alone. Wants root. scripts/board.sh boots what comes out.
#
# The kernel package is only unpacked, and the initrd is made here: update-initramfs on an emulated processor takes
# longer than all the rest together.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

[[ $# -ge 2 ]] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
arch="$1" release=bookworm
mkdir -p "$2"
folder="$(cd "$2" && pwd)"
shift 2
case "$arch" in
    arm64) kernel=linux-image-arm64 ;;
    armhf) kernel=linux-image-armmp-lpae ;;
    *) echo "make-board.sh: no such board: $arch; there are arm64 and armhf" >&2; exit 2 ;;
esac

base=(systemd systemd-sysv dbus udev kmod busybox-static openssh-server libpam-systemd iproute2 procps login adduser)
made="$folder/made"
wanted="$release $arch ${base[*]} $*"
[[ ! -e "$made" || "$(cat "$made")" != "$wanted" ]] || exit 0
rm -f "$made"
"$here/need-packages.sh" depmod:kmod cpio:cpio mke2fs:e2fsprogs ssh-keygen:openssh-client >&2

root="$folder/root"
"$here/make-root.sh" "$release:$arch" "$root" "${base[@]}" "$@"
rm "$root.packages" # This root is about to be changed.

echo "make-board.sh: the kernel" >&2
apt="$(mktemp -d)"
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt"/{state/lists/partial,cache/archives/partial}
cat >"$apt/conf" <<CONF
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Sandbox::User "root";
Acquire::Retries "3";
Dir "$root";
Dir::State "$apt/state";
Dir::State::status "$root/var/lib/dpkg/status";
Dir::Cache "$apt/cache";
Dir::Etc::trustedparts "/usr/share/keyrings";
CONF
export APT_CONFIG="$apt/conf"
apt-get -qq update
image="$(apt-cache depends "$kernel" | sed -n 's/^ *Depends: \(linux-image-\)/\1/p' | head -n 1)"
(cd "$apt" && apt-get -qq download "$image")
unset APT_CONFIG
# Not into the root right away: the package's /lib would replace the link that Debian has there.
dpkg -x "$apt/$image"_*.deb "$apt/kernel"
version="${image#linux-image-}"
cp "$apt/kernel/boot/vmlinuz-$version" "$folder/vmlinuz"
mkdir -p "$root/usr/lib/modules"
cp -a "$apt/kernel/lib/modules/$version" "$root/usr/lib/modules/"
depmod -b "$root" "$version"

echo "make-board.sh: the initrd" >&2
initrd="$apt/initrd"
mkdir -p "$initrd"/{bin,dev,proc,sys,modules,root}
cp "$root/bin/busybox" "$initrd/bin/busybox"
for module in virtio_mmio virtio_blk ext4 crc32c_generic; do
    modprobe -d "$root" -S "$version" --show-depends "$module"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r path; do
    cp "$path" "$initrd/modules/"
    basename "$path" >>"$initrd/modules/order"
done
cat >"$initrd/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
while read -r module; do $b insmod "/modules/$module"; done </modules/order
for _ in $($b seq 100); do [ -b /dev/vda ] && break; $b sleep 0.1; done
$b mount -t ext4 /dev/vda /root || exec $b sh
$b mount --move /dev /root/dev
$b umount /sys /proc
exec $b switch_root /root /sbin/init
INIT
chmod +x "$initrd/init"
(cd "$initrd" && find . | cpio --quiet -o -H newc | gzip -1) >"$folder/initrd"

echo "make-board.sh: the disk" >&2
[[ -e "$folder/key" ]] || ssh-keygen -q -t ed25519 -N '' -C board -f "$folder/key"
home="$root/root"
install -d -m 700 "$home/.ssh"
install -m 600 "$folder/key.pub" "$home/.ssh/authorized_keys"
echo "$arch-board" >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s-board\n' "$arch" >"$root/etc/hosts"
printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/10-wired.network"
wants="$root/etc/systemd/system/multi-user.target.wants"
mkdir -p "$wants"
ln -sf /lib/systemd/system/systemd-networkd.service "$wants/"
# These would work on the board while it is looked at.
for unit in e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
mke2fs -q -F -t ext4 -d "$root" "$folder/disk.img" 1500M
rm -rf "$root"
echo "$wanted" >"$made"
