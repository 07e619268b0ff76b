#!/bin/bash
# make.sh DIR -- makes the guest that tests and the demo run, and caches it in DIR:
#
#   vmlinuz    kernel of Debian's linux-image-cloud-amd64, unpacked from its package (never installed on the host)
#   initrd.gz  busybox and the virtio modules; mounts /dev/vda and hands over to a shell
#   root.raw   2 GiB ext4, sparse: a Debian bookworm minbase root, about 230 MiB of data
#
# Run it as root: debootstrap needs chroot and mknod. It needs the Debian packages that `missing` below names, and an
# apt whose lists are fresh (`apt-get update`). It fetches through the mirror and proxy that the host's apt uses; the
# image names neither them nor this machine.
#
# It may be run again, and by several at once: a lock makes them take turns, a stamp makes the second one a no-op, and
# each file appears whole or not at all. All mounts happen in a mount namespace of its own, so none can be left behind.
#
# The guest, once booted with `console=ttyS0`, prints READY on the serial console and then reads commands there: bash as
# PID 1 with no echo and an empty prompt, so that what comes back is what the command printed. eth0 is up, without an
# address: `cat /sys/class/net/eth0/carrier` tells the link. /tmp is a tmpfs. Leaving the shell restarts the machine.
# Kernel arguments that go with it: console=ttyS0 quiet panic=-1 tsc=reliable no_timer_check random.trust_cpu=on
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
umask 022

fail() { echo "make.sh: $*" >&2; exit 1; }
say() { echo "guest: $*" >&2; }

missing() {
  local need pair
  for pair in busybox:busybox-static cpio:cpio mkfs.ext4:e2fsprogs e2fsck:e2fsprogs debootstrap:debootstrap \
              dpkg:dpkg unshare:util-linux flock:util-linux gzip:gzip; do
    command -v "${pair%%:*}" > /dev/null || need+=" ${pair##*:}"
  done
  [ -z "${need:-}" ] || fail "missing on this host; install with: apt-get install$need"
  # The initramfs has no libraries.
  ! ldd "$(command -v busybox)" > /dev/null 2>&1 || fail "busybox is not static; install with: apt-get install busybox-static"
}

# The site, with /debian, from which this host's apt gets Debian's own packages (not the security or backports ones).
mirror() {
  local site
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -E '/debian/?$' | head -n 1) || :
  [ -n "$site" ] || fail "apt has no Debian mirror with lists; check /etc/apt/sources.list and run: apt-get update"
  printf '%s\n' "${site%/}"
}

kernel() {                                      # $1: work directory; leaves vmlinuz and the unpacked modules there
  local package
  mkdir "$1/deb"
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
  [ -n "$package" ] || fail "apt knows no linux-image-cloud-amd64; run: apt-get update"
  say "kernel: $package"
  (cd "$1/deb" && apt-get download -qq -o APT::Sandbox::User=root "$package") || fail "cannot download $package; run: apt-get update"
  dpkg -x "$1"/deb/linux-image-*.deb "$1/kernel"
  cp "$1"/kernel/boot/vmlinuz-* "$1/vmlinuz"
}

initrd() {                                      # $1: work directory with the unpacked kernel
  local tree=$1/initrd module file
  mkdir -p "$tree"/{bin,dev,proc,sys,root,modules}
  cp "$(command -v busybox)" "$tree/bin/busybox"
  # In the order in which they depend on each other; ext4 is built in.
  for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover \
                virtio_net virtio_console virtio-rng; do
    file=$(find "$1/kernel/lib/modules" -name "$module.ko*" | head -n 1)
    if [ -z "$file" ]; then                     # built in, in another kernel
      grep -q "/$module\.ko" "$1"/kernel/lib/modules/*/modules.builtin || fail "the kernel has no module $module"
      continue
    fi
    case $file in
      *.xz) xz -dc "$file" > "$tree/modules/$module.ko" ;;
      *) cp "$file" "$tree/modules/$module.ko" ;;
    esac
    echo "insmod /modules/$module.ko" >> "$tree/modules/load"
  done
  cat > "$tree/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs none /dev; mount -t proc none /proc; mount -t sysfs none /sys
. /modules/load
until [ -b /dev/vda ]; do sleep 0.1; done
mount -t ext4 -o noatime /dev/vda /root || exec sh
# Little happens in the guest by itself, so that what changes between two captures is what somebody changed.
echo 60 > /proc/sys/vm/stat_interval
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
ip link set lo up; ip link set eth0 up
mount -t tmpfs -o mode=1777 none /root/tmp
for d in dev proc sys; do mount --move /$d /root/$d; done
# PID 1 takes the terminal as its own: job control and ^C work. Opened here, for the new root's shell has no other.
exec switch_root /root /usr/bin/setsid -c /bin/bash --norc --noprofile -c '
  stty sane -echo
  cd /root
  export HOME=/root TERM=dumb PS1= PS2= PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  echo READY
  exec /bin/bash --norc --noprofile --noediting -i' < /root/dev/ttyS0 > /root/dev/ttyS0 2>&1
INIT
  chmod 755 "$tree/init"
  (cd "$tree" && find . -print0 | sort -z | cpio --null --quiet -o -H newc -R 0:0) | gzip -n -9 > "$1/initrd.gz"
}

root() {                                        # $1: work directory
  local tree=$1/root site
  site=$(mirror)
  say "root: debootstrap from $site (takes a minute or two)"
  local http_proxy=${http_proxy:-}
  eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
  export http_proxy
  [ -n "$http_proxy" ] || unset http_proxy
  mkdir "$tree"
  debootstrap --variant=minbase bookworm "$tree" "$site" > "$1/debootstrap.log" 2>&1 ||
    { tail -n 20 "$1/debootstrap.log" >&2; fail "debootstrap failed"; }

  : > "$tree/etc/apt/sources.list"              # the guest installs nothing, and no mirror is named in it
  echo guest > "$tree/etc/hostname"
  printf '127.0.0.1 localhost\n127.0.1.1 guest\n' > "$tree/etc/hosts"
  : > "$tree/etc/resolv.conf"
  rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/* "$tree"/var/log/* "$tree"/tmp/* \
         "$tree"/usr/share/{doc,man,info,locale}/* "$tree/debootstrap"
  mkdir -p "$tree"/var/cache/apt/archives/partial "$tree"/var/lib/apt/lists/partial "$tree/var/log/apt" "$tree/var/cache/debconf"
  if grep -rqF "$site" "$tree/etc" "$tree/var"; then
    fail "the root names the mirror $site: $(grep -rlF "$site" "$tree/etc" "$tree/var")"
  fi

  # mkfs copies the tree in by itself: no loop device, no mount. Nothing lazy: the guest would write it later.
  truncate -s 2G "$1/root.raw"
  mkfs.ext4 -qF -d "$tree" -L root -E lazy_itable_init=0,lazy_journal_init=0 "$1/root.raw"
  e2fsck -fn "$1/root.raw" > "$1/e2fsck.log" 2>&1 || { cat "$1/e2fsck.log" >&2; fail "the new root has errors"; }
  fallocate --dig-holes "$1/root.raw"
}

make() {                                        # $1: DIR, $2: what goes into the stamp
  local work file
  rm -rf "$1"/.work.*                           # what a killed run left; the lock is ours
  work=$(mktemp -d "$1/.work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  kernel "$work"
  initrd "$work"
  root "$work"
  rm -f "$1/stamp"
  for file in vmlinuz initrd.gz root.raw; do
    sync "$work/$file"
    mv "$work/$file" "$1/$file"
  done
  echo "$2" > "$work/stamp"
  mv "$work/stamp" "$1/stamp"                   # last: with it the rest is whole
  rm -rf "$work"
  trap - EXIT
  say "$(du -m "$1/root.raw" | cut -f1) MiB of $(du -m --apparent-size "$1/root.raw" | cut -f1) MiB allocated in $1/root.raw"
}

[ $# = 1 ] || fail "usage: make.sh DIR"
self=$(realpath "$0")
dir=$(realpath -m "$1")
stamp=$(sha256sum < "$self")
whole() { [ "$(cat "$dir/stamp" 2> /dev/null)" = "$stamp" ] && [ -s "$dir/vmlinuz" ] && [ -s "$dir/initrd.gz" ] && [ -s "$dir/root.raw" ]; }

! whole || exit 0
if [ -z "${GUEST_NAMESPACE:-}" ]; then
  [ "$(id -u)" = 0 ] || fail "run it as root (debootstrap needs chroot)"
  missing
  mkdir -p "$dir"
  # A mount namespace: whatever debootstrap mounts goes with it. The lock is held by every process in it.
  GUEST_NAMESPACE=1 exec flock "$dir/.lock" unshare --mount --propagation private "$self" "$dir"
fi
whole || make "$dir" "$stamp"
