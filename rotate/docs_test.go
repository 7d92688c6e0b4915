package rotate

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The page's example is a policy, its defaults are those that are shipped, and it
// describes every key.
func TestThePageSaysWhatIsSo(t *testing.T) {
	page, err := os.ReadFile("../docs/rotation.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(page), "```toml\n")
	require.True(t, found)
	example, _, _ := strings.Cut(rest, "```")

	p, err := Parse([]byte(example))
	require.NoError(t, err)
	assert.Len(t, p.Rules, 3)
	assert.Equal(t, Default().Rules[0], p.Rules[2])

	settings := reflect.TypeFor[settingsFile]()
	for i := range settings.NumField() {
		assert.Contains(t, string(page), "| `"+settings.Field(i).Tag.Get("toml")+"` |")
	}
	for _, kind := range []Kind{
		RotateKeyring, RewrapKeyring, DisableKeyringVersion, DestroyKeyringVersion, RekeyVolume, DestroySecret, ReencryptVolume, RetireMeasurement,
	} {
		assert.Contains(t, string(page), "| `"+string(kind)+"` |")
	}
}
