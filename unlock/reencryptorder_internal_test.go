package unlock

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

// What a run left that was cut as it began is no loss that anybody has to agree to.
func TestFaultsNameNoKeyslotsThatARunLeft(t *testing.T) {
	f, err := os.Open("luks/testdata/headers/reencrypt-cut.img")
	require.NoError(t, err)
	defer f.Close()
	h, err := luks.Parse(f, 8<<20)
	require.NoError(t, err)
	v := &Volume{ID: "vol-a"}
	v.LUKS, err = h.Validate()
	require.NoError(t, err)
	require.Equal(t, []int{1}, v.LUKS.Leftover())
	all, err := v.report()
	require.NoError(t, err)
	about, err := v.reportOfFault()
	require.NoError(t, err)
	require.Len(t, about.Slots, len(all.Slots)-1)
	for _, s := range about.Slots {
		assert.NotEqual(t, 1, s.ID)
	}
}
