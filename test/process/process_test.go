package process

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestDiesWithParent kills a parent and sees that its child's output ends too.
func TestDiesWithParent(t *testing.T) {
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	defer reader.Close()
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), roleVariable+"=parent")
	parent.Stdout = writer
	require.NoError(t, parent.Start())
	require.NoError(t, writer.Close())

	output := bufio.NewReader(reader)
	line, err := output.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "child lives\n", line)
	require.NoError(t, parent.Process.Kill())
	require.Error(t, parent.Wait())
	require.NoError(t, reader.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = io.ReadAll(output)
	assert.NoError(t, err, "the child still holds its output")
}

func TestKillTwice(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"=child")
	p, err := Start(cmd)
	require.NoError(t, err)
	p.Kill()
	p.Kill()
	assert.ErrorContains(t, p.Err(), "killed")
}

func TestCommandErrors(t *testing.T) {
	err := Run(t.Context(), exec.Command("keywright-no-such-program"))
	assert.ErrorContains(t, err, "run test/setup")

	failing := exec.Command(os.Args[0])
	failing.Env = append(os.Environ(), roleVariable+"=failing")
	err = Run(t.Context(), failing)
	assert.ErrorContains(t, err, "exit status 3: no space left", "an error has what the program said")

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), roleVariable+"=child")
	assert.ErrorIs(t, Run(ctx, child), context.DeadlineExceeded)
}
