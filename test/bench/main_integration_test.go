//go:build integration

package bench_test

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// roleVariable makes this test binary play the bare composite.
const roleVariable = "KEYWRIGHT_BENCH_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) == "bare" {
		if err := serveBare(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// clockTick is the unit of the times in /proc/PID/stat, on every Linux that Go
// runs on (USER_HZ).
const clockTick = 10 * time.Millisecond

// cpuOf returns the user and system time of a process (proc(5), fields 14, 15).
func cpuOf(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name before may hold spaces; it ends with the last parenthesis.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// cpuDuring returns the time that a process used while work ran.
func cpuDuring(b *testing.B, pid int, work func()) time.Duration {
	b.Helper()
	before, err := cpuOf(pid)
	if err != nil {
		b.Fatal(err)
	}
	work()
	after, err := cpuOf(pid)
	if err != nil {
		b.Fatal(err)
	}
	return after - before
}
