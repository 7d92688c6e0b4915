package luks

import (
	"bytes"
	"os"
	"testing"

	luksgo "github.com/anatol/luks.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"keywright.dev/kms/secret"
)

// OpenCopy lets luks.go read what it is given of the volume.
func (v *Volume) OpenCopy() error {
	device, err := v.openCopy(nil, 0)
	if err != nil {
		return err
	}
	return device.Close()
}

// When this fails after an update of luks.go, look there for where the volume key
// is kept now, or for a way to be given it.
func TestLuksGoKeepsTheKeyWhereWeTakeIt(t *testing.T) {
	key, err := volumeKeyOf(&luksgo.Volume{})
	require.NoError(t, err, "luks.go has moved the volume key")
	assert.Zero(t, key.Len())
}

func TestMemoryCopyIsSealed(t *testing.T) {
	f, err := os.Open("testdata/headers/aes256-4096.img")
	require.NoError(t, err)
	defer f.Close()
	h, err := Parse(f, 8<<20)
	require.NoError(t, err)
	v, err := h.Validate()
	require.NoError(t, err)
	memory, err := v.memoryCopy([]byte("area"), 32768)
	require.NoError(t, err)
	defer memory.Close()

	_, err = memory.WriteAt([]byte("x"), 0)
	require.ErrorIs(t, err, unix.EPERM)
	require.ErrorIs(t, memory.Truncate(4096), unix.EPERM)
	require.ErrorIs(t, memory.Truncate(16<<20), unix.EPERM)
	_, err = unix.FcntlInt(memory.Fd(), unix.F_ADD_SEALS, 0)
	require.ErrorIs(t, err, unix.EPERM, "no seal can be added")

	info, err := memory.Stat()
	require.NoError(t, err)
	assert.EqualValues(t, 8<<20, info.Size())
	original, copied := make([]byte, 16<<10), make([]byte, 16<<10)
	_, err = f.ReadAt(original, 0)
	require.NoError(t, err)
	_, err = memory.ReadAt(copied, 0)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(original, copied), "the first copy as it was read")
	area := make([]byte, 8)
	_, err = memory.ReadAt(area, 32768-2)
	require.NoError(t, err)
	assert.Equal(t, "\x00\x00area\x00\x00", string(area))
}

// The digest that was validated has the last word, over luks.go's too.
func TestConfirmTrustsNobody(t *testing.T) {
	d := digest{Hash: "sha256", Iterations: 1000, Salt: make([]byte, 32), Digest: make([]byte, 32)}
	v := &Volume{digests: map[id]digest{0: d}}
	err := v.confirm(secret.Copy(make([]byte, 64)))
	require.ErrorContains(t, err, "not the volume key")
	assert.NotErrorIs(t, err, ErrWrongKey)
}
