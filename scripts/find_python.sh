#!/bin/sh
# Print the path of the first interpreter named (python3.13, or a path) that is installed and supported.
# pyenv puts every version's name on the PATH but runs only those that are switched on: its folders are tried too.
for name in "$@"; do
    for candidate in "$name" "$(pyenv prefix "${name#python}" 2>/dev/null)/bin/$name"; do
        "$candidate" -c '
import sys
supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
print(sys.executable) if supported else sys.exit(1)' 2>/dev/null && exit
    done
done
