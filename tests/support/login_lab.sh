#!/bin/sh
# A device to log in to, with clients around it: login_lab.sh DIR file|journal
#
#   client 1  192.0.2.2     2001:db8:1::2 ──┐
#   client 2  198.51.100.2  2001:db8:2::2 ──┼─ device, .1 and ::1 of each network
#   client 3  203.0.113.2   2001:db8:3::2 ──┘
#
# All of it lives in mount, network and process namespaces of its own: the machine sees neither the accounts nor the
# interfaces nor the log. It ends, with everything in it, when its standard input does, so also when the test is killed.
#
# Daemons are at the end, sshd on ports below 30 and dropbear on those above. With `file` they log through busybox's
# syslogd to DIR/auth.log, with `journal` through journald to /run/log/journal of the namespace.
#
# DIR holds the keys `host` and `known`, made before; every account's password is `right`.
set -eu
dir=$1 log=$2
if [ "${3-}" != inside ]; then
    exec unshare --mount --propagation private --net --pid --fork --kill-child --mount-proc sh "$0" "$dir" "$log" inside
fi
PATH="/usr/local/sbin:/usr/sbin:/sbin:$PATH"

# --- files: accounts of our own in a copy of /etc, an empty /home and /run, a /dev with a /dev/log of our own
cp -a /etc "$dir/etc"
mount --bind "$dir/etc" /etc
mount -t tmpfs -o mode=0755 tmpfs /home
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/sshd /run/netns "$dir/dev"
mount -t tmpfs -o mode=0755,nosuid tmpfs "$dir/dev"
for node in null zero full random urandom tty; do
    : >"$dir/dev/$node"
    mount --bind "/dev/$node" "$dir/dev/$node"
done
mkdir "$dir/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$dir/dev/pts"
ln -s pts/ptmx "$dir/dev/ptmx"
mount --rbind "$dir/dev" /dev

# --- accounts
account() { # NAME UID SHELL HASH
    echo "$1:x:$2:$2::/home/$1:$3" >>/etc/passwd
    echo "$1:$4:20000:0:99999:7:::" >>/etc/shadow
    mkdir -p "/home/$1/.ssh"
    cp "$dir/known.pub" "/home/$1/.ssh/authorized_keys"
    chown -R "$2:$2" "/home/$1"
    chmod -R go= "/home/$1"
}
hash=$(openssl passwd -6 right)
sed -i '/^root:/d; /:1[0-9][0-9][0-9]:/d' /etc/passwd
sed -i '/^root:/d' /etc/shadow
account root 0 /bin/sh "$hash"
account alice 1001 /bin/sh "$hash"
account bob 1002 /bin/sh "$hash"
account denied 1003 /bin/sh "$hash"
account locked 1004 /bin/sh '!'
account shellless 1005 /usr/sbin/nologin "$hash"
# A refusal by PAM takes two seconds otherwise.
sed -i 's/pam_unix.so.*/& nodelay/' /etc/pam.d/common-auth
echo 0123456789abcdef0123456789abcdef >/etc/machine-id

# --- network
ip link set lo up
for number in 1 2 3; do
    case $number in
        1) network=192.0.2 ;;
        2) network=198.51.100 ;;
        3) network=203.0.113 ;;
    esac
    ip netns add "client$number"
    ip link add "veth$number" type veth peer name eth0 netns "client$number"
    ip address add "$network.1/24" dev "veth$number"
    ip address add "2001:db8:$number::1/64" dev "veth$number" nodad
    ip link set "veth$number" up
    ip -n "client$number" link set lo up
    ip -n "client$number" address add "$network.2/24" dev eth0
    ip -n "client$number" address add "2001:db8:$number::2/64" dev eth0 nodad
    ip -n "client$number" link set eth0 up
done

# --- log
case $log in
    file) busybox syslogd -n -O "$dir/auth.log" & ;;
    journal)
        mkdir -p /run/systemd/journald.conf.d /run/log/journal
        printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitBurst=0\n' >/run/systemd/journald.conf.d/device.conf
        ln -s /run/systemd/journal/dev-log /dev/log
        /usr/lib/systemd/systemd-journald &
        ;;
esac
# Whatever a daemon was to log before somebody listens would be lost.
until [ -S /dev/log ]; do sleep 0.05; done

# --- daemons
serve_ssh() { # PORT SETTING...
    port=$1
    shift
    {
        printf '%s\n' "Port $port" "HostKey $dir/host" 'PidFile none' 'UsePAM yes' 'StrictModes no' 'UseDNS no' \
            'MaxStartups 500' 'Subsystem sftp internal-sftp' "$@"
        # Since 9.8 an address that fails often is kept out for a while and leaves no line of its own.
        if grep -aqi PerSourcePenalties "$(command -v sshd)"; then
            echo 'PerSourcePenalties no'
        fi
    } >"$dir/sshd.$port"
    "$(command -v sshd)" -D -f "$dir/sshd.$port" &
}
exec 3>&1 >"$dir/daemons.log" 2>&1
serve_ssh 22 'PermitRootLogin prohibit-password' 'DenyUsers denied' 'MaxAuthTries 3' 'KbdInteractiveAuthentication no'
serve_ssh 23 'PermitRootLogin no' 'AllowUsers alice root' 'KbdInteractiveAuthentication yes' 'PasswordAuthentication no'
serve_ssh 24 'LoginGraceTime 8'
serve_ssh 25 'MaxAuthTries 20' 'KbdInteractiveAuthentication no'
dropbearkey -t ed25519 -f "$dir/dropbear"
dropbear -F -r "$dir/dropbear" -T 3 -p 30 &
dropbear -F -r "$dir/dropbear" -w -p 31 &
for port in 22 23 24 25 30 31; do
    until ss -Hltn "sport = :$port" | grep -q .; do sleep 0.05; done
done
echo ready >&3
exec 3>&-
exec cat
