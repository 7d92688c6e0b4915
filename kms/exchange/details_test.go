package exchange_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
)

func TestDetailsSurviveTheirEncoding(t *testing.T) {
	want := exchange.CommitDetails{
		Volumes: []exchange.VolumeReport{{
			ID: "v1", VolumeKeyDigest: []byte{1}, Sequence: 3,
			Slots:  []exchange.LUKSSlot{{ID: 0, KDF: "argon2id", Priority: 1}},
			Tokens: []exchange.LUKSToken{{ID: 0, Type: "keywright", Slots: []int{1}, Volume: "v1"}},
		}},
		NextBoot: []byte("claims"),
	}
	data, err := exchange.MarshalDetails(want)
	require.NoError(t, err)
	got, err := exchange.ParseDetails[exchange.CommitDetails](data)
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestDetailsAreStrict(t *testing.T) {
	for name, text := range map[string]string{
		"empty":            ``,
		"unknown member":   `{"name":"a","admin":true}`,
		"duplicate member": `{"name":"a","name":"b"}`,
		"letter case":      `{"Name":"a"}`,
		"trailing data":    `{"name":"a"}{}`,
		"wrong type":       `{"name":["sekrit"]}`,
		"invalid UTF-8":    "{\"name\":\"\xff\"}",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := exchange.ParseDetails[exchange.EnrollDetails]([]byte(text))
			require.ErrorIs(t, err, exchange.ErrMalformed)
			assert.NotContains(t, err.Error(), "sekrit")
		})
	}
}

// FuzzParseStageDetails is [FuzzParseDetails] for what running systems announce.
func FuzzParseStageDetails(f *testing.F) {
	f.Add([]byte(`{"volumes":[],"boots":[{"files":"YQ=="},{}],"fault":"data: no keyslot","check":true}`))
	f.Add([]byte(`{"boots":null,"BOOTS":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) { reparse[exchange.StageDetails](t, data) })
}

// reparse holds that what parses is accepted again in the form this package
// writes.
func reparse[T exchange.Details](t *testing.T, data []byte) {
	t.Helper()
	details, err := exchange.ParseDetails[T](data)
	if err != nil {
		require.ErrorIs(t, err, exchange.ErrMalformed)
		return
	}
	again, err := exchange.MarshalDetails(details)
	require.NoError(t, err)
	got, err := exchange.ParseDetails[T](again)
	require.NoError(t, err)
	third, err := exchange.MarshalDetails(got)
	require.NoError(t, err)
	assert.Equal(t, again, third)
}

// FuzzParseDetails holds that parsing never panics and that what it accepts is
// accepted again in the form this package writes.
func FuzzParseDetails(f *testing.F) {
	f.Add([]byte(`{"volumes":[{"id":"v","volume_key_digest":"AQ==","sequence":1,"slots":[],"tokens":[]}],"next_boot":"YQ=="}`))
	f.Add([]byte(`{"volumes":[],"volumes":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) { reparse[exchange.CommitDetails](t, data) })
}

// FuzzParseRekeyedDetails is [FuzzParseDetails] for what running systems report.
func FuzzParseRekeyedDetails(f *testing.F) {
	f.Add([]byte(`{"version":2,"volume":{"id":"v","volume_key_digest":null,"sequence":1,"slots":[],"tokens":[],"becomes":"AQ=="},"reencryption":"progress","progress":{"done":1,"total":2,"rate":3,"left":4}}`))
	f.Add([]byte(`{"version":2,"volume":{},"progress":{"done":-1}}`))
	f.Fuzz(func(t *testing.T, data []byte) { reparse[exchange.RekeyedDetails](t, data) })
}
