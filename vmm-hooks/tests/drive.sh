#!/bin/sh
top=$(dirname "$0")/..
echo "$1 $FORM_INSTANCE $(basename "$FORM_DIR") $(basename "$PWD")" >> "$top/calls"
rm "$top/hang-$1" 2> /dev/null && sleep 1000
rm "$top/slow-$1" 2> /dev/null && { sleep 1; echo "$1-ended" >> "$top/calls"; }
rm "$top/fail-$1" 2> /dev/null && { echo "no $1 today" >&2; exit 3; }
exit 0
