# Checkpoints a container that goes on, then for good, then restores it: crun.sh CRUN DIR, in a mount namespace of its
# own, with DIR/bundle. Prints the counter at each step.

crun="$1 --root $2/state --cgroup-manager=cgroupfs"
dir=$2
counter=$dir/bundle/rootfs/counter

# crun refuses a mixture of cgroup versions.
mount -t cgroup2 none /sys/fs/cgroup

say() { echo "$1 $(cat $counter)"; }

# Waits until the counter has moved on.
moves() {
	from=$(cat $counter 2>/dev/null || echo 0)
	until [ "$(cat $counter 2>/dev/null || echo 0)" -gt "$((from + 5))" ]; do sleep 0.02; done
}

fail() {
	cat $dir/images/*.log >&2
	exit 1
}

trap '$crun delete -f test-counter >/dev/null 2>&1 || :' EXIT
mkdir $dir/images
$crun run -d --bundle $dir/bundle test-counter </dev/null >/dev/null 2>&1
moves
say start
$crun checkpoint --image-path=$dir/images --manage-cgroups-mode=ignore --leave-running test-counter || fail
moves
say running
rm -r $dir/images
mkdir $dir/images
moves
$crun checkpoint --image-path=$dir/images --manage-cgroups-mode=ignore test-counter || fail
say gone
$crun restore -d --image-path=$dir/images --manage-cgroups-mode=ignore --bundle $dir/bundle test-counter \
	</dev/null >/dev/null || fail
say restored
moves
say on
$crun kill test-counter KILL
