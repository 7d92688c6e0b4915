//go:build integration

package luks_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

const installer = "installer"

// formatted returns a plain file that cryptsetup formatted, with installer's
// passphrase in keyslot 0, and its volume key.
func formatted(t *testing.T) (path string, volumeKey []byte) {
	return formattedWith(t, 64, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")
}

func formattedWith(t *testing.T, keySize int, options ...string) (path string, volumeKey []byte) {
	dir := t.TempDir()
	path = filepath.Join(dir, "volume")
	keyFile := filepath.Join(dir, "volume-key")
	volumeKey = make([]byte, keySize)
	rand.Read(volumeKey)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.NoError(t, os.Truncate(path, 32<<20))
	require.NoError(t, os.WriteFile(keyFile, volumeKey, 0o600))
	arguments := append([]string{"luksFormat", "-q", "--type", "luks2",
		"--volume-key-file", keyFile, "--key-size", fmt.Sprint(8 * keySize), "--key-file", "-"}, options...)
	cryptsetup(t, installer, append(arguments, path)...)
	return path, volumeKey
}

func cryptsetup(t *testing.T, stdin string, arguments ...string) string {
	t.Helper()
	cmd := exec.Command("cryptsetup", arguments...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%v: %s", arguments, out)
	return string(out)
}

func identity(t *testing.T, path string) string {
	sum, err := readVolume(t, path).Identity().Digest()
	require.NoError(t, err)
	return hex.EncodeToString(sum[:])
}

// The order in which enrolment writes to a disk, and what each step leaves to an
// interrupted run.
func TestEnrolmentSteps(t *testing.T) {
	path, volumeKey := formatted(t)
	before := identity(t, path)
	ctx := context.Background()
	program := luks.Cryptsetup{}
	pending, first := key("pending-secret"), key(installer)

	v := readVolume(t, path)
	slot, err := v.FreeSlot()
	require.NoError(t, err)
	number, err := v.FreeToken()
	require.NoError(t, err)
	require.NoError(t, program.ImportToken(ctx, path, number, luks.Token{Volume: "vol-a", Resume: "res-a", Version: 1, Slot: slot}))
	v = readVolume(t, path)
	assert.Len(t, v.Inventory().Keyslots, 1)
	require.Len(t, v.OwnTokens(), 1)
	assert.Empty(t, v.OwnTokens()[0].Keyslots)

	require.NoError(t, program.AddKeyslot(ctx, path, first, pending, slot))
	v = readVolume(t, path)
	assert.Len(t, v.Inventory().Keyslots, 2)
	assert.Empty(t, v.OwnTokens()[0].Keyslots)

	require.NoError(t, program.TestKey(ctx, path, slot, pending))
	require.NoError(t, program.AssignToken(ctx, path, v.OwnTokens()[0], slot))
	v = readVolume(t, path)
	assert.Equal(t, []int{slot}, v.OwnSlots("vol-a"))
	opened, err := v.Unseal(slot, pending)
	require.NoError(t, err)
	assert.Equal(t, volumeKey, opened.Expose())
	assert.Equal(t, before, identity(t, path), "adding a keyslot and a token does not move the identity")

	require.NoError(t, program.KillSlot(ctx, path, slot, first))
	v = readVolume(t, path)
	require.Len(t, v.OwnTokens(), 1, "the token outlives its keyslot")
	assert.Empty(t, v.OwnTokens()[0].Keyslots)
	require.NoError(t, program.RemoveToken(ctx, path, number))
	assert.Empty(t, readVolume(t, path).Inventory().Tokens)
	assert.Equal(t, before, identity(t, path))
}

func TestWrongKeys(t *testing.T) {
	path, _ := formatted(t)
	ctx := context.Background()
	program := luks.Cryptsetup{}
	wrong, right := key("canary-wrong"), key(installer)
	require.NoError(t, program.AddKeyslot(ctx, path, right, key("second"), 1))
	untouched, err := os.ReadFile(path)
	require.NoError(t, err)

	for name, err := range map[string]error{
		"add":                   program.AddKeyslot(ctx, path, wrong, key("x"), 2),
		"kill":                  program.KillSlot(ctx, path, 1, wrong),
		"kill with its own key": program.KillSlot(ctx, path, 1, key("second")),
		"test":                  program.TestKey(ctx, path, 1, wrong),
		"test another slot":     program.TestKey(ctx, path, 0, key("second")),
	} {
		require.ErrorIs(t, err, luks.ErrWrongKey, name)
		assert.NotContains(t, err.Error(), "canary", name)
	}
	for name, err := range map[string]error{
		"slot taken":   program.AddKeyslot(ctx, path, right, key("x"), 1),
		"no such slot": program.KillSlot(ctx, path, 9, right),
		"test no slot": program.TestKey(ctx, path, 9, right),
		"token taken":  errorOfSecondImport(ctx, program, path),
		"no token":     program.RemoveToken(ctx, path, 9),
		"no device":    program.TestKey(ctx, path+"x", 0, right),
		"no volume":    program.TestKey(ctx, "/dev/null", 0, right),
	} {
		var failed *luks.CommandError
		require.ErrorAs(t, err, &failed, name)
		assert.NotErrorIs(t, err, luks.ErrWrongKey, name)
		assert.NotEmpty(t, failed.Detail, name)
	}
	require.NoError(t, program.RemoveToken(ctx, path, 4))
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(untouched[32<<10:], after[32<<10:]), "no keyslot was touched")
}

// A keyslot that is to be ignored opens by its number alone.
func TestKeyslotsOfEveryPriority(t *testing.T) {
	path, _ := formatted(t)
	ctx := context.Background()
	program := luks.Cryptsetup{}
	first := luks.SlotKey{Slot: 0, Key: key(installer)}
	for priority := range 3 {
		require.NoError(t, program.SetPriority(ctx, path, 0, priority))
		assert.Equal(t, priority, readVolume(t, path).Inventory().Keyslots[0].Priority)
		require.NoError(t, program.AddKeyslotBy(ctx, path, first, key("second"), 1))
		require.NoError(t, program.KillSlot(ctx, path, 1, first.Key))
	}
	require.NoError(t, program.SetPriority(ctx, path, 0, 0))
	require.Error(t, program.AddKeyslot(ctx, path, first.Key, key("second"), 1))
	require.ErrorIs(t, program.AddKeyslotBy(ctx, path, luks.SlotKey{Slot: 0, Key: key("wrong")}, key("second"), 1), luks.ErrWrongKey)
	require.Error(t, program.SetPriority(ctx, path, 0, 3))
	require.Error(t, program.SetPriority(ctx, path, 0, -1))
	require.Error(t, program.SetPriority(ctx, path, 32, 1))
	require.Error(t, program.AddKeyslotBy(ctx, path, luks.SlotKey{Slot: 32, Key: first.Key}, key("second"), 1))
}

func errorOfSecondImport(ctx context.Context, program luks.Cryptsetup, path string) error {
	token := luks.Token{Volume: "v", Resume: "r", Version: 1, Slot: 3}
	if err := program.ImportToken(ctx, path, 4, token); err != nil {
		return fmt.Errorf("first import: %s", err)
	}
	return program.ImportToken(ctx, path, 4, token)
}

// An empty key would let luksKillSlot go ahead unasked.
func TestEmptyKeysAreRefused(t *testing.T) {
	path, _ := formatted(t)
	ctx := context.Background()
	program := luks.Cryptsetup{}
	require.Error(t, program.KillSlot(ctx, path, 0, key("")))
	require.Error(t, program.AddKeyslot(ctx, path, key(installer), key(""), 1))
	require.Error(t, program.AddKeyslot(ctx, path, key(installer), key("x"), 32))
	require.NoError(t, program.TestKey(ctx, path, 0, key(installer)))
	assert.Len(t, readVolume(t, path).Inventory().Keyslots, 1)
}

func TestKeysOfAnyBytes(t *testing.T) {
	path, _ := formatted(t)
	ctx := context.Background()
	program := luks.Cryptsetup{}
	binary := key("\x00\n\xff\n\x00 trailing newline\n")
	require.NoError(t, program.AddKeyslot(ctx, path, key(installer), binary, 1))
	require.NoError(t, program.TestKey(ctx, path, 1, binary))
	_, err := readVolume(t, path).Unseal(1, binary)
	require.NoError(t, err)
}

func TestCancelledRun(t *testing.T) {
	path, _ := formatted(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
	defer cancel()
	err := luks.Cryptsetup{}.TestKey(ctx, path, 0, key(installer))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	err = luks.Cryptsetup{Path: "/nonexistent/cryptsetup"}.TestKey(context.Background(), path, 0, key(installer))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestKilledRun(t *testing.T) {
	program := filepath.Join(t.TempDir(), "cryptsetup")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\nkill -9 $$\n"), 0o700))
	err := luks.Cryptsetup{Path: program}.TestKey(t.Context(), "disk", 0, key(installer))
	require.ErrorIs(t, err, luks.ErrKilled)
	assert.ErrorContains(t, err, "on disk: it was killed")
}

// The volume keys that cryptsetup was told to put into its keyslots come out of
// every kind of keyslot that is opened here.
func TestUnsealWhatCryptsetupSealed(t *testing.T) {
	for name, slot := range map[string][]string{
		"pbkdf2 sha256": {"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--hash", "sha256"},
		"pbkdf2 sha512": {"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1001", "--hash", "sha512"},
		"smaller area cipher": {"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--keyslot-cipher", "aes-xts-plain64",
			"--keyslot-key-size", "256"},
	} {
		for _, keySize := range []int{32, 64} {
			for _, sectorSize := range []string{"512", "4096"} {
				path, volumeKey := formattedWith(t, keySize, append(slot, "--sector-size", sectorSize)...)
				v := readVolume(t, path)
				opened, err := v.Unseal(0, key(installer))
				require.NoError(t, err, name)
				assert.Equal(t, volumeKey, opened.Expose(), name)
				_, err = v.Unseal(0, key("wrong"))
				require.ErrorIs(t, err, luks.ErrWrongKey, name)
			}
		}
	}
}

// What cryptsetup opens and luks.go does not is said so, not taken for a wrong key.
func TestUnsealOfWhatOnlyCryptsetupOpens(t *testing.T) {
	pbkdf := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	for want, options := range map[string][]string{
		"argon2id costs more":   {"--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "64"},
		`hash "sha1" of pbkdf2`: append([]string{"--hash", "sha1"}, pbkdf...),
		`area cipher "aes-cbc`:  append([]string{"--keyslot-cipher", "aes-cbc-plain64", "--keyslot-key-size", "256"}, pbkdf...),
	} {
		path, volumeKey := formatted(t)
		keyFile := filepath.Join(t.TempDir(), "volume-key")
		require.NoError(t, os.WriteFile(keyFile, volumeKey, 0o600))
		cryptsetup(t, "person", append(append([]string{"luksAddKey", "-q", "--volume-key-file", keyFile}, options...), path, "-")...)
		require.NoError(t, luks.Cryptsetup{}.TestKey(t.Context(), path, 1, key("person")))
		v := readVolume(t, path)
		_, err := v.Unseal(1, key("person"))
		require.ErrorContains(t, err, want)
		assert.NotErrorIs(t, err, luks.ErrWrongKey)
		_, err = v.Unseal(0, key(installer))
		require.NoError(t, err, "the other keyslot opens")
	}
}

// Each makes another volume of it, and each moves the identity.
func TestAttack11IdentityFollowsCryptsetup(t *testing.T) {
	path, _ := formatted(t)
	before := identity(t, path)
	cryptsetup(t, "YES\n", "luksUUID", "-q", "--uuid", "8c3a1f40-5f6e-4a57-9c5f-0d9d3c2b1aff", path)
	renamed := identity(t, path)
	assert.NotEqual(t, before, renamed)
	cryptsetup(t, "", "config", "--label", "data", path)
	assert.Equal(t, renamed, identity(t, path))

	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	cryptsetup(t, installer, "reencrypt", "-q", "--init-only", "--resilience", "checksum",
		"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", path)
	h, err := luks.ReadDevice(f)
	require.NoError(t, err)
	_, err = h.Validate()
	requireRefusal(t, err, luks.CodeRequirements)
	cryptsetup(t, installer, "reencrypt", "-q", "--resume-only", "--force-offline-reencrypt", "--key-file", "-", path)
	assert.NotEqual(t, renamed, identity(t, path), "a new volume key")

	other, _ := formatted(t)
	assert.NotEqual(t, before, identity(t, other))
	assert.NotEqual(t, readVolume(t, path).VolumeKeyDigest(), readVolume(t, other).VolumeKeyDigest())
}

// cryptsetup repairs a torn first copy; until then the second one is taken.
func TestTornHeaderStillOpens(t *testing.T) {
	path, volumeKey := formatted(t)
	before := identity(t, path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt(make([]byte, 512), 4096)
	require.NoError(t, err)
	v := readVolume(t, path)
	assert.Equal(t, luks.CopiesSecondaryOnly, v.Header().Copies)
	assert.Equal(t, before, identity(t, path))
	opened, err := v.Unseal(0, key(installer))
	require.NoError(t, err)
	assert.Equal(t, volumeKey, opened.Expose())

	require.NoError(t, luks.Cryptsetup{}.TestKey(context.Background(), path, 0, key(installer)))
	assert.Equal(t, luks.CopiesBoth, readVolume(t, path).Header().Copies)
}
