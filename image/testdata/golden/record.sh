#!/bin/sh
# record.sh makes the golden images again, by real CRIU: CRIU=/path/to/criu sh record.sh. It needs root, gcc and a kernel
# that the criu knows. The images in the repository were made by CRIU 4.2.1 on Linux 6.18, x86-64. Tests look at what does
# not change between recordings; pids, addresses and times do. The environment is empty, since it is in the pages.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
criu=${CRIU:-criu}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in zoo tree; do
	mkdir "$work/$name"
	cd "$work/$name"
	gcc -O1 -static -o victim "$here/$name.c"
	env -i setsid ./victim </dev/null >out 2>&1 &
	until grep -q ready out; do sleep 0.1; done
	rm -rf "$here/$name"
	mkdir "$here/$name"
	"$criu" dump --tree "$(pgrep -f -x ./victim | head -n 1)" --images-dir "$here/$name" --log-file "$work/$name.log" -v4 ||
		{ grep Error "$work/$name.log"; exit 1; }
	chmod 644 "$here/$name"/*
done
rm "$here"/tree/pages-*.img
# Of the pages only their number matters here; they would be a copy of somebody's vDSO and stack.
size=$(wc -c <"$here/zoo/pages-1.img")
truncate -s 0 "$here/zoo/pages-1.img"
truncate -s "$size" "$here/zoo/pages-1.img"
