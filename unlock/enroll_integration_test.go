//go:build integration

package unlock

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/unlock/luks"
)

// script returns a program that stands in for cryptsetup on a machine that lacks
// the memory for keyslot 0.
func script(t *testing.T, others string) luks.Cryptsetup {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cryptsetup")
	text := "#!/bin/sh\ncase \"$*\" in *\"--key-slot 0 \"*) exit 3 ;; esac\nexit " + others + "\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o700))
	return luks.Cryptsetup{Path: path}
}

func TestKeyslotThatCannotBeTriedHidesNoOther(t *testing.T) {
	v, passphrase := readTarget(t, "aes128-512-argon2id"), secret.Copy([]byte("any"))
	require.Greater(t, len(v.volume.Inventory().Keyslots), 1)
	e := &Enrollment{Cryptsetup: script(t, "0"), Out: io.Discard}
	require.NoError(t, e.opens(t.Context(), v, passphrase))

	e.Cryptsetup = script(t, "2")
	err := e.opens(t.Context(), v, passphrase)
	require.ErrorIs(t, err, luks.ErrWrongKey, "another passphrase may do")
	assert.ErrorContains(t, err, "out of memory")
}
