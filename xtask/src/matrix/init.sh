#!/bin/sh
# The guest's init: mounts, runs every scenario, and turns the machine off.
export PATH=/usr/sbin:/usr/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs tmp /run
mount -t tracefs trace /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
read -r line </proc/cmdline
for word in $line; do
	case $word in lab.*) export "$(echo "${word#lab.}" | tr , ' ')" ;; esac
done
if [ "$cgroup" = 1 ]; then
	mount -t tmpfs cgroups /sys/fs/cgroup
	while read -r name _; do
		case $name in \#*) continue ;; esac
		mkdir "/sys/fs/cgroup/$name"
		mount -t cgroup -o "$name" "$name" "/sys/fs/cgroup/$name" 2>/dev/null
	done </proc/cgroups
else
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
ip link set lo up
export PROBE_BIN=/usr/bin/probe PROBE_LAB_SKIPS=/tmp/skips PROBE_LAB_PATIENCE=5
echo "guest: $(cat /proc/sys/kernel/osrelease) is up"
probe check
for scenario in $scenarios; do
	echo "guest: scenarios $scenario"
	# shellcheck disable=SC2086
	/lab/"$scenario" --test-threads=4 $filter 2>&1
	# At once: an emulated machine may not live to the end.
	[ -e /tmp/skips ] && cat /tmp/skips && : >/tmp/skips
done
echo "guest: done"
# Until it is out: what the kernel says of its end goes the same way.
sleep 1
echo o >/proc/sysrq-trigger
sleep 60
