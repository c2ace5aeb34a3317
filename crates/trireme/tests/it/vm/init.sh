#!/bin/sh
# First program of the test's virtual machine: makes a root that containers can leave (the initial
# one cannot be pivoted), with cgroup2 alone, and runs the check there.
busybox mkdir -p /proc /sys /dev /new
busybox mount -t tmpfs -o size=90% tmpfs /new
export PATH=/bin:/new/bin
for entry in etc image.tar check.sh lib trireme bin; do
  busybox mv /$entry /new/
done
cd /new
busybox mkdir -p proc sys dev tmp var/lib root run
exec busybox switch_root /new /bin/sh -c '
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t cgroup2 none /sys/fs/cgroup
depmod
for module in overlay bridge veth nf_tables nft_chain_nat nft_ct nft_masq nft_nat nft_redir \
    nft_reject_inet nft_fib_inet nft_hash nft_numgen nf_conntrack nf_conntrack_netlink nft_socket; do
  modprobe $module || echo "no module $module"
done
ip link set lo up
sh /check.sh
echo "CHECKS ENDED $?"
poweroff -f
'
