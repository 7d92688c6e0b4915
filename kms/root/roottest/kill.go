package roottest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// Kill tests run their own binary as a child, which kills itself at a point.
const (
	killFolder = "ROOTTEST_KILL_FOLDER"
	killPoint  = "ROOTTEST_KILL_POINT"
)

// Main is the TestMain of a package whose tests call [KilledAt]: in a child it does
// the work over a folder, with roots that are [Deadly] at the point.
func Main(m *testing.M, work func(folder string, point int) error) {
	folder := os.Getenv(killFolder)
	if folder == "" {
		os.Exit(m.Run())
	}
	point, err := strconv.Atoi(os.Getenv(killPoint))
	if err == nil {
		err = work(folder, point)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// KilledAt does the work in a child. It returns false where that ended by itself:
// there is no such point.
func KilledAt(t testing.TB, folder string, point int) bool {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), killFolder+"="+folder, killPoint+"="+strconv.Itoa(point))
	child.Stderr = os.Stderr
	err := child.Run()
	if err == nil {
		return false
	}
	status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, ok && status.Signal() == syscall.SIGKILL, "%v", err)
	return true
}

// Deadly returns a root that kills the process before or after one of its calls:
// when left, which several may share, has been counted down to zero.
func Deadly(r root.Root, left *int) root.Root { return deadly{r, left} }

type deadly struct {
	root.Root
	left *int
}

func (d deadly) point() {
	if *d.left--; *d.left == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (d deadly) Wrap(ctx context.Context, key secret.Bytes, c []byte) (root.Wrapped, error) {
	d.point()
	defer d.point()
	return d.Root.Wrap(ctx, key, c)
}

func (d deadly) Unwrap(ctx context.Context, ciphertext, c []byte) (secret.Bytes, error) {
	d.point()
	defer d.point()
	return d.Root.Unwrap(ctx, ciphertext, c)
}
