//go:build integration

package tpm_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/swtpm"
)

func TestCertificateBelongsToTheEK(t *testing.T) {
	ca, err := swtpm.NewCA(t.TempDir())
	require.NoError(t, err)
	device := tpm.New(swtpm.NewCertified(t, ca))
	for _, template := range []exchange.EKTemplate{exchange.EKRSA2048, exchange.EKP384} {
		id := identify(t, device, template)
		der, err := id.Certificate()
		require.NoError(t, err)
		certificate, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		assert.Equal(t, id.EK().Key, certificate.PublicKey, template)
		require.NoError(t, id.Close())
	}
	none, err := identify(t, device, exchange.EKP256).Certificate()
	require.NoError(t, err)
	assert.Nil(t, none)
}

func TestChooseTemplatePrefersACertificate(t *testing.T) {
	t.Run("without certificates", func(t *testing.T) {
		template, err := tpm.New(swtpm.New(t)).ChooseTemplate()
		require.NoError(t, err)
		require.Equal(t, exchange.EKP384, template)
	})
	t.Run("with one for RSA", func(t *testing.T) {
		emulated := swtpm.New(t)
		defineNV(t, emulated, tpm2.TPMHandle(exchange.EKRSA2048.CertificateIndex()), []byte{0x30, 0x01, 0x00, 0xff})
		device := tpm.New(emulated)
		template, err := device.ChooseTemplate()
		require.NoError(t, err)
		require.Equal(t, exchange.EKRSA2048, template)
		der, err := device.Certificate(template)
		require.NoError(t, err)
		require.Equal(t, []byte{0x30, 0x01, 0x00}, der, "what fills the index up is no certificate")
	})
}

func TestChooseTemplateKnowsWhatTheTPMSupports(t *testing.T) {
	curve := refusal(tpm2.TPMRCCurve)
	for want, missing := range map[exchange.EKTemplate][]string{
		exchange.EKP256:    {"\x00\x23\x00\x06\x01\x00"},             // ECC with AES-256
		exchange.EKRSA2048: {"\x00\x23"},                             // ECC
		"":                 {"\x00\x23", "\x00\x01\x00\x06\x00\x80"}, // ECC, RSA with AES-128
	} {
		wire := &interposer{TPM: swtpm.New(t)}
		wire.forge = func(command []byte) []byte {
			for _, parms := range missing {
				if commandCode(command) == tpm2.TPMCCTestParms && strings.HasPrefix(string(command[10:]), parms) {
					return curve
				}
			}
			return nil
		}
		got, err := tpm.New(wire).ChooseTemplate()
		assert.Equal(t, want, got)
		assert.Equal(t, want == "", err != nil)
	}
}

func TestCertificateRefusesWhatIsNone(t *testing.T) {
	emulated := swtpm.New(t)
	defineNV(t, emulated, tpm2.TPMHandle(exchange.EKP256.CertificateIndex()), []byte("no certificate"))
	_, err := tpm.New(emulated).Certificate(exchange.EKP256)
	require.ErrorContains(t, err, "it holds no certificate")
}

func TestCredentialOfAnotherTPM(t *testing.T) {
	for _, template := range exchange.EKTemplates() {
		here := identify(t, tpm.New(swtpm.New(t)), template)
		there := identify(t, tpm.New(swtpm.New(t)), template)
		require.NotEqual(t, here.EK().MachineID(), there.EK().MachineID())
		require.NotEqual(t, here.AK().Name, there.AK().Name)
		blob, encrypted, err := exchange.MakeCredential(rand.Reader, there.EK(), here.AK(), newSecret(t))
		require.NoError(t, err)
		_, err = here.ActivateCredential(blob, encrypted)
		require.Error(t, err, template)
	}
}

func TestIdentitySurvives(t *testing.T) {
	emulated := swtpm.New(t)
	device := tpm.New(emulated)
	id, err := device.Identity(exchange.EKP384, "")
	require.NoError(t, err)
	ek, ak := id.EK(), id.AK()
	require.NoError(t, id.Close())

	for name, event := range map[string]func() error{
		"reset":         emulated.Reset,
		"orderly reset": func() error { return after(emulated.Shutdown, emulated.Reset) },
		"kill -9":       emulated.Restart,
		"clear":         func() error { return clearTPM(emulated) },
	} {
		require.NoError(t, event(), name)
		id, err := device.Identity(exchange.EKP384, ek.MachineID())
		require.NoError(t, err, name)
		assert.Equal(t, ak, id.AK(), name)
		require.NoError(t, id.Close())
	}
}

func TestClockOrdersBoots(t *testing.T) {
	emulated := swtpm.New(t)
	device := tpm.New(emulated)
	first := clock(t, device)

	require.NoError(t, after(emulated.Shutdown, emulated.Reset))
	second := clock(t, device)
	assert.Equal(t, first.ResetCount+1, second.ResetCount)
	assert.True(t, second.Safe)

	require.NoError(t, emulated.Restart())
	third := clock(t, device)
	assert.Greater(t, third.ResetCount, second.ResetCount)
	assert.False(t, third.Safe)

	require.NoError(t, clearTPM(emulated))
	assert.Zero(t, clock(t, device).ResetCount, "a clear is a regression that the service must see")
}

func TestExtendPCR15(t *testing.T) {
	emulated := swtpm.New(t)
	device := tpm.New(emulated)
	id := identify(t, device, exchange.EKP256)
	value, err := id.PCR15()
	require.NoError(t, err)
	require.Zero(t, value)

	require.NoError(t, id.ExtendPCR15(exchange.ReleaseEvent([]byte("release"))))
	want := exchange.Extend([32]byte{}, exchange.ReleaseEvent([]byte("release")))
	value, err = id.PCR15()
	require.NoError(t, err)
	require.Equal(t, want, value)

	require.NoError(t, device.ExtendPCR15(exchange.NoReleaseEvent()))
	value, err = device.PCR15()
	require.NoError(t, err)
	require.Equal(t, exchange.Extend(want, exchange.NoReleaseEvent()), value)

	quote, err := id.Quote([32]byte{})
	require.NoError(t, err)
	quoted, _ := quote.PCRs.Value(15)
	require.Equal(t, value, quoted)
}

func TestNothingStaysLoaded(t *testing.T) {
	emulated := swtpm.New(t)
	device := tpm.New(emulated)
	for _, template := range exchange.EKTemplates() {
		id, err := device.Identity(template, "")
		require.NoError(t, err)
		require.Len(t, loaded(t, emulated), 2, "one AK, one session")
		_, err = id.ActivateCredential(nil, nil)
		require.Error(t, err)
		require.Len(t, loaded(t, emulated), 2)
		require.NoError(t, id.Close())
		require.Empty(t, loaded(t, emulated))
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	t.Run("hierarchy password", func(t *testing.T) {
		emulated := swtpm.New(t)
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: hierarchy(tpm2.TPMRHEndorsement),
			NewAuth:    tpm2.TPM2BAuth{Buffer: []byte("password")},
		}.Execute(emulated)
		require.NoError(t, err)
		_, err = tpm.New(emulated).Identity(exchange.EKP256, "")
		require.ErrorContains(t, err, "the endorsement hierarchy has a password")
	})
	t.Run("hierarchy disabled", func(t *testing.T) {
		emulated := swtpm.New(t)
		disableEndorsement(t, emulated)
		_, err := tpm.New(emulated).Identity(exchange.EKP256, "")
		require.ErrorContains(t, err, "the endorsement hierarchy is disabled")
	})
	t.Run("full", func(t *testing.T) {
		emulated := swtpm.New(t)
		device := tpm.New(emulated)
		for range 3 {
			template, err := exchange.AKTemplate()
			require.NoError(t, err)
			_, err = tpm2.CreatePrimary{
				PrimaryHandle: hierarchy(tpm2.TPMRHEndorsement), InPublic: tpm2.New2B(template),
			}.Execute(emulated)
			require.NoError(t, err)
		}
		_, err := device.Identity(exchange.EKP256, "")
		require.ErrorContains(t, err, "another program fills the TPM's memory")
	})
}

func hierarchy(handle tpm2.TPMHandle) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: handle, Name: tpm2.HandleName(handle), Auth: tpm2.PasswordAuth(nil)}
}

// disableEndorsement sends TPM2_HierarchyControl, which go-tpm lacks.
func disableEndorsement(t *testing.T, emulated transport.TPM) {
	t.Helper()
	response, err := emulated.Send([]byte{
		0x80, 0x02, 0, 0, 0, 32, 0, 0, 0x01, 0x21, // sessions, size, code
		0x40, 0, 0, 0x0c, // platform hierarchy
		0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0, // empty password
		0x40, 0, 0, 0x0b, 0, // endorsement hierarchy: no
	})
	require.NoError(t, err)
	require.Zero(t, binary.BigEndian.Uint32(response[6:]), "response code")
}

func clearTPM(t transport.TPM) error {
	_, err := tpm2.Clear{AuthHandle: hierarchy(tpm2.TPMRHLockout)}.Execute(t)
	return err
}

func after(first, second func() error) error {
	if err := first(); err != nil {
		return err
	}
	return second()
}

// clock returns the TPM's time as a quote tells it to the service.
func clock(t *testing.T, device *tpm.Device) tpm2.TPMSClockInfo {
	t.Helper()
	id, err := device.Identity(exchange.EKP256, "")
	require.NoError(t, err)
	defer func() { assert.NoError(t, id.Close()) }()
	quote, err := id.Quote([32]byte{})
	require.NoError(t, err)
	attest, err := tpm2.Unmarshal[tpm2.TPMSAttest](quote.Attest)
	require.NoError(t, err)
	return attest.ClockInfo
}

// defineNV writes data to a new NV index as a manufacturer would.
func defineNV(t *testing.T, emulated transport.TPM, index tpm2.TPMHandle, data []byte) {
	t.Helper()
	public := tpm2.TPMSNVPublic{
		NVIndex: index,
		NameAlg: tpm2.TPMAlgSHA256,
		Attributes: tpm2.TPMANV{
			PPWrite: true, PPRead: true, OwnerRead: true, AuthRead: true, NoDA: true,
			PlatformCreate: true, NT: tpm2.TPMNTOrdinary,
		},
		DataSize: uint16(len(data)),
	}
	_, err := tpm2.NVDefineSpace{AuthHandle: hierarchy(tpm2.TPMRHPlatform), PublicInfo: tpm2.New2B(public)}.Execute(emulated)
	require.NoError(t, err)
	name, err := tpm2.NVName(&public)
	require.NoError(t, err)
	_, err = tpm2.NVWrite{
		AuthHandle: hierarchy(tpm2.TPMRHPlatform),
		NVIndex:    tpm2.NamedHandle{Handle: index, Name: *name},
		Data:       tpm2.TPM2BMaxNVBuffer{Buffer: data},
	}.Execute(emulated)
	require.NoError(t, err)
}
