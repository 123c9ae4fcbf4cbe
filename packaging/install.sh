#!/bin/sh
# Installs Edgewarden where there is no dpkg: Yocto, Buildroot, Alpine and the like.
#
#   ./install.sh                   installs, or replaces an older version; configuration and events stay
#   ./install.sh --root DIR        into an image that is being built, as root or under fakeroot
#   ./install.sh remove            takes the program away; configuration and events stay
#   ./install.sh purge             takes everything away
#
# An installed agent has its copy in /usr/lib/edgewarden/install.sh. Needs a shell and the usual small tools of busybox.
set -eu

files=$(cd "$(dirname "$0")" && pwd)/files
root=
what=install
while [ $# -gt 0 ]; do
    case "$1" in
        --root)
            root=${2:?--root needs the directory of the image}
            root=${root%/}
            shift
            ;;
        install | remove | purge) what=$1 ;;
        *)
            sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
            exit 2
            ;;
    esac
    shift
done

# The three ways a system starts services.
init() {
    if [ -d "$root/run/systemd/system" ] || [ -e "$root/lib/systemd/systemd" ] || [ -e "$root/usr/lib/systemd/systemd" ]; then
        echo systemd
    elif [ -x "$root/sbin/openrc-run" ] || [ -x "$root/usr/sbin/openrc-run" ]; then
        echo openrc
    else
        echo sysv
    fi
}

# Usrmerge or not, systemd looks here.
unit() { echo "$root/usr/lib/systemd/system/edgewarden.service"; }

# put MODE SOURCE TARGET: replaced by renaming, so that a running program is not written into.
put() {
    mkdir -p "$(dirname "$3")"
    cp "$2" "$3.new"
    chmod "$1" "$3.new"
    mv "$3.new" "$3"
}

# By hand, because what makes a user has another name and other options on each of these systems, and busybox often
# comes without.
make_user() {
    group=$(sed -n 's/^edgewarden:[^:]*:[0-9]*:\([0-9]*\):.*/\1/p' "$root/etc/passwd")
    [ -z "$group" ] || return 0
    number=999
    while grep -qE "^[^:]*:[^:]*:$number:" "$root/etc/passwd" "$root/etc/group"; do number=$((number - 1)); done
    echo "edgewarden:x:$number:" >>"$root/etc/group"
    [ ! -e "$root/etc/shadow" ] || echo "edgewarden:!:::::::" >>"$root/etc/shadow"
    echo "edgewarden:x:$number:$number:Edgewarden security agent:/nonexistent:/sbin/nologin" >>"$root/etc/passwd"
    group=$number
}

forget_user() {
    for file in /etc/passwd /etc/group /etc/shadow; do
        [ ! -e "$file" ] || sed -i '/^edgewarden:/d' "$file"
    done
}

running() {
    case "$(init)" in
        systemd) systemctl is-active --quiet edgewarden ;;
        *) [ -x /etc/init.d/edgewarden ] && /etc/init.d/edgewarden status >/dev/null 2>&1 ;;
    esac
}

service() {
    case "$(init)" in
        systemd) systemctl "$1" edgewarden ;;
        *) /etc/init.d/edgewarden "$1" ;;
    esac
}

install_files() {
    put 755 "$files/edgewarden" "$root/usr/bin/edgewarden"
    put 755 "$files/../install.sh" "$root/usr/lib/edgewarden/install.sh"
    for page in edgewarden.8 edgewarden-twin.5; do
        put 644 "$files/$page" "$root/usr/share/man/man${page##*.}/$page"
    done
    for document in "$files"/doc/*; do
        put 644 "$document" "$root/usr/share/doc/edgewarden/${document##*/}"
    done
    case "$(init)" in
        systemd)
            put 644 "$files/edgewarden.service" "$(unit)"
            put 644 "$files/edgewarden-tight.conf" "$root/usr/share/edgewarden/edgewarden-tight.conf"
            ;;
        openrc) put 755 "$files/edgewarden.openrc" "$root/etc/init.d/edgewarden" ;;
        sysv) put 755 "$files/edgewarden.sysv" "$root/etc/init.d/edgewarden" ;;
    esac
    make_user
    mkdir -p "$root/etc/edgewarden"
    chown "0:$group" "$root/etc/edgewarden"
    chmod 0750 "$root/etc/edgewarden"
    # What is there is the administrator's.
    [ -e "$root/etc/edgewarden/twin.json" ] || put 644 "$files/twin.json" "$root/etc/edgewarden/twin.json"
}

install_here() {
    [ "$(id -u)" = 0 ] || { echo "only root can install" >&2; exit 1; }
    "$files/edgewarden" --version >/dev/null || { echo "this archive is for another kind of processor" >&2; exit 1; }
    restart=
    ! running || restart=1
    install_files
    [ "$(init)" != systemd ] || systemctl daemon-reload
    if [ -n "$restart" ]; then
        # What the old one holds is synced to disk and sent by the new one.
        service restart
        return
    fi
    case "$(init)" in
        systemd) enable="systemctl enable --now edgewarden" ;;
        openrc) enable="rc-update add edgewarden && rc-service edgewarden start" ;;
        *) enable="ln -s edgewarden /etc/init.d/S80edgewarden && /etc/init.d/edgewarden start" ;;
    esac
    echo "edgewarden is installed and not running: it has to know its hub. Set deviceId and connection in"
    echo "/etc/edgewarden/twin.json, look at 'edgewarden check', then: $enable"
}

remove() {
    [ "$(id -u)" = 0 ] || { echo "only root can remove" >&2; exit 1; }
    ! running || service stop
    case "$(init)" in
        systemd) systemctl disable --quiet edgewarden 2>/dev/null || true ;;
        openrc) rc-update --quiet del edgewarden 2>/dev/null || true ;;
    esac
    rm -f /usr/bin/edgewarden /etc/init.d/edgewarden /etc/init.d/S80edgewarden "$(unit)" \
        /usr/share/man/man8/edgewarden.8 /usr/share/man/man5/edgewarden-twin.5
    rm -rf /usr/lib/edgewarden /usr/share/edgewarden /usr/share/doc/edgewarden
    [ "$(init)" != systemd ] || systemctl daemon-reload
}

purge() {
    remove
    rm -rf /etc/edgewarden /var/lib/edgewarden /etc/systemd/system/edgewarden.service.d
    rm -f /etc/default/edgewarden /etc/conf.d/edgewarden /var/run/edgewarden.pid
    forget_user
}

# Both stop services and forget a user, which an image has not: taking away there is not making the image.
if [ -n "$root" ] && [ "$what" != install ]; then
    echo "$what works on the running system only; of an image that is being built, make a new one without edgewarden" >&2
    exit 2
fi
case "$what" in
    install)
        if [ -n "$root" ]; then
            install_files
        else
            install_here
        fi
        ;;
    remove) remove ;;
    purge) purge ;;
esac
