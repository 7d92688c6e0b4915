package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestKilledProgramLeavesNoLock(t *testing.T) {
	self, err := os.Executable()
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "lock")
	for n := range 60 {
		cmd := exec.Command(self, path)
		cmd.Env = append(os.Environ(), roleVariable+"=locking")
		require.NoError(t, KillAtStep(cmd, "locked", 0, time.Duration(n)*200*time.Microsecond))
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		require.NoError(t, err)
		require.NoError(t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
		require.NoError(t, f.Close())
	}
}
