package unlock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// optionalRig is a boot of a root and a volume that it can do without.
func optionalRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.boot.Volumes[1].Config.Options = []string{"nofail"}
	return r
}

// onlyRoot holds that the root alone was opened.
func (r *rig) onlyRoot(t *testing.T) {
	t.Helper()
	opened := r.recorded(t)
	require.Len(t, opened, 1)
	assert.Equal(t, "root", opened[0].Table.Name)
	require.Len(t, r.boot.Volumes, 1)
	assert.NotEmpty(t, r.lines)
	assert.Contains(t, r.lines[0], "going on without")
	assert.Zero(t, r.reboots)
}

func TestOptionalVolumeIsOpenedLikeAnyOther(t *testing.T) {
	r := optionalRig(t)
	require.NoError(t, r.run(t))
	assert.Len(t, r.recorded(t), 2)
	assert.Empty(t, r.lines)
}

func TestBootGoesOnWithoutAnOptionalVolume(t *testing.T) {
	for name, breaks := range map[string]func(*rig){
		"its keyslot does not open": func(r *rig) { r.opener.sealed = "data" },
		"its mapping is not made":   func(r *rig) { r.opener.broken = "data" },
		"its mapping is left":       func(r *rig) { r.boot.Opener = leavingOf{r.opener, "data"} },
		"it is in use": func(r *rig) {
			r.boot.Opener = busyOf{r.opener, "data"}
			r.service.release.Secrets = r.service.release.Secrets[:1]
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := optionalRig(t)
			breaks(r)
			require.NoError(t, r.run(t))
			r.onlyRoot(t)
		})
	}
}

// busyOf has one volume in use, leavingOf one whose mapping is left behind.
type (
	busyOf struct {
		*fakeOpener
		name string
	}
	leavingOf struct {
		*fakeOpener
		name string
	}
)

func (o busyOf) Ready(_ context.Context, v unlock.Volume) error {
	if v.Config.Name == o.name {
		return luks.ErrBusy
	}
	return nil
}

func (o leavingOf) Open(ctx context.Context, v unlock.Volume, key secret.Bytes) (*luks.Mapping, error) {
	if v.Config.Name == o.name {
		return nil, luks.ErrLeftOpen
	}
	return o.fakeOpener.Open(ctx, v, key)
}

// Behind what cannot be closed nobody must go on.
func TestOptionalMappingThatCannotBeClosedResets(t *testing.T) {
	r := optionalRig(t)
	r.opener.stuck = "data"
	r.boot.Opener = leavingOf{r.opener, "data"}
	failed(t, unlock.CodeOpen, r.run(t))
	assert.Equal(t, 1, r.reboots)
}

// The root is never left out, nor is the last volume.
func TestRequiredVolumesAreAllOrNothing(t *testing.T) {
	r := optionalRig(t)
	r.opener.broken = "root"
	failed(t, unlock.CodeOpen, r.run(t))
	assert.Empty(t, r.recorded(t))

	r = optionalRig(t)
	r.boot.Volumes = r.boot.Volumes[1:]
	r.service.release.Secrets = r.service.release.Secrets[1:]
	r.opener.sealed = "data"
	failed(t, unlock.CodeOpen, r.run(t))
}

// refuseData answers for the root alone, as a service that does not know the
// other volume.
func (r *rig) refuseData() {
	all := r.service.release.Secrets
	r.service.script = nil
	answer := func(q api.ReleaseRequest) (api.ReleaseResponse, error) {
		statement, err := exchange.ParseStatement(q.Statement)
		if err != nil || len(statement.Volumes) > 1 {
			return api.ReleaseResponse{}, errors.Join(err, &api.Error{Code: api.CodeVolume, Number: api.CodeVolume.Number(), Message: "no"})
		}
		r.service.release.Secrets = all[:1]
		return r.service.answer(statement, q.Statement)
	}
	for range 10 {
		r.service.script = append(r.service.script, answer)
	}
}

func TestVolumeThatTheServiceDoesNotKnowIsLeftOut(t *testing.T) {
	r := optionalRig(t)
	r.refuseData()
	before := r.clock.now
	require.NoError(t, r.run(t))
	r.onlyRootAfterRefusal(t)
	assert.Equal(t, before, r.clock.now, "at once")
}

func (r *rig) onlyRootAfterRefusal(t *testing.T) {
	t.Helper()
	require.Len(t, r.boot.Volumes, 1)
	assert.Len(t, r.recorded(t), 1)
	assert.Contains(t, r.lines[0], "going on without those that may fail")
}

// Where the root is what is refused, the other is asked for again: an operator
// mends the one, and the next answer opens both.
func TestVolumeIsNotLeftOutForAnothersFault(t *testing.T) {
	r := optionalRig(t)
	r.service.script = append(r.service.script, refusal(api.CodeVolume), refusal(api.CodeVolume))
	require.NoError(t, r.run(t))
	assert.Len(t, r.recorded(t), 2)
	var asked []int
	for _, s := range r.service.statements {
		asked = append(asked, len(s.Volumes))
	}
	assert.Equal(t, []int{2, 1, 2}, asked)
}

func TestOptionalDeviceIsWaitedForOnlyAWhile(t *testing.T) {
	root := volumeFile(t, "enrolled").Name()
	for name, device := range map[string]string{
		"missing": "/dev/keywright-none", "another shape": volumeFile(t, "aes-cbc").Name(), "not enrolled": volumeFile(t, "aes256-4096").Name(),
	} {
		t.Run(name, func(t *testing.T) {
			clock := &fakeClock{now: time.Unix(0, 0)}
			var lines []string
			search := unlock.Search{Clock: clock, Announce: func(line string) { lines = append(lines, line) }}
			volumes, err := search.Volumes(t.Context(), []unlock.VolumeConfig{
				{Device: device, Name: "data", Options: []string{"nofail"}}, {Device: root, Name: "root"},
			})
			require.NoError(t, err, "without a deadline, too")
			t.Cleanup(func() { assert.NoError(t, volumes.Close()) })
			require.Len(t, volumes, 1)
			assert.Equal(t, "root", volumes[0].Config.Name)
			assert.Contains(t, lines[len(lines)-1], "going on without "+device+" (data)")
			assert.Less(t, clock.now.Sub(time.Unix(0, 0)), 15*time.Second)
		})
	}
}

func TestOptionalVolumesAloneMustBeThere(t *testing.T) {
	clock := &fakeClock{now: time.Unix(0, 0)}
	search := unlock.Search{Clock: clock, Announce: func(string) {}}
	_, err := search.Volumes(t.Context(), []unlock.VolumeConfig{{Device: "/dev/keywright-none", Name: "data", Options: []string{"nofail"}}})
	failed(t, unlock.CodeDevice, err)
}

func TestRequiredVolumes(t *testing.T) {
	r := optionalRig(t)
	required := unlock.Volumes(r.boot.Volumes).Required()
	require.Len(t, required, 1)
	assert.Equal(t, "root", required[0].Config.Name)
	assert.Len(t, r.boot.Volumes, 2)
}
