# Has crun checkpoint a container, which has to fail and leave it running: crun-refused.sh CRUN DIR, in a mount namespace of its own,
# with DIR/bundle. Prints whether the container goes on; what crun says of the checkpoint goes to DIR/crun.out.

crun="$1 --root $2/state --cgroup-manager=cgroupfs"
dir=$2
counter=$dir/bundle/rootfs/counter

# crun refuses a mixture of cgroup versions.
mount -t cgroup2 none /sys/fs/cgroup

# Waits until the counter has moved on.
moves() {
	from=$(cat $counter 2>/dev/null || echo 0)
	until [ "$(cat $counter 2>/dev/null || echo 0)" -gt "$((from + 5))" ]; do sleep 0.02; done
}

trap '$crun delete -f test-counter >/dev/null 2>&1 || :' EXIT
mkdir $dir/images
$crun run -d --bundle $dir/bundle test-counter </dev/null >/dev/null 2>&1
moves
if $crun checkpoint --image-path=$dir/images --manage-cgroups-mode=ignore test-counter >$dir/crun.out 2>&1; then
	echo "the checkpoint succeeded"
	exit
fi
moves
$crun state test-counter | grep -q '"status": "running"' && echo "running on"
$crun kill test-counter KILL
