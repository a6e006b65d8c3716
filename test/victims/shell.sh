#!/bin/sh
# shell: a loop in a shell that starts another program in every round. It counts, and beside the count keeps the sum of
# all counts; its check is that they agree. victim.h says how a victim is asked.
sabotage=
[ "${1:-}" != --sabotage ] || sabotage=1

say() { echo "$1" >>"${VICTIM_OUTPUT:-/dev/stdout}"; }

count=0 sum=0 asked='' asked_on=''
trap 'asked=1' USR1
trap 'asked_on=1' USR2
say ready
while [ -z "$asked" ]; do
	count=$((count + 1)) sum=$((sum + count))
	if [ -n "$sabotage" ] && [ $count = 1 ]; then
		count=2
	fi
	sleep 0.02
	if [ -n "$asked_on" ]; then
		asked_on=
		say "count $count"
	fi
done
if [ $sum != $((count * (count + 1) / 2)) ]; then
	say "FAIL counted to $count, and the sum is $sum"
	exit 1
fi
say ok
