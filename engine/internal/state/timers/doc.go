// Package timers has the timers of a process: interval timers so far. POSIX timers are refused.
package timers
