// Package kill owns tests whose process dies at each step of some work: at the
// first point, at the second, and so on until the work ends by itself.
//
// Invariants: a point is where [Countdown.Point] is called, and the process dies of
// SIGKILL there, so that nothing of it cleans up. What it left is on disk.
//
// It refuses to kill any other process than its own child.
package kill

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Kill tests run their own binary as a child, which kills itself at a point.
const (
	killWork   = "KILL_WORK"
	killFolder = "KILL_FOLDER"
	killPoint  = "KILL_POINT"
)

// Countdown kills the process at its last point. A nil one never does.
type Countdown struct {
	left  atomic.Int64
	began atomic.Bool
}

// Begin has points count from now on.
func (c *Countdown) Begin() {
	if c != nil {
		c.began.Store(true)
	}
}

// Point is a step at which the process may die.
func (c *Countdown) Point() {
	if c != nil && c.began.Load() && c.left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// Work is what a process does over a folder until it dies. Whoever does it again
// finishes it.
type Work func(folder string, at *Countdown) error

// Main is the TestMain of a package whose tests call [AtEachPoint]: in a child it
// does one of the works.
func Main(m *testing.M, works map[string]Work) {
	work, child := works[os.Getenv(killWork)]
	if !child {
		os.Exit(m.Run())
	}
	point, err := strconv.Atoi(os.Getenv(killPoint))
	if err == nil {
		at := new(Countdown)
		at.left.Store(int64(point))
		err = work(os.Getenv(killFolder), at)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// AtEachPoint has children do a work, each over its own copy of a folder: one dies
// at the first point, the next at the second, until one ends by itself. It calls
// check with what each left, and returns how many died.
func AtEachPoint(t *testing.T, work, pristine string, check func(folder string)) (killed int) {
	t.Helper()
	return AtEachPointBeside(t, work, pristine, func(io.ReadWriter) error { return nil }, check)
}

// AtEachPointBeside is [AtEachPoint] of a work that serves on its standard input and
// output until that ends. beside is who it serves; its error counts where the child
// did not die.
func AtEachPointBeside(t *testing.T, work, pristine string, beside func(io.ReadWriter) error, check func(folder string)) (killed int) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("%s, killed at point %d", work, killed+1)
		}
	}()
	for ; ; killed++ {
		folder := Copy(t, pristine)
		died := diesAt(t, work, folder, killed+1, beside)
		check(folder)
		if t.Failed() {
			t.FailNow()
		}
		if !died {
			return killed
		}
	}
}

func diesAt(t *testing.T, work, folder string, point int, beside func(io.ReadWriter) error) bool {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), killWork+"="+work, killFolder+"="+folder, killPoint+"="+strconv.Itoa(point))
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	require.NoError(t, err)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	served := beside(struct {
		io.Reader
		io.Writer
	}{out, in})
	_ = in.Close() // of one that died it is closed
	err = child.Wait()
	if err == nil {
		require.NoError(t, served, "%s, which nobody killed", work)
		return false
	}
	status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, ok && status.Signal() == syscall.SIGKILL, "%s at point %d: %v", work, point, err)
	return true
}

// Copy copies a folder, with the modes of what holds keys.
func Copy(t *testing.T, pristine string) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(folder, os.DirFS(pristine)))
	require.NoError(t, filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.Chmod(path, 0o700)
		default:
			return os.Chmod(path, 0o600)
		}
	}))
	return folder
}
