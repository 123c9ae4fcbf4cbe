# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_edgewarden_global_optspecs
    string join \n v/verbose h/help V/version
end

function __fish_edgewarden_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_edgewarden_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_edgewarden_using_subcommand
    set -l cmd (__fish_edgewarden_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c edgewarden -n "__fish_edgewarden_needs_command" -s v -l verbose -d 'Log more: once for debug, twice for trace'
complete -c edgewarden -n "__fish_edgewarden_needs_command" -s h -l help -d 'Print help'
complete -c edgewarden -n "__fish_edgewarden_needs_command" -s V -l version -d 'Print version'
complete -c edgewarden -n "__fish_edgewarden_needs_command" -f -a "run" -d 'Run the daemon'
complete -c edgewarden -n "__fish_edgewarden_needs_command" -f -a "check" -d 'Print the effective settings, where each came from, and what each collector will use on this machine'
complete -c edgewarden -n "__fish_edgewarden_needs_command" -f -a "collect" -d 'Collect once, without a daemon, and print one JSON object a line'
complete -c edgewarden -n "__fish_edgewarden_needs_command" -f -a "replay" -d 'Print the logins that log files of another machine tell, one JSON object a line, in the order of the files'
complete -c edgewarden -n "__fish_edgewarden_needs_command" -f -a "status" -d 'Print what the running daemon says of itself'
complete -c edgewarden -n "__fish_edgewarden_using_subcommand run" -l config -d 'The configuration; without it /etc/edgewarden/twin.json, or the defaults where that is missing' -r -F
complete -c edgewarden -n "__fish_edgewarden_using_subcommand run" -l user -d 'Become this user, as whom it keeps the capabilities its collectors need; for starts as root without systemd' -r
complete -c edgewarden -n "__fish_edgewarden_using_subcommand run" -s v -l verbose -d 'Log more: once for debug, twice for trace'
complete -c edgewarden -n "__fish_edgewarden_using_subcommand run" -s h -l help -d 'Print help'
complete -c edgewarden -n "__fish_edgewarden_using_subcommand check" -l config -d 'The configuration; without it /etc/edgewarden/twin.json, or the defaults where that is missing' -r -F
complete -c edgewarden -n "__fish_edgewarden_using_subcommand check" -s v -l verbose -d 'Log more: once for debug, twice for trace'
complete -c edgewarden -n "__fish_edgewarden_using_subcommand check" -s h -l help -d 'Print help'
complete -c edgewarden -n "__fish_edgewarden_using_subcommand collect" -l for -d 'How long, such as 10s or 2m; without it until the snapshots are there, or 10s' -r
complete -c edgewarden -n "__fish_edgewarden_using_subcommand collect" -l format -d 'What a line holds' -r -f -a "details\t'The `EventDetails` object of one row'
row\t'One row with the columns of `SecurityIoTRawEvent`'
envelope\t'A message of the published schema'"
complete -c edgewarden -n "__fish_edgewarden_using_subcommand collect" -l config -d 'The configuration; without it /etc/edgewarden/twin.json, or the defaults where that is missing' -r -F
complete -c edgewarden -n "__fish_edgewarden_using_subcommand collect" -s v -l verbose -d 'Log more: once for debug, twice for trace'
complete -c edgewarden -n "__fish_edgewarden_using_subcommand collect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgewarden -n "__fish_edgewarden_using_subcommand replay" -l format -d 'What a line holds' -r -f -a "details\t'The `EventDetails` object of one row'
row\t'One row with the columns of `SecurityIoTRawEvent`'
envelope\t'A message of the published schema'"
complete -c edgewarden -n "__fish_edgewarden_using_subcommand replay" -l passwd -d 'The etc/passwd of that machine; without it accounts are known as far as the logs tell' -r -F
complete -c edgewarden -n "__fish_edgewarden_using_subcommand replay" -l year -d 'The year of the last line of a log without years; without it the file\'s own time tells' -r
complete -c edgewarden -n "__fish_edgewarden_using_subcommand replay" -s v -l verbose -d 'Log more: once for debug, twice for trace'
complete -c edgewarden -n "__fish_edgewarden_using_subcommand replay" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgewarden -n "__fish_edgewarden_using_subcommand status" -l config -d 'The configuration the daemon runs with; it names the state directory' -r -F
complete -c edgewarden -n "__fish_edgewarden_using_subcommand status" -l json -d 'One JSON object instead of words'
complete -c edgewarden -n "__fish_edgewarden_using_subcommand status" -s v -l verbose -d 'Log more: once for debug, twice for trace'
complete -c edgewarden -n "__fish_edgewarden_using_subcommand status" -s h -l help -d 'Print help'
