package unlock

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
)

// Nobody signs the answer to an announcement: it is held to its form, and what a
// person is shown of it can neither move a terminal nor pass for something else.
func TestForesightOfAForgedAnswer(t *testing.T) {
	digest, until := strings.Repeat("4f", 32), time.Now()
	good := api.StageResponse{Until: &until, Boots: []api.StagedBoot{{Measurement: digest, Platform: digest}}}
	forecasts := []forecast{{from: asThisBoot}}
	_, err := foresight(forecasts, good, false)
	require.NoError(t, err)
	unnamed := api.StageResponse{Until: &until, Boots: []api.StagedBoot{{Code: "later\x1b[2J", Detail: "\x1b[2J"}}}
	seen, err := foresight(forecasts, unnamed, true)
	require.NoError(t, err, "a boot that cannot be foretold has no digests")
	assert.Equal(t, "?[2J", seen.Boots[0].Detail)
	assert.Equal(t, api.Code("later?[2J"), seen.Boots[0].Code)

	for name, boots := range map[string][]api.StagedBoot{
		"no boots":    nil,
		"no digest":   {{Measurement: digest + "; reboot", Platform: digest}},
		"upper case":  {{Measurement: strings.ToUpper(digest), Platform: digest}},
		"no platform": {{Measurement: digest, Platform: "\x1b]0;"}},
	} {
		_, err := foresight(forecasts, api.StageResponse{Until: &until, Boots: boots}, false)
		var failure *Failure
		require.ErrorAs(t, err, &failure, name)
		assert.Equal(t, CodeUntrusted, failure.Code, name)
	}
	_, err = foresight(forecasts, api.StageResponse{Boots: good.Boots}, false)
	assert.ErrorContains(t, err, "until when", "what was staged ends at some time")
	_, err = foresight(forecasts, api.StageResponse{Boots: good.Boots}, true)
	assert.NoError(t, err)
}
