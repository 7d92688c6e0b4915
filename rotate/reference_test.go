package rotate

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReferencesToWhatIsOut(t *testing.T) {
	id := strings.Repeat("0a", 16)
	for text, want := range map[string]Reference{
		"keyring/prod@3":           {KeyringOut, "prod", 3},
		"keyring/prod@2147483647":  {KeyringOut, "prod", 1<<31 - 1},
		"volume/" + id:             {VolumeOut, id, 0},
		"machine/web-17.example":   {MachineOut, "web-17.example", 0},
		"luks-header:volume/" + id: {HeaderOut, id, 0},
	} {
		got, err := ParseReference(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, got)
		assert.Equal(t, text, got.String())
	}
	for _, text := range []string{
		"", "prod@3", "keyring/prod", "keyring/prod@0", "keyring/prod@03", "keyring/prod@+3", "keyring/prod@2147483648",
		"keyring/@3", "keyring/a.b@3", "keyring/Prod@3", "keyring/prod@3@4", "volume/" + id[1:], "volume/" + strings.ToUpper(id),
		"luks-header:" + id, "luks-header:machine/" + id, "machine/", "machine/a b", "machine/" + strings.Repeat("a", 127), "root/x",
	} {
		_, err := ParseReference(text)
		assert.ErrorContains(t, err, "want keyring/NAME@N, volume/ID, machine/NAME or luks-header:volume/ID", text)
	}
}

func FuzzParseReference(f *testing.F) {
	id := strings.Repeat("0a", 16)
	for _, seed := range []string{"keyring/prod@3", "keyring/prod@03", "volume/" + id, "luks-header:volume/" + id, "machine/web-17", "machine/a/b", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseReference(text)
		if err == nil {
			assert.Equal(t, text, r.String())
		}
	})
}
