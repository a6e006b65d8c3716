#!/bin/sh
# record.sh makes the golden images again, by real CRIU: CRIU=/path/to/criu sh record.sh; NAMES chooses some of them. It needs root, gcc and a kernel
# that the criu knows. The images in the repository were made by CRIU 4.2.1 on Linux 6.18, x86-64. Tests look at what does
# not change between recordings; plan.txt has pids and is written again by `go test -run Golden -update`.
#
# Pages are left out: tests make files of zeros of the right size.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
criu=${CRIU:-criu}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

dump() { # name pid options
	rm -rf "${here:?}/$1"
	mkdir "$here/$1"
	name=$1 pid=$2
	shift 2
	"$criu" dump --tree "$pid" --images-dir "$here/$name" --log-file "$work/$name.log" -v4 "$@" ||
		{ grep -E 'Error|Warn' "$work/$name.log"; exit 1; }
	rm "$here/$name"/pages-*.img "$here/$name"/stats-dump
	chmod 644 "$here/$name"/*
}

for name in ${NAMES:-family state files gone}; do
	mkdir "$work/$name"
	cd "$work/$name"
	gcc -O1 -static -pthread -o "$name" "$here/$name.c"
	env -i setsid "./$name" </dev/null >out 2>&1 &
	until grep -q ready out; do sleep 0.1; done
	case $name in
	gone) dump gone $! --link-remap ;;
	*) dump "$name" $! ;;
	esac
done

[ -z "${NAMES:-}" ] || exit 0
mkdir "$work/job"
cd "$work/job"
gcc -O1 -static -o job "$here/job.c" -lutil
env -i ./job >out 2>&1 </dev/null &
holder=$!
until grep -q ready out; do sleep 0.1; done
dump job "$(tr -d '\r' <out | sed -n 's/ready //p')" --shell-job
kill $holder
