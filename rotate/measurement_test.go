package rotate

import (
	"context"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms"
)

// measured is what groups may boot: measurements by group, oldest first, of which those
// from held on are held.
type measured struct {
	approved map[string]int
	held     map[string]int
	asked    []kms.Hold
}

func (m *measured) MeasurementGroups(context.Context) ([]string, error) {
	return []string{"db", "web"}, nil
}

func (m *measured) OldestApproved(_ context.Context, group string, limit int) (list []kms.Measurement, err error) {
	for i := range min(m.approved[group], limit) {
		list = append(list, kms.Measurement{Digest: [32]byte{byte(i)}, Group: group, Approved: time.Unix(int64(i), 0)})
	}
	return list, nil
}

func (m *measured) Holding(_ context.Context, h kms.Hold) (kms.Holding, error) {
	m.asked = append(m.asked, h)
	if int(h.Digest[0]) < m.held[h.Group] {
		return kms.Holding{Active: true}, nil
	}
	return kms.Holding{Active: true, Machines: []string{"web-17"}}, nil
}

func unpaused(context.Context) (bool, error) { return false, nil }

// Old measurements are retired as the rule of their group says, up to the first one
// that a machine holds.
func TestOldMeasurementsAreRetired(t *testing.T) {
	p, err := Parse([]byte("[[rule]]\nname = \"web\"\ngroups = [\"web\"]\nretire_measurements_after = 3\n"))
	require.NoError(t, err)
	rows := &measured{approved: map[string]int{"web": 4, "db": 4}, held: map[string]int{"web": 2, "db": 3}}
	list, err := Superseded(t.Context(), rows, p, unpaused)
	require.NoError(t, err)
	require.Len(t, list, 2)
	assert.Len(t, rows.asked, 3, "those behind the first one that is held are not asked for")
	assert.Equal(t, 3, rows.asked[0].Boots)

	plan, err := Make(State{Superseded: list, Volumes: someVolumes(0)}, p, at(t, "2026-01-01T00:00:00Z"))
	require.NoError(t, err)
	require.Len(t, plan.Steps, 2)
	s := plan.Steps[1]
	assert.Equal(t, "retire-measurement measurement/01"+hex.EncodeToString(make([]byte, 31)), s.String())
	assert.Equal(t, "web", s.Object.Group)
	assert.Equal(t, 3, s.Boots)
	assert.Equal(t, []Line{{Rule: "web", Kind: RetireMeasurement, Count: 2}}, plan.Lines)

	broken := errors.New("the store is gone")
	_, err = Superseded(t.Context(), rows, p, func(context.Context) (bool, error) { return false, broken })
	require.ErrorIs(t, err, broken)
}

func TestAPlanRetiresABoundedNumberOfMeasurements(t *testing.T) {
	plan, err := Make(State{Superseded: make([]Measurement, maxPlan+7), Volumes: someVolumes(0)}, Default(), at(t, "2026-01-01T00:00:00Z"))
	require.NoError(t, err)
	assert.Len(t, plan.Steps, maxPlan)
	assert.EqualValues(t, 7, plan.Lines[1].Count)
	assert.Equal(t, HoldPlan, plan.Lines[1].Hold)
}

// By default none is, and a rule says so for groups alone.
func TestRetirementOfMeasurementsIsARulesToSay(t *testing.T) {
	list, err := Superseded(t.Context(), &measured{approved: map[string]int{"web": 4}, held: map[string]int{"web": 4}}, Default(), unpaused)
	require.NoError(t, err)
	assert.Empty(t, list)
	p, err := Parse([]byte("[default]\nretire_measurements_after = 2\n[[rule]]\nname = \"web\"\ngroups = [\"web\"]\nretire_measurements_after = \"never\"\n"))
	require.NoError(t, err)
	assert.Zero(t, p.forGroup("web").RetireMeasurementsAfter)
	assert.Equal(t, 2, p.forGroup("db").RetireMeasurementsAfter)
	for text, want := range map[string]string{
		"[default]\nretire_measurements_after = 0":                                  `retire_measurements_after: want "never", or a number from 1 to 10`,
		"[default]\nretire_measurements_after = 11":                                 `retire_measurements_after: want "never", or a number from 1 to 10`,
		"[default]\nretire_measurements_after = \"soon\"":                           `want a whole number, or "never"`,
		"[[rule]]\nname = \"a\"\nmachines = [\"a\"]\nretire_measurements_after = 1": "set it in a rule without keyrings and machines",
	} {
		_, err := Parse([]byte(text))
		require.ErrorContains(t, err, want, text)
	}
}
