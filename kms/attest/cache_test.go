package attest_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/attest"
)

// TestHostileLogsThroughTheMemory has logs of thousands of events each: what is
// remembered of them stays below the bound, by the allocator's own count.
func TestHostileLogsThroughTheMemory(t *testing.T) {
	appraiser := attest.NewAppraiser(1 << 20)
	before := heap()
	for n := range 60 {
		var more []logEvent
		for i := range 4000 {
			more = append(more, digested(13, evIPL, fmt.Sprint(n, " ", i)))
		}
		log := appended(t, "ovmf-uki", more...)
		_, err := appraiser.Appraise(quoted(t, replay(t, log)), log)
		require.NoError(t, err)
	}
	assert.Less(t, heap()-before, int64(attest.MaxRemembered+attest.MaxRemembered/4))
	assert.Greater(t, appraiser.Remembered(), 8)
	runtime.KeepAlive(appraiser)
}

func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
