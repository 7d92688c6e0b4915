package unlock

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// What a fault was about stands at its beginning, and why at its end.
func TestFaultsAreBounded(t *testing.T) {
	const begins, ends = "rekeying /dev/vda3", "no room\n"
	got := shortened(begins+strings.Repeat("é", 500)+ends, exchange.MaxFault)
	assert.Len(t, got, exchange.MaxFault)
	assert.True(t, strings.HasPrefix(got, begins+"?"))
	assert.True(t, strings.HasSuffix(got, "?no room?"))
	assert.Equal(t, "no room?", shortened(ends, exchange.MaxFault))
}

func TestAnswerIsForThisVolumeAlone(t *testing.T) {
	target := readTarget(t, "enrolled")
	v := Volume{ID: "vol-a", Identity: [32]byte{1}, LUKS: target.volume, Device: target.device}
	good := exchange.ReleasedSecret{Volume: "vol-a", UUID: target.uuid(), Identity: v.Identity, Version: 2}
	require.NoError(t, v.answeredBy(&exchange.Release{Secrets: []exchange.ReleasedSecret{good}}), "a rekey that is committed")
	for name, change := range map[string]func(s *exchange.ReleasedSecret){
		"another volume":       func(s *exchange.ReleasedSecret) { s.Volume = "vol-b" },
		"another header":       func(s *exchange.ReleasedSecret) { s.UUID = "" },
		"another identity":     func(s *exchange.ReleasedSecret) { s.Identity = [32]byte{} },
		"no version":           func(s *exchange.ReleasedSecret) { s.Version = 0 },
		"the same version":     func(s *exchange.ReleasedSecret) { s.NextVersion = 2 },
		"a version before":     func(s *exchange.ReleasedSecret) { s.NextVersion = 1 },
		"a version before one": func(s *exchange.ReleasedSecret) { s.Version, s.NextVersion = 0, 1 },
	} {
		s := good
		change(&s)
		assert.Error(t, v.answeredBy(&exchange.Release{Secrets: []exchange.ReleasedSecret{s}}), name)
	}
	assert.Error(t, v.answeredBy(new(exchange.Release)))
	assert.Error(t, v.answeredBy(&exchange.Release{Secrets: []exchange.ReleasedSecret{good, good}}))
}

// A boot goes on with what came beside its keys, or is left behind a commit; its own
// copies outlive the release.
func TestWhatABootGoesOnWith(t *testing.T) {
	target := readTarget(t, "rekeying")
	b := &Boot{Volumes: []Volume{{ID: "vol-a", LUKS: target.volume}}}
	release := func(version, next uint32) *exchange.Release {
		s := exchange.ReleasedSecret{Volume: "vol-a", Version: version, NextVersion: next, Key: secret.Copy([]byte("key"))}
		if next > 0 {
			s.Next = secret.Copy([]byte("next"))
		}
		return &exchange.Release{Secrets: []exchange.ReleasedSecret{s}}
	}
	require.Len(t, b.deliveredIn(release(1, 0)), 1, "version 2 may have been withdrawn")
	require.Len(t, b.deliveredIn(release(2, 0)), 1, "version 1 is left")
	r := release(1, 2)
	got := b.deliveredIn(r)
	require.Len(t, got, 1)
	r.Wipe()
	assert.Equal(t, "key", string(got[0].Secret.Key.Expose()))
	assert.Equal(t, "next", string(got[0].Secret.Next.Expose()))
	got[0].Wipe()
	assert.Zero(t, got[0].Secret.Next.Len())
}
