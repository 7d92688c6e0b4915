package sealed

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/root/local"
)

// specimen is a sealed object in form, which no TPM opens.
func specimen(pcrs ...uint) tpm.Sealed {
	public := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, NoDA: true, UserWithAuth: len(pcrs) == 0, AdminWithPolicy: len(pcrs) > 0,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
			Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: make([]byte, 32)}),
	}
	if len(pcrs) > 0 {
		public.AuthPolicy.Buffer = make([]byte, 32)
	}
	return tpm.Sealed{
		Parent: append([]byte{0, 0x0b}, make([]byte, 32)...), PCRs: pcrs,
		Public: tpm2.Marshal(public), Private: bytes.Repeat([]byte{1}, 160),
	}
}

func TestFormat(t *testing.T) {
	for _, s := range []tpm.Sealed{specimen(), specimen(7), specimen(0, 4, 23)} {
		text := render(s)
		assert.True(t, strings.HasPrefix(text, "keywright-tpm-v1\nsrk 000b"))
		assert.Less(t, len(text), maxFile)
		got, err := parse(text)
		require.NoError(t, err)
		assert.Equal(t, s, got)
	}
	for _, s := range []tpm.Sealed{specimen(24), specimen(7, 4), {}} {
		_, err := parse(render(s))
		require.Error(t, err)
	}
	mixed := specimen(7)
	mixed.PCRs = nil
	_, err := parse(render(mixed))
	require.ErrorIs(t, err, tpm.ErrMalformed)
}

func TestNames(t *testing.T) {
	a, err := nameOf(specimen())
	require.NoError(t, err)
	b, err := nameOf(specimen(7))
	require.NoError(t, err)
	assert.NotEqual(t, a, b)
	assert.Regexp(t, "^tpm:[0-9a-f]{32}$", a)
}

func TestURIs(t *testing.T) {
	for uri, want := range map[string]location{
		"tpm:///a":                            {"/a", "/dev/tpmrm0", nil},
		"tpm:///a?device=/dev/tpm0&pcrs=0,23": {"/a", "/dev/tpm0", []uint{0, 23}},
	} {
		got, err := locate(uri)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	for uri, reason := range map[string]string{
		"tpm:":                            "names no file",
		"tpm:abc":                         "absolute",
		"file:///a":                       "scheme",
		"tpm:///a?pcr=7":                  `unknown key "pcr": known are device, pcrs`,
		"tpm:///a?pcrs=7,4":               "ascending",
		"tpm:///a?pcrs=24":                "0 to 23",
		"tpm:///a?pcrs=sha256:7":          "0 to 23",
		"tpm:///a?pcrs=0,1,2,3,4,5,6,7,8": "at most 8",
	} {
		_, err := locate(uri)
		require.ErrorContains(t, err, reason, uri)
		require.ErrorContains(t, err, example)
	}
}

func FuzzFile(f *testing.F) {
	f.Add(render(specimen()))
	f.Add(render(specimen(4, 7)))
	f.Fuzz(func(t *testing.T, text string) {
		lines, _ := local.CutDigest(text)
		for _, text := range []string{text, local.AddDigest(lines)} {
			s, err := parse(text)
			if err == nil {
				require.Equal(t, text, render(s))
				_, err = nameOf(s)
				require.NoError(t, err)
			}
		}
	})
}

func FuzzURI(f *testing.F) {
	f.Fuzz(func(t *testing.T, uri string) {
		l, err := locate(uri)
		if err == nil {
			require.True(t, strings.HasPrefix(l.path, "/"))
			require.NotEmpty(t, l.device)
			require.LessOrEqual(t, len(l.pcrs), tpm.MaxSealedPCRs)
		}
	})
}
