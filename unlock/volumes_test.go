package unlock_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
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
	search := unlock.Search{Clock: clock, Deadline: clock.now.Add(time.Second), Announce: func(line string) { t.Error(line) }}
	volumes, err := search.Volumes(t.Context(), configs)
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

// TestAttack12HeadersUnderReencryptionAreRefused before anything is asked, but for those
// that cryptsetup makes: of these the service knows whether they are ordered.
func TestAttack12HeadersUnderReencryptionAreRefused(t *testing.T) {
	_, err := found(t, "reencrypting")
	failed(t, unlock.CodeNotEnrolled, err)
	forged := volumeFile(t, "reencrypting").Name()
	image, err := os.ReadFile(forged)
	require.NoError(t, err)
	const area, sum, size = 4096, 448, 16 << 10
	for at := 0; at < 2*size; at += size {
		header := image[at : at+size]
		require.Equal(t, 1, bytes.Count(header, []byte("reencrypt-v2")))
		copy(header[area:], bytes.Replace(header[area:], []byte("reencrypt-v2"), []byte("reencrypt-v1"), 1))
		clear(header[sum : sum+64])
		digest := sha256.Sum256(header)
		copy(header[sum:], digest[:])
	}
	require.NoError(t, os.WriteFile(forged, image, 0o600))
	search := unlock.Search{Clock: &fakeClock{now: time.Unix(0, 0)}}
	_, err = search.Volumes(t.Context(), []unlock.VolumeConfig{{Device: forged, Name: "data"}})
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

// lateClock does something after a number of looks.
type lateClock struct {
	*fakeClock
	looks int
	then  func()
}

func (c *lateClock) Sleep(ctx context.Context, d time.Duration) error {
	if c.looks--; c.looks == 0 {
		c.then()
	}
	return c.fakeClock.Sleep(ctx, d)
}

func TestDeviceThatDoesNotCome(t *testing.T) {
	clock := &fakeClock{now: time.Unix(0, 0)}
	for _, device := range []string{"/dev/keywright-none", "UUID=00000000-0000-4000-8000-000000000000"} {
		start, lines := clock.now, []string{}
		search := unlock.Search{Clock: clock, Deadline: start.Add(10 * time.Second), Announce: func(line string) { lines = append(lines, line) }}
		_, err := search.Volumes(t.Context(), []unlock.VolumeConfig{{Device: device, Name: "x"}})
		failed(t, unlock.CodeDevice, err)
		require.ErrorIs(t, err, os.ErrNotExist)
		assert.GreaterOrEqual(t, clock.now.Sub(start), 10*time.Second)
		require.Len(t, lines, 1, "it says once that it waits")
		assert.Contains(t, lines[0], "keywright: waiting for "+device)
	}
}

// A device may be there before it can be read.
func TestDeviceThatIsNotReadyIsWaitedFor(t *testing.T) {
	for name, late := range map[string]func(t *testing.T, path string){
		"has no size yet":      func(t *testing.T, path string) { require.NoError(t, os.WriteFile(path, nil, 0o600)) },
		"cannot be opened yet": func(t *testing.T, path string) { require.NoError(t, os.Symlink(path+"/", path)) },
		"fails to read":        func(t *testing.T, path string) { require.NoError(t, os.Mkdir(path, 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			path, clock := filepath.Join(t.TempDir(), "device"), &fakeClock{now: time.Unix(0, 0)}
			late(t, path)
			ready := &lateClock{clock, 3, func() {
				require.NoError(t, os.Remove(path))
				require.NoError(t, os.Symlink(volumeFile(t, "enrolled").Name(), path))
			}}
			search := unlock.Search{Clock: ready, Announce: func(line string) { t.Error(line) }}
			volumes, err := search.Volumes(t.Context(), []unlock.VolumeConfig{{Device: path, Name: "x"}})
			require.NoError(t, err)
			assert.NoError(t, volumes.Close())

			require.NoError(t, os.Remove(path))
			late(t, path)
			search = unlock.Search{Clock: clock, Deadline: clock.now.Add(time.Second), Announce: func(line string) { t.Error(line) }}
			_, err = search.Volumes(t.Context(), []unlock.VolumeConfig{{Device: path, Name: "x"}})
			failed(t, unlock.CodeDevice, err)
		})
	}
}

func TestExitCodes(t *testing.T) {
	assert.Equal(t, unlock.ExitDone, unlock.ExitCode(nil))
	assert.Equal(t, unlock.ExitFailed, unlock.ExitCode(errors.New("any")))
}
