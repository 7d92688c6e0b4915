package unlock_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock"
	"keywright.dev/unlock/luks"
)

// found reads the volumes of images that cryptsetup made.
func found(t *testing.T, images ...string) (unlock.Volumes, error) {
	t.Helper()
	var configs []unlock.VolumeConfig
	for _, image := range images {
		configs = append(configs, unlock.VolumeConfig{Device: volumeFile(t, image).Name(), Name: image})
	}
	clock := &fakeClock{now: time.Unix(0, 0)}
	volumes, err := unlock.FindVolumes(t.Context(), configs, clock, clock.now.Add(time.Second))
	t.Cleanup(func() { assert.NoError(t, volumes.Close()) })
	return volumes, err
}

func TestEnrolledVolumeIsFound(t *testing.T) {
	volumes, err := found(t, "enrolled")
	require.NoError(t, err)
	require.Len(t, volumes, 1)
	assert.Equal(t, "vol-a", volumes[0].ID)
	assert.Equal(t, []int{2}, volumes[0].Slots)
	assert.Equal(t, byte(0x41), volumes[0].Identity[0])
}

func TestVolumesThatAreNotEnrolled(t *testing.T) {
	for name, images := range map[string][]string{
		"none": {"aes256-4096"}, "an interrupted enrolment": {"interrupted"}, "one of two": {"enrolled", "aes256-4096"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := found(t, images...)
			failed(t, unlock.CodeNotEnrolled, err)
		})
	}
}

// TestAttack12HeadersUnderReencryptionAreRefused before anything is asked.
func TestAttack12HeadersUnderReencryptionAreRefused(t *testing.T) {
	_, err := found(t, "reencrypting")
	failed(t, unlock.CodeDevice, err)
	var refusal *luks.Refusal
	require.ErrorAs(t, err, &refusal)
	assert.Equal(t, luks.CodeRequirements, refusal.Code)
	assert.Equal(t, unlock.ExitRefused, unlock.ExitCode(err))
}

func TestOtherShapesAreRefused(t *testing.T) {
	for _, image := range []string{"aes-cbc", "luks1"} {
		_, err := found(t, image)
		assert.Equal(t, unlock.ExitRefused, unlock.ExitCode(err), image)
	}
}

func TestDeviceThatDoesNotCome(t *testing.T) {
	clock := &fakeClock{now: time.Unix(0, 0)}
	for _, device := range []string{"/dev/keywright-none", "UUID=00000000-0000-4000-8000-000000000000"} {
		start := clock.now
		_, err := unlock.FindVolumes(t.Context(), []unlock.VolumeConfig{{Device: device, Name: "x"}}, clock, start.Add(time.Second))
		failed(t, unlock.CodeDevice, err)
		require.ErrorIs(t, err, os.ErrNotExist)
		assert.GreaterOrEqual(t, clock.now.Sub(start), time.Second)
	}
}

func TestExitCodes(t *testing.T) {
	assert.Equal(t, unlock.ExitDone, unlock.ExitCode(nil))
	assert.Equal(t, unlock.ExitFailed, unlock.ExitCode(errors.New("any")))
}
