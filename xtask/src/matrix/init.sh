#!/bin/sh
# The guest's init: mounts, runs the scenarios of /lab/plan, and turns the machine off.
export PATH=/usr/sbin:/usr/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
# The first port is the kernel's alone.
exec </dev/null >/dev/ttyS1 2>&1
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs tmp /run
mount -t tracefs trace /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
read -r line </proc/cmdline
for word in $line; do
	case $word in lab.*) export "${word#lab.}" ;; esac
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
if [ "$check" = 1 ]; then
	# What these modules bring along is there to be attached to only while they are loaded.
	modprobe -a nf_conntrack nf_nat vxlan
	json=$(probe check -o json 2>&1)
	status=$?
	printf 'guest: check %s %s\n' "$status" "$(printf %s "$json" | tr '\n' ' ')"
	modprobe -r vxlan nf_nat nf_conntrack
fi
# A program of scenarios and its arguments a line.
while read -r scenario arguments; do
	echo "guest: scenarios $scenario"
	# shellcheck disable=SC2086
	/lab/"$scenario" --test-threads=4 $arguments </dev/null
	status=$?
	[ -e /tmp/skips ] && cat /tmp/skips && : >/tmp/skips
	echo "guest: ended $scenario $status"
done </lab/plan
echo "guest: done"
# Until it is out.
sleep 1
echo o >/proc/sysrq-trigger
sleep 60
