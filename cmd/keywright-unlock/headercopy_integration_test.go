//go:build integration

package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock"
)

// headerCopy is the header of the volume on a path as the service has it.
func (s *service) headerCopy(t *testing.T, path string) []byte {
	t.Helper()
	own, err := exchange.NewRecipient()
	require.NoError(t, err)
	v := s.volumeOn(t, path)
	kept, sealed, err := s.DiscloseHeader(t.Context(), operator(), v, v.ID, own.PublicKey())
	require.NoError(t, err)
	statement, err := exchange.DisclosureStatement(v.ID, 0, own.PublicKey())
	require.NoError(t, err)
	key, err := own.OpenDisclosure(statement, sealed.Response)
	require.NoError(t, err)
	packed, err := exchange.OpenHeaderCopy(key, v.ID, kept.Version, kept.Sealed)
	require.NoError(t, err)
	from, err := gzip.NewReader(bytes.NewReader(packed))
	require.NoError(t, err)
	header, err := io.ReadAll(from)
	require.NoError(t, err)
	return header
}

// A header that is destroyed while it is rekeyed is restored from the copy at the
// service, opens at the next boot, and is rekeyed.
func TestDestroyedHeaderIsRestoredFromItsCopy(t *testing.T) {
	s := startService(t)
	g := unlocked(t, s, 1)
	path := g.volumes[0]
	s.order(t, path, false)
	g.cutAgent(s, at{unlock.StepKillOthers, 0})
	backup := g.path("backup")
	require.NoError(t, os.WriteFile(backup, s.headerCopy(t, path), 0o600))

	disk, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = disk.WriteAt(make([]byte, 16<<20), 0)
	require.NoError(t, err)
	require.NoError(t, disk.Close())
	cryptsetup(t, "", "luksHeaderRestore", "-q", "--header-backup-file", backup, path)
	require.Equal(t, []uint32{1}, versionsOn(t, path))
	cryptsetup(t, passphrase, "open", "--test-passphrase", "--key-slot", "0", "--key-file", "-", path)

	_, err = s.ExpectRestore(t.Context(), operator(), s.volumeOn(t, path).Machine, time.Now().Add(time.Hour), "a test")
	require.NoError(t, err)
	g.boot("ovmf-uki")
	require.NoError(t, g.bootHere(s).err)
	s.requireRekeyed(t, path, 3)
	_, err = s.store.HeaderCopy(t.Context(), s.volumeOn(t, path).ID)
	require.ErrorIs(t, err, kms.ErrNotFound)
}
