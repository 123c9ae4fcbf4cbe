# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_edgewarden_hub_global_optspecs
    string join \n h/help V/version
end

function __fish_edgewarden_hub_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_edgewarden_hub_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_edgewarden_hub_using_subcommand
    set -l cmd (__fish_edgewarden_hub_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c edgewarden-hub -n "__fish_edgewarden_hub_needs_command" -s h -l help -d 'Print help'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_needs_command" -s V -l version -d 'Print version'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_needs_command" -f -a "serve" -d 'Take messages over MQTT and store them; acknowledged is what is on disk'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_needs_command" -f -a "device" -d 'Say which devices may log in with a password'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_needs_command" -f -a "devices" -d 'Print the devices that have reported: since and until when, how much, and what is missing of it'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_needs_command" -f -a "rows" -d 'Print stored rows, oldest first'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_needs_command" -f -a "query" -d 'Ask the store in the Kusto Query Language; docs/kql.md lists what is there of it'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_needs_command" -f -a "investigate" -d 'Say what there is to know about a device, findings first'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_needs_command" -f -a "import" -d 'Store events from files, and raise their alerts: for a machine without a network'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_needs_command" -f -a "demo" -d 'Show hub and agent at work on this machine: real activity, and the rows it leads to. Needs no root'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l hub -d 'Name of this hub; queries find it in AssociatedResourceId' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l listen -d 'Address and port; port 0 takes a free one' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l state -d 'Directory of the store [default: $STATE_DIRECTORY, else /var/lib/edgewarden-hub]' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l db -d 'The store\'s SQLite file itself, instead of events.db in that directory' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l tls-cert -d 'PEM file of the certificate chain, for TLS instead of plain TCP' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l tls-key -d 'PEM file of the certificate\'s private key' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l client-ca -d 'PEM file of the authorities that vouch for devices: a certificate\'s common name is the device id' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l client-crl -d 'PEM file of the certificates these authorities have taken back' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l devices -d 'Devices that log in with a password, as `device add` writes them; read again when it changes' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l max-connections -d 'How many devices may be connected at once' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l topic -d 'Topic the devices publish to; {deviceId} is one level of it' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l keep-days -d 'Rows stay this many days after they came; 0 is for ever' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -l keep-bytes -d 'The oldest rows leave when the store holds more bytes, at least 64 MiB; 0 is without limit' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand serve" -s h -l help -d 'Print help'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and not __fish_seen_subcommand_from add remove list help" -s h -l help -d 'Print help'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and not __fish_seen_subcommand_from add remove list help" -f -a "add" -d 'Add a device and print its password, this once'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and not __fish_seen_subcommand_from add remove list help" -f -a "remove" -d 'Remove a device: its next message is not taken'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and not __fish_seen_subcommand_from add remove list help" -f -a "list" -d 'Print the devices'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and not __fish_seen_subcommand_from add remove list help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and __fish_seen_subcommand_from add" -l devices -d 'The file that `serve --devices` reads' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and __fish_seen_subcommand_from remove" -l devices -d 'The file that `serve --devices` reads' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and __fish_seen_subcommand_from list" -l devices -d 'The file that `serve --devices` reads' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add a device and print its password, this once'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Remove a device: its next message is not taken'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and __fish_seen_subcommand_from help" -f -a "list" -d 'Print the devices'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand device; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand devices" -l state -d 'Directory of the store [default: $STATE_DIRECTORY, else /var/lib/edgewarden-hub]' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand devices" -l db -d 'The store\'s SQLite file itself, instead of events.db in that directory' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand devices" -l hub -d 'Only devices that last spoke to this hub or, when they never did, whose newest row names it' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand devices" -l json -d 'One JSON object a line instead of a table'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand devices" -s h -l help -d 'Print help'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand rows" -l state -d 'Directory of the store [default: $STATE_DIRECTORY, else /var/lib/edgewarden-hub]' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand rows" -l db -d 'The store\'s SQLite file itself, instead of events.db in that directory' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand rows" -l table -d 'Which table' -r -f -a "SecurityIoTRawEvent\t'Events of devices'
SecurityAlert\t'What was made of them'"
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand rows" -l device -d 'Only rows of this device' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand rows" -l name -d 'Only rows of this kind, for example Login' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand rows" -l json -d 'One JSON object a line instead of text'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand rows" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand query" -l state -d 'Directory of the store [default: $STATE_DIRECTORY, else /var/lib/edgewarden-hub]' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand query" -l db -d 'The store\'s SQLite file itself, instead of events.db in that directory' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand query" -l format -d 'How the rows are written' -r -f -a "table\t'Columns under their names, for people'
csv\t'RFC 4180, a header first'
json\t'One array of objects'"
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand query" -l max-memory -d 'MiB of rows that are kept for sorting and grouping; a query that needs more ends with a sentence' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand query" -l max-seconds -d 'Seconds after which a query ends with a sentence' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand query" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand investigate" -l hub -d 'Only rows of hubs with this in their name' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand investigate" -l since -d 'How long before the device\'s last event to begin; what came first in this time is new' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand investigate" -l state -d 'Directory of the store [default: $STATE_DIRECTORY, else /var/lib/edgewarden-hub]' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand investigate" -l db -d 'The store\'s SQLite file itself, instead of events.db in that directory' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand investigate" -l format -d 'How the report is written' -r -f -a "text\t'For people'
json\t'One object'"
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand investigate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand import" -l state -d 'Directory of the store [default: $STATE_DIRECTORY, else /var/lib/edgewarden-hub]' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand import" -l db -d 'The store\'s SQLite file itself, instead of events.db in that directory' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand import" -l table -d 'Which table the lines belong to' -r -f -a "SecurityIoTRawEvent\t'Events of devices'
SecurityAlert\t'What was made of them'"
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand import" -l hub -d 'Name of the hub, for lines without AssociatedResourceId or ResourceId' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand import" -l device -d 'Device of lines that name none: messages, and EventDetails objects' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand import" -l name -d 'Kind of EventDetails objects, which do not say it, for example Login' -r
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand demo" -l agent -d 'The agent\'s program [default: edgewarden beside this one]' -r -F
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand demo" -l keep -d 'Leave the temporary directory with the store and the logs'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand demo" -s h -l help -d 'Print help'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and not __fish_seen_subcommand_from serve device devices rows query investigate import demo help" -f -a "serve" -d 'Take messages over MQTT and store them; acknowledged is what is on disk'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and not __fish_seen_subcommand_from serve device devices rows query investigate import demo help" -f -a "device" -d 'Say which devices may log in with a password'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and not __fish_seen_subcommand_from serve device devices rows query investigate import demo help" -f -a "devices" -d 'Print the devices that have reported: since and until when, how much, and what is missing of it'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and not __fish_seen_subcommand_from serve device devices rows query investigate import demo help" -f -a "rows" -d 'Print stored rows, oldest first'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and not __fish_seen_subcommand_from serve device devices rows query investigate import demo help" -f -a "query" -d 'Ask the store in the Kusto Query Language; docs/kql.md lists what is there of it'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and not __fish_seen_subcommand_from serve device devices rows query investigate import demo help" -f -a "investigate" -d 'Say what there is to know about a device, findings first'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and not __fish_seen_subcommand_from serve device devices rows query investigate import demo help" -f -a "import" -d 'Store events from files, and raise their alerts: for a machine without a network'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and not __fish_seen_subcommand_from serve device devices rows query investigate import demo help" -f -a "demo" -d 'Show hub and agent at work on this machine: real activity, and the rows it leads to. Needs no root'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and not __fish_seen_subcommand_from serve device devices rows query investigate import demo help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and __fish_seen_subcommand_from device" -f -a "add" -d 'Add a device and print its password, this once'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and __fish_seen_subcommand_from device" -f -a "remove" -d 'Remove a device: its next message is not taken'
complete -c edgewarden-hub -n "__fish_edgewarden_hub_using_subcommand help; and __fish_seen_subcommand_from device" -f -a "list" -d 'Print the devices'
