package unlock

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A standard error that nobody reads holds up no reset.
func TestLineForAFullPipeIsDropped(t *testing.T) {
	var ends [2]int
	require.NoError(t, unix.Pipe2(ends[:], unix.O_CLOEXEC))
	reader, writer := os.NewFile(uintptr(ends[0]), "reader"), os.NewFile(uintptr(ends[1]), "writer")
	defer reader.Close()
	defer writer.Close()
	size, err := unix.FcntlInt(writer.Fd(), unix.F_GETPIPE_SZ, 0)
	require.NoError(t, err)
	_, err = writer.Write(make([]byte, size))
	require.NoError(t, err)
	sayOn(writer, "why the machine is reset")

	held := make([]byte, size)
	n, err := reader.Read(held)
	require.NoError(t, err)
	assert.Equal(t, size, n)
	sayOn(writer, "it is read again\n")
	n, err = reader.Read(held)
	require.NoError(t, err)
	assert.Equal(t, "it is read again\n", string(held[:n]))
}
