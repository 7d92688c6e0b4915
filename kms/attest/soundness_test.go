package attest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
)

// The claims of a boot must say all that the PCRs say: whoever approves the
// claims approves the PCRs. Where GRUB's measurements have roles, the state says
// what is left open: the commands, and the environment block.
func TestClaimsDetermineThePCRs(t *testing.T) {
	for _, name := range logNames(t) {
		t.Run(name, func(t *testing.T) {
			log := readLog(t, name)
			assert.Equal(t, replay(t, log), pcrsOf(t, appraise(t, log)))
		})
	}
}

// pcrsOf computes PCRs from claims alone.
func pcrsOf(t testing.TB, boot attest.Boot) exchange.PCRValues {
	t.Helper()
	var values exchange.PCRValues
	for _, c := range inOrder(boot) {
		if c.Name == claims.FirmwareLocality {
			values[0][31] = c.Value[0] - '0'
			continue
		}
		pcr, digests := eventsOf(t, c)
		for _, digest := range digests {
			value, _ := values.Value(pcr)
			values.Set(pcr, exchange.Extend(value, digest))
		}
	}
	return values
}

// inOrder lists the claims that stand for digests, those of one PCR in the order
// of measuring: GRUB's files are the machine's, but the kernel among them.
func inOrder(boot attest.Boot) []claims.Claim {
	environments := boot.State.Values(claims.LoaderEnvironment)
	var list, kernel, initrds []claims.Claim
	for c := range boot.Measurement.All() {
		switch c.Name {
		case claims.LoaderFinding, claims.LoaderCommandLine:
		case claims.LoaderKernel:
			kernel = append(kernel, c)
		default:
			list = append(list, c)
		}
	}
	for c := range boot.Platform.All() {
		switch c.Name {
		case claims.LoaderVariable:
		case claims.LoaderInitrd:
			initrds = append(initrds, c)
		case claims.LoaderEnvironment:
			list = append(list, claims.Claim{Name: claims.LoaderFile, Value: environments[0]})
			environments = environments[1:]
		default:
			list = append(list, c)
		}
	}
	for c := range boot.State.All() {
		if c.Name == claims.LoaderCommand || c.Name == claims.Unexplained {
			list = append(list, c)
		}
	}
	return slices.Concat(list, kernel, initrds)
}

// eventsOf returns the PCR of a claim and the digests it stands for.
func eventsOf(t testing.TB, c claims.Claim) (uint, [][32]byte) {
	t.Helper()
	switch c.Name {
	case claims.Separator:
		pcr, value := splitPCR(t, c.Value)
		raw, err := hex.DecodeString(value)
		require.NoError(t, err)
		return pcr, [][32]byte{sha256.Sum256(raw)}
	case claims.Action:
		pcr, value := splitPCR(t, c.Value)
		return pcr, [][32]byte{sha256.Sum256([]byte(value))}
	case claims.Unexplained:
		pcr, value := splitPCR(t, c.Value)
		return pcr, [][32]byte{digestFromHex(t, value)}
	case claims.SecureBoot:
		value := map[string]string{"enabled": "\x01", "disabled": "\x00"}[c.Value]
		return 7, [][32]byte{sha256.Sum256([]byte(efiVariable(globalVendor, "SecureBoot", value)))}
	case claims.StubCommandLine:
		return 12, [][32]byte{digestFromHex(t, claims.CommandLineDigest(c.Value))}
	}
	if section, ok := strings.CutPrefix(c.Name, claims.UKIPrefix); ok {
		return 11, [][32]byte{sha256.Sum256([]byte("." + section + "\x00")), digestFromHex(t, c.Value)}
	}
	pcr, ok := map[string]uint{
		claims.FirmwareCRTM: 0, claims.FirmwareBlob: 0, claims.BootVariable: 1, claims.BootEntry: 1,
		claims.PlatformTable: 1, claims.BootApplication: 4, claims.DiskLayout: 5, claims.SecureBootPK: 7,
		claims.SecureBootKEK: 7, claims.SecureBootDB: 7, claims.SecureBootDBX: 7, claims.SecureBootAuthority: 7,
		claims.LoaderCommand: 8, claims.LoaderFile: 9, claims.LoaderKernel: 9, claims.LoaderInitrd: 9, claims.KernelCommandLine: 9, claims.KernelInitrd: 9,
		claims.StubParameter: 12, claims.StubExtension: 13, claims.ShimMOK: 14,
	}[c.Name]
	require.True(t, ok, c.Name)
	return pcr, [][32]byte{digestFromHex(t, c.Value[len(c.Value)-64:])}
}

func splitPCR(t testing.TB, value string) (uint, string) {
	t.Helper()
	number, rest, _ := strings.Cut(value, " ")
	pcr, err := strconv.ParseUint(number, 10, 4)
	require.NoError(t, err)
	return uint(pcr), rest
}

func digestFromHex(t testing.TB, digits string) [32]byte {
	t.Helper()
	raw, err := hex.DecodeString(digits)
	require.NoError(t, err)
	require.Len(t, raw, 32)
	return [32]byte(raw)
}

const (
	globalVendor   = "\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c"
	securityVendor = "\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f"
)

// efiVariable writes a UEFI_VARIABLE_DATA.
func efiVariable(vendor, name, data string) string {
	length := func(n int) string { return string([]byte{byte(n), byte(n >> 8)}) + "\x00\x00\x00\x00\x00\x00" }
	return vendor + length(len(name)) + length(len(data)) + wide(name) + data
}

func wide(text string) string {
	var b strings.Builder
	for _, unit := range utf16.Encode([]rune(text)) {
		b.WriteString(string([]byte{byte(unit), byte(unit >> 8)}))
	}
	return b.String()
}
