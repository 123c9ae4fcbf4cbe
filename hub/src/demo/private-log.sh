# Runs a program with a syslog daemon that only it can reach: private-log.sh DIR PROGRAM [ARGUMENT...]
#
# To be started in its own mount namespace. /dev becomes an empty one with the harmless devices and a /dev/log of its
# own, /run an empty one with sshd's directory. The machine sees none of it. What is logged goes to DIR/auth.log.
set -eu
dir=$1
shift
mkdir -p "$dir/dev"
mount -t tmpfs -o mode=0755,nosuid tmpfs "$dir/dev"
for node in null zero full random urandom tty ptmx; do
    if [ -c "/dev/$node" ]; then
        : > "$dir/dev/$node"
        mount --bind "/dev/$node" "$dir/dev/$node"
    fi
done
mkdir "$dir/dev/pts"
mount --bind /dev/pts "$dir/dev/pts"
mount --rbind "$dir/dev" /dev
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/sshd
busybox syslogd -n -O "$dir/auth.log" &
waited=0
while ! [ -S /dev/log ]; do
    waited=$((waited + 1))
    if [ "$waited" -gt 40 ]; then
        echo "busybox syslogd made no /dev/log within 2 s" >&2
        exit 1
    fi
    sleep 0.05
done
exec "$@"
