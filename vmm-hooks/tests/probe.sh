#!/bin/sh
# What the tests ask a guest on probation. It runs in the guest's directory: its console is the socket `con` there.
say() { perl -MIO::Socket::UNIX -e '
  $s = IO::Socket::UNIX->new(Peer => "con") or die; print $s "$ARGV[0]\n"; $s->flush;
  $SIG{ALRM} = sub { die "no $ARGV[1]" }; alarm 50;
  while (sysread($s, $b, 4096)) { $a .= $b; exit 0 if $a =~ /$ARGV[1]/ } exit 1' "$1" "$2"; }
case $1 in
console) say 'echo I am $((40 + 2))' 'I am 42' ;;
ill) echo "$FORM_INSTANCE is ill: $FORM_COMMAND"; exit 3 ;;
slow) echo waits; exec sleep 60 ;;
restart) perl -e 'use IO::Socket::UNIX; $s = IO::Socket::UNIX->new(Peer => "con") or die; print $s "echo b > /proc/sysrq-trigger\n"; $s->flush; sleep 3' ;;
esac
