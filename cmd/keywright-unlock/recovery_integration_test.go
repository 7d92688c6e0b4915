//go:build integration

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
	"keywright.dev/kms/recovery"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// typed opens a volume as somebody does who types a key at cryptsetup's prompt.
func typed(key, path string, options ...string) error {
	cmd := exec.Command("cryptsetup", append([]string{"open", "--test-passphrase", path}, options...)...)
	cmd.Stdin = strings.NewReader(key + "\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// volumeOf returns the service's row of a volume on the disk.
func (g *guest) volumeOf(s *service, path string) *kms.Volume {
	g.t.Helper()
	id := header(g.t, path).OwnTokens()[0].Volume
	volumes, err := s.store.Volumes(g.t.Context(), g.machine(), "", 10)
	require.NoError(g.t, err)
	for i := range volumes {
		if volumes[i].ID == id {
			return &volumes[i]
		}
	}
	require.Fail(g.t, "the service does not know the volume")
	return nil
}

// recoveryKey has the service disclose the recovery key of a volume.
func (g *guest) recoveryKey(s *service, path string) string {
	g.t.Helper()
	key, err := s.DiscloseRecoveryKey(g.t.Context(), operator(), g.volumeOf(s, path), 0)
	require.NoError(g.t, err)
	defer key.Wipe()
	return string(key.Expose())
}

// requireRecovery holds that each volume's recovery key opens the keyslot that its
// token names, and no other volume.
func (g *guest) requireRecovery(s *service) {
	g.t.Helper()
	for i, path := range g.volumes {
		v := header(g.t, path)
		slots := v.SlotsFor(v.OwnTokens()[0].Volume, luks.PurposeRecovery)
		require.Len(g.t, slots, 1)
		key := g.recoveryKey(s, path)
		require.NoError(g.t, typed(key, path, "--key-slot", fmt.Sprint(slots[0])))
		cryptsetup(g.t, key, "open", "--test-passphrase", "--key-file", "-", path)
		for j, other := range g.volumes {
			if i != j {
				require.Error(g.t, typed(key, other))
			}
		}
	}
}

func TestRecoveryKeyIsTypedAtAnyPrompt(t *testing.T) {
	s, g := startService(t), newGuest(t, 2)
	out := g.enroll(s)
	g.requireEnrolled()
	g.requireRecovery(s)
	for _, path := range g.volumes {
		assert.Contains(t, out, "recovery key in keyslot 2: keywright volume recovery-key "+g.volumeOf(s, path).ID)
		require.Error(t, typed(strings.ToUpper(g.recoveryKey(s, path)), path), "it is what was made, to the letter")
	}
	s.approve(t, g.machine())
	g.boot("ovmf-uki")
	r := g.bootHere(s)
	require.NoError(t, r.err)
	for _, key := range r.keys {
		require.Error(t, typed(string(key), g.volumes[0], "--key-slot", "2"), "no boot gets it")
	}
}

// TestAgeCopyAndCryptsetupAreEnough opens volumes with what was exported and an
// identity of age, after the service and its store are gone.
func TestAgeCopyAndCryptsetupAreEnough(t *testing.T) {
	classic, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	hybrid, err := age.GenerateHybridIdentity()
	require.NoError(t, err)
	for name, c := range map[string]struct {
		identity  age.Identity
		recipient string
	}{
		"X25519":       {classic, classic.Recipient().String()},
		"post-quantum": {hybrid, hybrid.Recipient().String()},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, 2)
			copies := make(map[string]string) // by LUKS UUID
			t.Run("service", func(t *testing.T) {
				s := startService(t)
				var err error
				s.Recovery, err = recovery.ParseRecipients([]string{c.recipient})
				require.NoError(t, err)
				g.enroll(s)
				volumes, err := s.store.Volumes(t.Context(), "", "", 10)
				require.NoError(t, err)
				list, err := s.RecoveryCopies(t.Context(), operator(), volumes)
				require.NoError(t, err)
				for _, one := range list {
					copies[one.Volume.UUID] = one.Age
				}
			})
			require.Len(t, copies, 2)
			for _, path := range g.volumes {
				text := copies[strings.TrimSpace(cryptsetup(t, "", "luksUUID", path))]
				plain, err := age.Decrypt(armor.NewReader(strings.NewReader(text)), c.identity)
				require.NoError(t, err)
				key, err := io.ReadAll(plain)
				require.NoError(t, err)
				require.NoError(t, typed(string(key), path))
				cryptsetup(t, string(key), "open", "--test-passphrase", "--key-file", "-", path)
			}
		})
	}
}

// requireNoRecovery holds that neither disk nor service has a recovery key.
func (g *guest) requireNoRecovery(s *service) {
	g.t.Helper()
	for _, path := range g.volumes {
		v := header(g.t, path)
		require.Len(g.t, v.OwnTokens(), 1)
		require.Len(g.t, v.Inventory().Keyslots, 2)
		_, err := s.DiscloseRecoveryKey(g.t.Context(), operator(), g.volumeOf(s, path), 0)
		require.Error(g.t, err)
	}
}

// An enrolment that was cut with recovery keys half done is finished without, as
// where a header has no room for one more keyslot.
func TestInterruptedRecoveryKeysAreLeftOut(t *testing.T) {
	s := startService(t)
	for _, step := range []unlock.Step{unlock.StepRecoveryToken, unlock.StepRecoveryKeyslot, unlock.StepRecoveryTest, unlock.StepConfig} {
		t.Run(string(step), func(t *testing.T) {
			g := newGuest(t, 2)
			g.kill(s, cut{step, 0, 0})
			g.enroll(s, "--no-recovery-key")
			g.requireNoRecovery(s)
			s.approve(t, g.machine())
			g.boot("ovmf-uki")
			require.NoError(t, g.bootHere(s).err)
		})
	}
}

func TestHeaderWithoutRoomForARecoveryKey(t *testing.T) {
	s, g := startService(t), newGuest(t, 0)
	path := g.path("small")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, 32<<20))
	cryptsetup(t, passphrase, "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--luks2-keyslots-size", "512k", "--key-file", "-", path)
	g.volumes = []string{path}
	out := g.fails(unlock.ExitFailed, passphrase, g.enrollArgs(s)...)
	assert.Contains(t, out, "step write-recovery-token")
	assert.Contains(t, out, "no room for another keyslot")
	assert.Len(t, header(t, path).OwnTokens(), 1, "nothing announces a keyslot that cannot be")
	assert.Contains(t, out, "--no-recovery-key enrols without")
	g.enroll(s, "--no-recovery-key")
	g.requireNoRecovery(s)
}

func TestEnrolmentWithoutRecoveryKeys(t *testing.T) {
	s, g := startService(t), newGuest(t, 2)
	out := g.enroll(s, "--no-recovery-key")
	assert.NotContains(t, out, "recovery")
	g.requireNoRecovery(s)

	g.enroll(s) // it was wanted after all
	g.requireEnrolled()
	g.requireRecovery(s)
	key := g.recoveryKey(s, g.volumes[0])
	out = g.enroll(s, "--no-recovery-key") // and then not
	assert.Contains(t, out, "note: killing keyslot 2 of "+g.volumes[0])
	g.requireNoRecovery(s)
	require.Error(t, typed(key, g.volumes[0]))
	s.approve(t, g.machine())
	g.boot("ovmf-uki")
	require.NoError(t, g.bootHere(s).err)
}

// A recovery key is ours: it would be killed with its keyslot, and nothing would
// open the volume any more.
func TestOurRecoveryKeyIsNoPassphrase(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	g.enroll(s)
	key := g.recoveryKey(s, g.volumes[0])
	before := g.headers()
	assert.Contains(t, g.fails(unlock.ExitFailed, key, g.enrollArgs(s)...), "the passphrase opens no keyslot")
	assert.Contains(t, g.fails(unlock.ExitFailed, key, g.leaveArgs()...), "the passphrase opens no keyslot")
	assert.Equal(t, before, g.headers())
}

// Leaving in the middle of an enrolment names the keyslot that it cannot tell to
// be its own.
func TestLeavingNamesAKeyslotThatNobodyCanOpen(t *testing.T) {
	s, g := startService(t), newGuest(t, 1)
	g.kill(s, cut{unlock.StepRecoveryTest, 0, 0})
	assert.Contains(t, g.leaves(), "luksKillSlot "+g.volumes[0]+" 2")
	v := header(t, g.volumes[0])
	assert.Empty(t, v.OwnTokens())
	assert.Len(t, v.Inventory().Keyslots, 2)
	_, err := os.Stat(g.path("unlock.toml"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A volume whose one token is for people is not enrolled: what a boot is released
// for it would open nothing, and be spent.
func TestBootPassesByRecoveryKeys(t *testing.T) {
	s := startService(t)
	g := enrolled(t, s)
	for _, path := range g.volumes {
		require.NoError(t, luks.Cryptsetup{}.RemoveToken(t.Context(), path, header(t, path).OwnTokens()[0].ID))
	}
	r := g.bootHere(s)
	assert.Contains(t, r.lines, "KW-1403")
	assert.Zero(t, g.pcr15(), "nothing was asked")
}
