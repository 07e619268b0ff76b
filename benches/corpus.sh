#!/bin/bash
# corpus.sh DIR -- images of a real guest as they look between two commits, for `make bench-compare`; cached in DIR:
#
#   D0  2 GiB ext4: a Debian 12 root, a table of 256 MiB, a log, an archive of 100 MB
#   D1  some configuration edited            D5  20,000 small files written
#   D2  packages installed                   D6  nothing changed
#   D3  1 % of the table's rows, in place    D7  data deleted and trimmed: blocks become holes
#   D4  data moved: the archive shifted by an insert at its front, a directory copied elsewhere
#   M0  512 MiB memory of a guest that has booted D0
#   M1  the same guest 30 s later            M3  that memory freed again
#   M2  after some work
#
# Run it as root (loop mounts, chroot). It needs the guest of tests/guest/make.sh (its kernel and initrd; $CORPUS_GUEST,
# default target/guest) and the Debian packages debootstrap, e2fsprogs, qemu-system-x86 and util-linux. All mounts are in a
# mount namespace of its own. A stamp makes the second run a no-op; an image appears whole or not at all.
#
# Repeatable: seeds, UUIDs and file system options are fixed. Package versions, times and the guest's clock are not, so
# sizes repeat to about a percent and bytes do not.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
umask 022

SUITE=bookworm
IMAGES="D0 D1 D2 D3 D4 D5 D6 D7 M0 M1 M2 M3"

fail() { echo "corpus.sh: $*" >&2; exit 1; }
say() { echo "corpus: [$SECONDS s] $*" >&2; }
allocated() { say "$1: $(du -m "$work/$1.raw" | cut -f1) MiB allocated"; }

# Debian's own archive as this host's apt knows it.
mirror() {
  local site
  # shellcheck disable=SC2016
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -E '/debian/?$' | head -n 1) || :
  [ -n "$site" ] || fail "apt has no Debian mirror with lists; run: apt-get update"
  printf '%s\n' "${site%/}"
}

# enter IMAGE: its file system at $root, ready for chroot. leave: everything written, as after a clean shutdown.
enter() {
  mount -o loop,noatime,discard "$work/$1.raw" "$root"
  mount -t proc proc "$root/proc"
  mount --bind /dev "$root/dev"
}
leave() { umount "$root/dev" "$root/proc" "$root"; }

base() {
  local site http_proxy=${http_proxy:-}
  site=$(mirror)
  eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
  export http_proxy
  [ -n "$http_proxy" ] || unset http_proxy
  truncate -s 2G "$work/D0.raw"
  mkfs.ext4 -qF -L root -U 8d7e0000-0000-4000-8000-000000000001 \
    -E hash_seed=8d7e0000-0000-4000-8000-000000000002,lazy_itable_init=0,lazy_journal_init=0 "$work/D0.raw"
  mount -o loop,noatime,discard "$work/D0.raw" "$root"
  debootstrap --variant=minbase "$SUITE" "$root" "$site" > "$work/debootstrap.log" 2>&1 ||
    { tail -n 20 "$work/debootstrap.log" >&2; fail "debootstrap failed"; }
  umount "$root"
  enter D0
  printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"     # installed services do not start here
  chmod 755 "$root/usr/sbin/policy-rc.d"
  cp -L /etc/resolv.conf "$root/etc/resolv.conf"
  chroot "$root" apt-get -q update > "$work/apt.log" 2>&1 || { tail "$work/apt.log" >&2; fail "apt-get update failed in the guest"; }
  table "$root/srv/table.db"
  log "$root/var/log/app.log"
  # An archive like any other; tar is cut off in the middle, so its status is not asked.
  { tar -C "$root" --sort=name --mtime=@0 --owner=0 --group=0 -cf - usr 2> /dev/null || :; } | head -c 100000000 > "$root/srv/archive.tar"
  leave
  allocated D0
}

# Pages of 4 KiB like a database's: a header, rows of text, and a part that does not compress.
table() {
  perl -e '
    srand 1;
    open my $out, ">:raw", $ARGV[0] or die $!;
    for my $page (0 .. 65535) {
      my $bytes = sprintf "PAGE%012d", $page;
      for (my $row = $page * 48; length $bytes < 2600; $row++) {
        $bytes .= sprintf "%d\tcustomer-%05d\t%s\t2026-%02d-%02d\t%d.%02d\n", $row, rand 99999,
          (qw(open paid shipped returned))[rand 4], 1 + rand 12, 1 + rand 28, rand 900, rand 100;
      }
      $bytes .= pack "N*", map { rand 2 ** 32 } 1 .. 375;
      print $out substr($bytes, 0, 4096) or die $!;
    }
    close $out or die $!;' "$1"
}

log() {
  perl -e '
    srand 2;
    open my $out, ">", $ARGV[0] or die $!;
    for my $line (0 .. 149999) {
      printf $out "2026-01-%02d %02d:%02d:%02d web[%d]: %s /item/%d %d %dms client=%08x\n", 1 + $line / 5000, $line / 208 % 24,
        $line / 4 % 60, $line % 60, 700 + rand 40, (qw(GET GET GET POST PUT))[rand 5], rand 20000,
        (200, 200, 200, 304, 404, 500)[rand 6], rand 900, rand 2 ** 32;
    }
    close $out or die $!;' "$1"
}

D1() {
  local number
  echo web1 > "$root/etc/hostname"
  echo '127.0.1.1 web1' >> "$root/etc/hosts"
  mkdir -p "$root/etc/shop"
  for number in 1 2 3 4 5; do
    printf '[listen]\naddress = 127.0.0.1\nport = 900%d\n\n[pool]\nworkers = 4\nlog = warn\n' "$number" > "$root/etc/shop/worker$number.conf"
  done
  sed -i 's/^# *\(export LS_OPTIONS\)/\1/' "$root/root/.bashrc"
}

D2() {
  chroot "$root" apt-get -qy install --no-install-recommends nginx-light python3 > "$work/apt.log" 2>&1 ||
    { tail "$work/apt.log" >&2; fail "installing packages in the guest failed"; }
}

D3() {
  perl -e '
    srand 3;
    open my $file, "+<:raw", $ARGV[0] or die $!;
    my %pages;
    $pages{int rand 65536} = 1 while keys %pages < 655;
    for my $page (sort { $a <=> $b } keys %pages) {
      sysseek $file, $page * 4096, 0 or die $!;
      sysread $file, my $bytes, 4096;
      for (1 .. 5) {
        my $row = sprintf "%d\tcustomer-%05d\tpaid\t2026-11-%02d\t%d.%02d\n", rand 3145728, rand 99999, 1 + rand 28, rand 900, rand 100;
        substr($bytes, 16 + rand 2500, length $row) = $row;
        my $blob = pack "C*", map { rand 256 } 1 .. 64;
        substr($bytes, 2700 + rand 1300, 64) = $blob;
      }
      sysseek $file, $page * 4096, 0 or die $!;
      syswrite($file, $bytes) == 4096 or die $!;
    }
    close $file or die $!;' "$root/srv/table.db"
}

D4() {
  { head -c 1234 "$root/var/log/app.log"; cat "$root/srv/archive.tar"; } > "$root/srv/archive.new"
  mv "$root/srv/archive.new" "$root/srv/archive.tar"
  cp -a "$root/usr/share" "$root/srv/share"
}

D5() {
  mkdir "$root/srv/items"
  perl -e '
    srand 5;
    my @words = map { chomp; $_ } <STDIN>;
    for my $number (0 .. 19999) {
      my $dir = sprintf "%s/%02x", $ARGV[0], $number % 200;
      $number < 200 and (mkdir $dir or die "$dir: $!");
      open my $out, ">", sprintf("%s/%06d.json", $dir, $number) or die $!;
      printf $out "{\"id\": %d, \"key\": \"%08x%08x\", \"words\": [", $number, rand 2 ** 32, rand 2 ** 32;
      print $out join(", ", map { "\"$words[rand @words]\"" } 1 .. 2 + rand 150), "]}\n";
      close $out or die $!;
    }' "$root/srv/items" < <(grep -ohE '[[:alpha:]]{3,12}' "$root"/usr/share/common-licenses/* | sort -u)
}

D6() { :; }

D7() {
  rm -rf "$root/srv/archive.tar" "$root/usr/share/doc" "$root/usr/share/locale" "$root/usr/share/perl"
  truncate -s 100M "$root/srv/table.db"
  sync -f "$root"
  fstrim "$root"
}

disk() {                                        # $1: image; its function changes what it inherits from the base
  cp --sparse=always --reflink=never "$work/D0.raw" "$work/$1.raw"
  if [ "$1" != D6 ]; then                       # a mount alone changes the superblock
    enter "$1"
    "$1"
    leave
  fi
  allocated "$1"
}

# The guest's memory is a file in /dev/shm; QEMU's monitor is on a coprocess, the guest's console on two named pipes.
memory() {
  local ram line
  ram=$(mktemp /dev/shm/corpus.XXXXXX)
  trap 'kill "${VM_PID:-}" 2> /dev/null || :; rm -f "$ram"' EXIT
  mkfifo "$work/console.in" "$work/console.out"
  exec 5<> "$work/console.in" 6<> "$work/console.out"
  coproc VM {
    exec qemu-system-x86_64 -no-user-config -nodefaults -display none -monitor stdio -no-reboot \
      -machine q35,accel=tcg,memory-backend=ram0 -cpu max -smp 1 -m 512M \
      -object "memory-backend-file,id=ram0,size=512M,mem-path=$ram,share=on" \
      -kernel "$guest/vmlinuz" -initrd "$guest/initrd.gz" \
      -append 'console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check random.trust_cpu=on init_on_free=1' \
      -drive "file=$work/D0.raw,format=raw,if=virtio,snapshot=on" \
      -chardev "pipe,id=console,path=$work/console" -serial chardev:console 2> "$work/qemu.log"
  }
  until_line READY
  run true
  sleep 3
  snapshot M0
  sleep 30
  snapshot M1
  # shellcheck disable=SC2016
  run 'head -c 64M /dev/urandom > /tmp/random; dpkg-query -W > /tmp/packages; seq 1 300000 | sort -r > /tmp/sorted;
       gzip -k /tmp/sorted; find /usr -type f | head -n 800 | xargs cat | md5sum; head -c 60M /srv/table.db | md5sum'
  snapshot M2
  run 'rm -rf /tmp/*; sync; echo 3 > /proc/sys/vm/drop_caches'
  sleep 1
  snapshot M3
  echo quit >&"${VM[1]}"
  wait "$VM_PID" || :
  exec 5>&- 6>&-
  rm -f "$ram"
  trap - EXIT
}

until_line() {                                  # $1: a line that the guest prints
  while IFS= read -r -t 300 line <&6; do
    [ "${line%$'\r'}" != "$1" ] || return 0
  done
  cat "$work/qemu.log" >&2
  fail "the guest did not print $1"
}
run() { printf "%s; echo DO''NE\n" "$1" >&5; until_line DONE; }

snapshot() {                                    # the guest stands still while its memory is copied
  printf 'stop\ninfo status\n' >&"${VM[1]}"
  while IFS= read -r -t 60 line <&"${VM[0]}"; do
    case $line in *paused*) break ;; esac
  done
  cp --sparse=always "$ram" "$work/$1.raw"
  chmod 644 "$work/$1.raw"
  echo cont >&"${VM[1]}"
  allocated "$1"
}

make() {                                        # $1: what goes into the stamp
  local image
  rm -rf "$dir"/.work.*                         # what a killed run left; the lock is ours
  work=$(mktemp -d "$dir/.work.XXXXXX")
  root=$work/root
  mkdir "$root"
  base
  for image in D1 D2 D3 D4 D5 D6 D7; do disk "$image"; done
  memory
  rm -f "$dir/stamp"
  for image in $IMAGES; do mv "$work/$image.raw" "$dir/$image.raw"; done
  sync -f "$dir"
  echo "$1" > "$dir/stamp"                      # last: with it the rest is whole
  rm -rf "$work"
  say "done: $(du -cm "$dir"/*.raw | tail -n 1 | cut -f1) MiB"
}

[ $# = 1 ] || fail "usage: corpus.sh DIR"
self=$(realpath "$0")
dir=$(realpath -m "$1")
repository=$(dirname "$(dirname "$self")")
guest=$(realpath -m "${CORPUS_GUEST:-$repository/target/guest}")
stamp=$(sha256sum < "$self")
whole() {
  local image
  [ "$(cat "$dir/stamp" 2> /dev/null)" = "$stamp" ] || return 1
  for image in $IMAGES; do [ -s "$dir/$image.raw" ] || return 1; done
}

! whole || exit 0
if [ -z "${CORPUS_NAMESPACE:-}" ]; then
  [ "$(id -u)" = 0 ] || fail "run it as root (it mounts and uses chroot)"
  for pair in debootstrap:debootstrap mkfs.ext4:e2fsprogs qemu-system-x86_64:qemu-system-x86 unshare:util-linux; do
    command -v "${pair%%:*}" > /dev/null || fail "missing on this host; install with: apt-get install ${pair##*:}"
  done
  "$repository/tests/guest/make.sh" "$guest"
  mkdir -p "$dir"
  CORPUS_NAMESPACE=1 CORPUS_GUEST=$guest exec flock "$dir/.lock" unshare --mount --propagation private "$self" "$dir"
fi
whole || make "$stamp"
