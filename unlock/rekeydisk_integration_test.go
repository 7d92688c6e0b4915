//go:build integration

package unlock_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

const (
	rekeyVolume = "vol-a"
	rekeyResume = "00112233445566778899aabbccddeeff"
	person      = "a person's passphrase"
	recovery    = "a recovery key"
)

func text(s string) secret.Bytes { return secret.Copy([]byte(s)) }

// version is a version of the volume's secret.
func version(n uint32) unlock.SecretVersion {
	return unlock.SecretVersion{Number: n, Key: text(fmt.Sprintf("secret of version %d", n))}
}

// boundDisk is a volume on a plain file as an enrolment leaves it: a person's
// keyslot 0, ours 1, and 2 of the recovery key.
type boundDisk struct {
	t        *testing.T
	path     string
	run      unlock.RunDir
	identity [32]byte
}

func newDisk(t *testing.T, options ...string) *boundDisk {
	t.Helper()
	dir := t.TempDir()
	d := &boundDisk{t: t, path: filepath.Join(dir, "volume"), run: unlock.RunDir(filepath.Join(dir, "run"))}
	require.NoError(t, os.WriteFile(d.path, nil, 0o600))
	require.NoError(t, os.Truncate(d.path, 32<<20))
	d.cryptsetup(person, append([]string{"luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "2000", "--key-file", "-", d.path}, options...)...)
	d.bind(1, luks.PurposeBoot, 1, string(version(1).Key.Expose()))
	d.bind(2, luks.PurposeRecovery, 1, recovery)
	d.identity = identityOf(t, d.header())
	return d
}

func identityOf(t *testing.T, v *luks.Volume) [32]byte {
	t.Helper()
	sum, err := v.Identity().Digest()
	require.NoError(t, err)
	return sum
}

func (d *boundDisk) cryptsetup(stdin string, args ...string) {
	d.t.Helper()
	cmd := exec.Command("cryptsetup", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	require.NoError(d.t, err, "%v: %s", args, out)
}

// bind adds a keyslot and a token that is assigned to it.
func (d *boundDisk) bind(slot int, p luks.Purpose, number uint32, key string) {
	d.t.Helper()
	ctx := d.t.Context()
	require.NoError(d.t, luks.Cryptsetup{}.AddKeyslot(ctx, d.path, text(person), text(key), slot))
	d.announce(slot, p, number, slot)
}

// announce writes a token that is meant for a slot, and assigned to some.
func (d *boundDisk) announce(slot int, p luks.Purpose, number uint32, assigned ...int) {
	d.t.Helper()
	id, err := d.header().FreeToken()
	require.NoError(d.t, err)
	require.NoError(d.t, luks.Cryptsetup{}.ImportToken(d.t.Context(), d.path, id, luks.Token{
		Volume: rekeyVolume, Resume: rekeyResume, Purpose: p, Version: number, Slot: slot, Keyslots: assigned,
	}))
}

func (d *boundDisk) header() *luks.Volume {
	d.t.Helper()
	f, err := os.Open(d.path)
	require.NoError(d.t, err)
	d.t.Cleanup(func() { _ = f.Close() })
	h, err := luks.ReadDevice(f)
	require.NoError(d.t, err)
	v, err := h.Validate()
	require.NoError(d.t, err)
	return v
}

// opens tells whether a key opens a keyslot that a boot would try.
func (d *boundDisk) opens(key secret.Bytes) bool {
	d.t.Helper()
	v := d.header()
	volumeKey, err := v.UnsealAny(d.t.Context(), v.OwnSlots(rekeyVolume), key)
	volumeKey.Wipe()
	return err == nil
}

// rekey is from version 1 to version 2.
func (d *boundDisk) rekey(out io.Writer) *unlock.Rekeying {
	return &unlock.Rekeying{
		Device: d.path, Volume: rekeyVolume, Identity: d.identity, Old: version(1), New: version(2),
		Keep: func(context.Context, io.Reader) error { return nil }, RunDir: d.run, Out: out,
	}
}

func (d *boundDisk) adds() string {
	d.t.Helper()
	var out bytes.Buffer
	_, err := d.rekey(&out).Add(d.t.Context())
	require.NoError(d.t, err, out.String())
	return out.String()
}

// requireSettled holds that a version is the only one, and that nothing of anybody
// else has changed.
func (d *boundDisk) requireSettled(number uint32) {
	d.t.Helper()
	v := d.header()
	require.Equal(d.t, d.identity, identityOf(d.t, v))
	var versions []uint32
	for _, token := range v.OwnTokens() {
		if token.Purpose == luks.PurposeBoot {
			versions = append(versions, token.Version)
			require.Len(d.t, token.Keyslots, 1)
		}
	}
	require.Equal(d.t, []uint32{number}, versions)
	require.True(d.t, d.opens(version(number).Key))
	for other := uint32(1); other < 5; other++ {
		if other != number {
			for _, s := range v.Inventory().Keyslots {
				require.ErrorIs(d.t, luks.Cryptsetup{}.TestKey(d.t.Context(), d.path, s.ID, version(other).Key), luks.ErrWrongKey, "version %d", other)
			}
		}
	}
	require.NoError(d.t, luks.Cryptsetup{}.TestKey(d.t.Context(), d.path, 0, text(person)))
	require.NoError(d.t, luks.Cryptsetup{}.TestKey(d.t.Context(), d.path, 2, text(recovery)))
	require.Equal(d.t, []int{2}, v.SlotsFor(rekeyVolume, luks.PurposeRecovery))
}

func (d *boundDisk) requireSlots(n int) {
	d.t.Helper()
	require.Len(d.t, d.header().Inventory().Keyslots, n)
}
