package unlock_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"keywright.dev/unlock"
)

// hardened makes a child of the tests a process that hardens itself.
const hardened = "KEYWRIGHT_UNLOCK_HARDENED"

// TestMain is the children of tests, too.
func TestMain(m *testing.M) {
	for role, work := range children() {
		words, child := os.LookupEnv(role)
		if !child {
			continue
		}
		if err := work(strings.Fields(words)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// showHardened prints what the process may do once it is hardened.
func showHardened([]string) error {
	_, err := fmt.Println(state(unlock.Harden()))
	return err
}

// state is what a process may do with its memory.
func state(err error) string {
	var limit unix.Rlimit
	if limitErr := unix.Getrlimit(unix.RLIMIT_CORE, &limit); limitErr != nil {
		return limitErr.Error()
	}
	dumpable, dumpErr := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if dumpErr != nil {
		return dumpErr.Error()
	}
	return fmt.Sprintf("dumpable %d, core %d of %d, error %v", dumpable, limit.Cur, limit.Max, err)
}

// harden runs the child and returns its state.
func harden(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	child := exec.Command(self)
	child.Env = append(os.Environ(), hardened+"=1")
	out, err := child.CombinedOutput()
	require.NoError(t, err, string(out))
	return string(out)
}

func TestHardenForbidsCoreDumps(t *testing.T) {
	assert.Contains(t, harden(t), "dumpable 0, core 0 of 0, ")
}
