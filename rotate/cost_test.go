package rotate

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A fleet may be larger, or say so, than numbers are: its cost is the largest then, of
// what is done and of what is left for later.
func TestCostOfAFleetThatIsTooLarge(t *testing.T) {
	now := at(t, "2026-11-28T00:00:00Z")
	p := Default()
	p.Rules[0].VolumeKeyAge, p.Rules[0].Concurrency = Age(730*day), 10
	var volumes []Volume
	for n := range 25 {
		v := volumeAt(1)
		v.ID, v.Machine, v.Bytes, v.Secret.Created = strconv.Itoa(n), strconv.Itoa(n), 1<<60, now.Add(-day)
		volumes = append(volumes, v)
	}
	plan, err := Make(State{Volumes: only(volumes...), Speed: Speed{Reencrypt: 3}}, p, now)
	require.NoError(t, err)
	require.Len(t, plan.Lines, 2, "those that wait for others have a line of their own")
	for _, l := range plan.Lines {
		assert.EqualValues(t, math.MaxInt64, l.Cost.Bytes)
		assert.Greater(t, l.Cost.Time, 290*365*day)
	}
}

func TestDurationIsRoundedUp(t *testing.T) {
	assert.Equal(t, 4*time.Second, duration(10, 3))
	assert.Equal(t, 3*time.Second, duration(9, 3))
	assert.Zero(t, duration(9, 0))
	assert.Greater(t, duration(math.MaxInt64, 2), 290*365*day)
}
