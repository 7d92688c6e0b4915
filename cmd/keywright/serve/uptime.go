package serve

import (
	"time"

	"golang.org/x/sys/unix"
)

// Uptime is how long the host is up, with the time that it slept: no setting of
// the wall clock changes it (clock_gettime(2), CLOCK_BOOTTIME).
func Uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has it since 2.6.39
	}
	return time.Duration(t.Nano())
}
