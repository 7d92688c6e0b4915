//go:build integration

package tpm_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/secret"
	"keywright.dev/test/swtpm"
)

func TestSealedOpensHereAlone(t *testing.T) {
	for _, pcrs := range [][]uint{nil, {7}, {0, 1, 2, 3, 4, 5, 6, 23}} {
		emulated := swtpm.New(t)
		device, data := tpm.New(emulated), newSecret(t)
		sealed, err := device.Seal(data, pcrs)
		require.NoError(t, err)
		got, err := device.Unseal(sealed)
		require.NoError(t, err)
		require.True(t, got.Equal(data))
		require.NoError(t, emulated.Reset())
		got, err = device.Unseal(sealed)
		require.NoError(t, err)
		require.True(t, got.Equal(data))

		_, err = tpm.New(swtpm.New(t)).Unseal(sealed)
		require.ErrorIs(t, err, tpm.ErrOtherMachine)
		require.NoError(t, clearTPM(emulated))
		_, err = device.Unseal(sealed)
		require.ErrorIs(t, err, tpm.ErrOtherMachine)
		require.ErrorContains(t, err, "or it was cleared")
		require.Empty(t, loaded(t, emulated))
	}
}

func TestSealedToPCRs(t *testing.T) {
	emulated := swtpm.New(t)
	device, data := tpm.New(emulated), newSecret(t)
	sealed, err := device.Seal(data, []uint{4, 7})
	require.NoError(t, err)
	require.NoError(t, emulated.Extend(8, [32]byte{1}))
	_, err = device.Unseal(sealed)
	require.NoError(t, err, "another PCR")
	require.NoError(t, emulated.Extend(7, [32]byte{1}))
	_, err = device.Unseal(sealed)
	require.ErrorIs(t, err, tpm.ErrPCRs)
	require.ErrorContains(t, err, "[4 7]")
	forged := sealed
	forged.PCRs = []uint{4}
	_, err = device.Unseal(forged)
	require.ErrorIs(t, err, tpm.ErrPCRs, "the object says which PCRs")
	require.Empty(t, loaded(t, emulated))
}

func TestSealedIsReadAgainWherePCRsMove(t *testing.T) {
	emulated := swtpm.New(t)
	wire := &interposer{TPM: emulated}
	device := tpm.New(wire)
	sealed, err := device.Seal(newSecret(t), []uint{7})
	require.NoError(t, err)
	extensions := 2
	wire.forge = func(command []byte) []byte {
		if commandCode(command) == tpm2.TPMCCUnseal && extensions > 0 {
			extensions--
			require.NoError(t, emulated.Extend(10, [32]byte{1}))
		}
		return nil
	}
	_, err = device.Unseal(sealed)
	require.NoError(t, err)
	require.Zero(t, extensions)
}

func TestSealedUnderThePersistentSRK(t *testing.T) {
	emulated := swtpm.New(t)
	wire := &interposer{TPM: emulated}
	device, data := tpm.New(wire), newSecret(t)
	before, err := device.Seal(data, nil)
	require.NoError(t, err)
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: hierarchy(tpm2.TPMRHOwner), InPublic: tpm2.New2B(tpm2.ECCSRKTemplate),
	}.Execute(emulated)
	require.NoError(t, err)
	evict(t, emulated, rsp.ObjectHandle, rsp.Name)
	bareFlushed(t, emulated, rsp.ObjectHandle)

	// Who keeps the owner's password to himself has made the key for us.
	require.NoError(t, changeOwnerAuth(emulated, "", "password"))
	wire.wire = nil
	after, err := device.Seal(data, nil)
	require.NoError(t, err)
	assert.Equal(t, before.Parent, after.Parent)
	for _, sealed := range []tpm.Sealed{before, after} {
		got, err := device.Unseal(sealed)
		require.NoError(t, err)
		require.True(t, got.Equal(data))
	}
	assert.False(t, wire.saw(tpm2.TPMCCCreatePrimary))
	require.NoError(t, changeOwnerAuth(emulated, "password", ""))

	// What an owner leaves there of another template is passed by.
	evict(t, emulated, 0x81000001, rsp.Name)
	other := tpm2.ECCSRKTemplate
	other.ObjectAttributes.NoDA = false
	foreign, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy(tpm2.TPMRHOwner), InPublic: tpm2.New2B(other)}.Execute(emulated)
	require.NoError(t, err)
	evict(t, emulated, foreign.ObjectHandle, foreign.Name)
	bareFlushed(t, emulated, foreign.ObjectHandle)
	again, err := device.Seal(data, nil)
	require.NoError(t, err)
	assert.Equal(t, before.Parent, again.Parent)
	require.Empty(t, loaded(t, emulated))
}

func TestSealingSaysWhatToDo(t *testing.T) {
	emulated := swtpm.New(t)
	require.NoError(t, changeOwnerAuth(emulated, "", "password"))
	_, err := tpm.New(emulated).Seal(newSecret(t), nil)
	require.ErrorContains(t, err, "the owner hierarchy has a password")

	device := tpm.New(swtpm.New(t))
	for _, pcrs := range [][]uint{{24}, {7, 4}, {7, 7}, {0, 1, 2, 3, 4, 5, 6, 7, 8}} {
		_, err := device.Seal(newSecret(t), pcrs)
		require.ErrorContains(t, err, "PCR")
	}
	_, err = device.Seal(secret.Bytes{}, nil)
	require.ErrorContains(t, err, "0 bytes")
	_, err = device.Seal(secret.New(make([]byte, 129)), nil)
	require.ErrorContains(t, err, "129 bytes")
}

func TestSealedAreasThatWereAltered(t *testing.T) {
	emulated := swtpm.New(t)
	device := tpm.New(emulated)
	sealed, err := device.Seal(newSecret(t), []uint{7})
	require.NoError(t, err)
	for name, alter := range map[string]func(*tpm.Sealed){
		"private":  func(s *tpm.Sealed) { s.Private[40] ^= 1 },
		"cut":      func(s *tpm.Sealed) { s.Private = s.Private[:20] },
		"policy":   func(s *tpm.Sealed) { s.Public[12] ^= 1 },
		"unique":   func(s *tpm.Sealed) { s.Public[len(s.Public)-1] ^= 1 },
		"nothing":  func(s *tpm.Sealed) { *s = tpm.Sealed{} },
		"no PCRs":  func(s *tpm.Sealed) { s.PCRs = nil },
		"password": func(s *tpm.Sealed) { s.Public[7] ^= 0x40 }, // userWithAuth
	} {
		altered := tpm.Sealed{
			Parent: sealed.Parent, PCRs: sealed.PCRs,
			Public: bytes.Clone(sealed.Public), Private: bytes.Clone(sealed.Private),
		}
		alter(&altered)
		_, err := device.Unseal(altered)
		assert.ErrorIs(t, err, tpm.ErrMalformed, name)
	}
	require.Empty(t, loaded(t, emulated))
}

// Somebody else's guesses at a password of this TPM must not stop a service.
func TestSealedOpensWhileTheTPMIsLocked(t *testing.T) {
	emulated := swtpm.New(t)
	device, data := tpm.New(emulated), newSecret(t)
	sealed, err := device.Seal(data, nil)
	require.NoError(t, err)
	lock(t, emulated)
	got, err := device.Unseal(sealed)
	require.NoError(t, err)
	require.True(t, got.Equal(data))
}

// lock guesses at the password of a key until the TPM takes no more guesses.
func lock(t *testing.T, emulated transport.TPM) {
	t.Helper()
	template := tpm2.ECCSRKTemplate
	template.ObjectAttributes.NoDA = false
	key, err := tpm2.CreatePrimary{
		PrimaryHandle: hierarchy(tpm2.TPMRHOwner), InPublic: tpm2.New2B(template),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: []byte("password")},
		}},
	}.Execute(emulated)
	require.NoError(t, err)
	defer bareFlushed(t, emulated, key.ObjectHandle)
	for range 100 {
		_, err := tpm2.Create{
			ParentHandle: tpm2.AuthHandle{Handle: key.ObjectHandle, Name: key.Name, Auth: tpm2.PasswordAuth([]byte("guess"))},
			InPublic:     tpm2.New2B(tpm2.ECCSRKTemplate),
		}.Execute(emulated)
		require.Error(t, err)
		if errors.Is(err, tpm2.TPMRCLockout) {
			return
		}
	}
	t.Fatal("the TPM never locks")
}

func changeOwnerAuth(emulated transport.TPM, before, after string) error {
	auth := hierarchy(tpm2.TPMRHOwner)
	auth.Auth = tpm2.PasswordAuth([]byte(before))
	_, err := tpm2.HierarchyChangeAuth{AuthHandle: auth, NewAuth: tpm2.TPM2BAuth{Buffer: []byte(after)}}.Execute(emulated)
	return err
}

func TestAttack13InterposerSeesNothingSealed(t *testing.T) {
	for _, pcrs := range [][]uint{nil, {7}} {
		wire := &interposer{TPM: swtpm.New(t)}
		device, data := tpm.New(wire), newSecret(t)
		sealed, err := device.Seal(data, pcrs)
		require.NoError(t, err)
		_, err = device.Unseal(sealed)
		require.NoError(t, err)
		require.True(t, wire.saw(tpm2.TPMCCCreate))
		require.True(t, wire.saw(tpm2.TPMCCUnseal))
		for _, packet := range wire.wire {
			require.False(t, bytes.Contains(packet, data.Expose()), "the secret crossed the wire")
		}
	}
}

// An interposer may stand in for the TPM, give out another object, or answer with
// bytes of its own: what it cannot have is a key that we take for ours.
func TestAttack13InterposerUnsealsItsOwn(t *testing.T) {
	for _, pcrs := range [][]uint{nil, {7}} {
		emulated := swtpm.New(t)
		wire := &interposer{TPM: emulated}
		device := tpm.New(wire)
		sealed, err := device.Seal(newSecret(t), pcrs)
		require.NoError(t, err)
		other, err := device.Seal(newSecret(t), pcrs)
		require.NoError(t, err)

		wire.forge = func(command []byte) []byte {
			if commandCode(command) != tpm2.TPMCCLoad {
				return nil
			}
			at := bytes.Index(command, sealed.Private)
			response, err := emulated.Send(slices.Concat(command[:at], other.Private, []byte{0, byte(len(other.Public))}, other.Public))
			require.NoError(t, err)
			return response
		}
		_, err = device.Unseal(sealed)
		require.Error(t, err, "another object")

		wire.forge = nil
		wire.alter = func(command, response []byte) {
			if commandCode(command) == tpm2.TPMCCUnseal {
				response[20] ^= 1
			}
		}
		_, err = device.Unseal(sealed)
		require.ErrorContains(t, err, "HMAC")
		require.Empty(t, loaded(t, emulated))
	}
}

func TestAttack13InterposerSealsToABootOfItsChoice(t *testing.T) {
	wire := &interposer{TPM: swtpm.New(t)}
	wire.alter = func(command, response []byte) {
		if commandCode(command) == tpm2.TPMCCPCRRead {
			forge(command, response)
		}
	}
	_, err := tpm.New(wire).Seal(newSecret(t), []uint{7})
	require.ErrorContains(t, err, "HMAC")
}

func evict(t *testing.T, emulated transport.TPM, handle tpm2.TPMHandle, name tpm2.TPM2BName) {
	t.Helper()
	_, err := tpm2.EvictControl{
		Auth:             hierarchy(tpm2.TPMRHOwner),
		ObjectHandle:     tpm2.NamedHandle{Handle: handle, Name: name},
		PersistentHandle: 0x81000001,
	}.Execute(emulated)
	require.NoError(t, err)
}

func bareFlushed(t *testing.T, emulated transport.TPM, handle tpm2.TPMHandle) {
	t.Helper()
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(emulated)
	require.NoError(t, err)
}
