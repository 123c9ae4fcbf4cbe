# What a process and its descendants take; to be sourced.

# The process and all its descendants.
family() {
    local child
    echo "$1"
    for child in $(cat "/proc/$1/task/"*/children 2>/dev/null); do family "$child"; done
}
# Ticks of all of them; the command name in field 2 may hold spaces, so counting starts behind its parenthesis.
ticks() {
    local p
    for p in $(family "$1"); do sed 's/.*) //' "/proc/$p/stat"; done | awk '{ sum += $12 + $13 + $14 + $15 } END { print sum + 0 }'
}
pss_kb() {
    local p
    for p in $(family "$1"); do cat "/proc/$p/smaps_rollup"; done | awk '/^Pss:/ { sum += $2 } END { print sum + 0 }'
}
