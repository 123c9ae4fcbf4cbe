# What a process and its descendants take; to be sourced. Nothing here executes a program: that would be an event, and
# work, for the very agent that is looked at.

# The process and all its descendants.
family() {
    local task child children
    echo "$1"
    for task in "/proc/$1/task/"*; do
        children=''
        # The file ends without a newline, which `read` calls a failure.
        { read -r children <"$task/children"; } 2>/dev/null || true
        for child in $children; do family "$child"; done
    done
}
# Ticks of all of them, and of their children that ended and were waited for; the command name in field 2 may hold
# spaces, so counting starts behind its parenthesis.
ticks() {
    local p line fields sum=0
    for p in $(family "$1"); do
        read -r line <"/proc/$p/stat"
        read -ra fields <<<"${line##*) }"
        sum=$((sum + fields[11] + fields[12] + fields[13] + fields[14]))
    done
    echo "$sum"
}
# The sum of a number in a file of all their threads: threads PID FILE KEY, or of the first number where there is no key.
threads() {
    local p task key value sum=0
    for p in $(family "$1"); do
        for task in "/proc/$p/task/"*; do
            while read -r key value; do
                if [[ -z "${3:-}" ]]; then
                    sum=$((sum + key))
                elif [[ "$key" = "$3" ]]; then
                    sum=$((sum + value))
                fi
            done <"$task/$2"
        done
    done
    echo "$sum"
}
# How often any of their threads went to sleep, which is how often it was woken.
wakeups() { threads "$1" status voluntary_ctxt_switches:; }
# Nanoseconds on a processor, of threads that live.
cpu_ns() { threads "$1" schedstat; }
pss_kb() {
    local p key value sum=0
    for p in $(family "$1"); do
        while read -r key value _; do
            if [[ "$key" = Pss: ]]; then sum=$((sum + value)); fi
        done <"/proc/$p/smaps_rollup"
    done
    echo "$sum"
}

# What a measurement has to keep, and what of it does not hold.
broken=()
# limit WHAT VALUE at-most|at-least LIMIT
limit() {
    local holds=">"
    [[ "$3" = at-most ]] || holds="<"
    awk "BEGIN { exit !($2 $holds $4) }" || return 0
    broken+=("$1: $2, and the limit is ${3/-/ } $4")
}
# Fails, and says of what, if something does not hold.
report_limits() {
    local line
    ((${#broken[@]})) || { echo "limits    all hold"; return 0; }
    for line in "${broken[@]}"; do echo "limits    $line" >&2; done
    return 1
}
