#!/bin/sh
# record.sh captures victim.c's /proc on the kernel at hand as linux-VERSION.txtar. It needs root, gcc and Go. The victim
# lives in a root and a mount namespace of its own, so that its mounts are these and not those of somebody's machine; for the
# same reason the paths in cgroup are replaced.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/procXXXXXX)
trap 'umount -l "$work" 2>/dev/null || true; rmdir "$work"' EXIT
cat >"/tmp/$$.sh" <<INNER
set -eu
mount --make-rprivate /
mount -t tmpfs -o size=8m 'source with blank' "$work"
cd "$work"
gcc -O1 -static -o victim "$here/victim.c"
mkdir 'mount point' 'back\\slash' '#hash' shared
mount -t tmpfs tmpfs 'mount point'
mount --bind 'mount point' 'back\\slash'
mount -t proc none '#hash'
mount --bind shared shared
mount --make-shared shared
chroot=\$(command -v chroot)
env -i /usr/bin/setsid "\$chroot" . ./victim </dev/null >out 2>&1 &
pid=\$!
for i in 1 2 3 4 5 6 7 8 9; do grep -q ready out && break || sleep 0.2; done
grep -q ready out || { cat out; exit 1; }
"$here/record.bin" "\$pid" | sed -e '/cgroup --\$/,/^-- /{s#:/.*#:/user.slice/test.scope#}' >"$here/linux-\$(uname -r | cut -d- -f1 | cut -d. -f1-2).txtar"
for child in \$(pgrep -P "\$pid"); do kill "\$child"; done
kill "\$pid"
INNER
go build -o "$here/record.bin" "$here/record.go"
unshare -m sh "/tmp/$$.sh"
rm "/tmp/$$.sh" "$here/record.bin"
