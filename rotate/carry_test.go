package rotate

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// carrier has a plan a call, and notes what was carried out.
type carrier struct {
	plans  [][]Step
	rounds [][]string
	fail   map[Action]Result
	broken error
}

func (c *carrier) Plan(context.Context) (Agenda, error) {
	if len(c.plans) == 0 {
		return Agenda{}, nil
	}
	steps := c.plans[0]
	c.plans = c.plans[1:]
	return Agenda{Steps: steps}, nil
}

func (c *carrier) CarryOut(_ context.Context, steps []Step, done func(Result)) error {
	var names []string
	for i := range steps {
		names = append(names, steps[i].String())
		r := c.fail[steps[i].Action]
		r.Step = &steps[i]
		done(r)
	}
	c.rounds = append(c.rounds, names)
	return c.broken
}

func step(kind Kind, o Object, after ...Action) Step {
	return Step{Action: Action{kind, o}, After: after}
}

func TestARunKeepsTheOrderOfAChain(t *testing.T) {
	prod, volume := keyringObject("prod", 0), volumeObject(volumeA, 0)
	rotation, disable := step(RotateKeyring, prod), step(DisableKeyringVersion, keyringObject("prod", 2), Action{RotateKeyring, prod})
	rekey := step(RekeyVolume, volume, rotation.Action, disable.Action)
	reencrypt := step(ReencryptVolume, volume, rekey.Action)
	later := step(RotateKeyring, keyringObject("dev", 0))
	later.NotBefore = time.Unix(1, 0)
	c := &carrier{plans: [][]Step{{rotation, disable, rekey, reencrypt, later, step(DestroySecret, volume)}, {rekey}}}
	r, err := Carry(t.Context(), c, Terms{Kinds: []Kind{RotateKeyring, DisableKeyringVersion, RekeyVolume, ReencryptVolume}})
	require.NoError(t, err)
	assert.Equal(t, [][]string{{rotation.String()}, {disable.String()}, {rekey.String()}}, c.rounds)
	assert.Equal(t, map[Kind]int{RotateKeyring: 1, DisableKeyringVersion: 1, RekeyVolume: 1}, r.Done)
	assert.Equal(t, 3, r.Count())
}

func TestNothingComesAfterAStepThatFailed(t *testing.T) {
	prod := keyringObject("prod", 0)
	rotation, disable := step(RotateKeyring, prod), step(DisableKeyringVersion, keyringObject("prod", 2), Action{RotateKeyring, prod})
	other := step(RekeyVolume, volumeObject(volumeA, 0))
	plan := []Step{rotation, disable, other, step(DestroySecret, volumeObject(volumeA, 1))}
	c := &carrier{plans: [][]Step{plan, plan}, fail: map[Action]Result{rotation.Action: {Err: errors.New("no"), Refused: true}}}
	r, err := Carry(t.Context(), c, Terms{Kinds: []Kind{RotateKeyring, DisableKeyringVersion, RekeyVolume}})
	require.NoError(t, err)
	assert.Equal(t, [][]string{{rotation.String(), other.String()}}, c.rounds)
	assert.Equal(t, map[Kind]int{DisableKeyringVersion: 1}, r.Behind)
	assert.Equal(t, map[Kind]int{DestroySecret: 1}, r.NotRun)
	require.Len(t, r.Failed, 1)
	assert.Equal(t, 1, r.Refused)
}

func TestARunEndsWithItsCarrier(t *testing.T) {
	a := step(RekeyVolume, volumeObject(volumeA, 0))
	c := &carrier{plans: [][]Step{{a}, {a}}, broken: errors.New("the service is gone")}
	r, err := Carry(t.Context(), c, Terms{Kinds: []Kind{RekeyVolume}})
	require.ErrorIs(t, err, c.broken)
	assert.Equal(t, 1, r.Count())
	c = &carrier{plans: [][]Step{{a}, {a}}}
	_, err = Carry(t.Context(), c, Terms{Kinds: []Kind{RekeyVolume}, Once: true})
	require.NoError(t, err)
	assert.Len(t, c.plans, 1)
}

func FuzzParseObject(f *testing.F) {
	for _, text := range []string{"keyring/prod", "keyring/prod@3", "volume/" + volumeA, "volume/" + volumeA + "@1", "keyring/prod@03", "machine/x", "volume/", "keyring/a@", "keyring/A"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if o, err := ParseObject(text); err == nil {
			assert.Equal(t, text, o.String())
		}
	})
}
