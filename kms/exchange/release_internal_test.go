package exchange

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/secret"
)

func marshaled(t testing.TB, r *Release) []byte {
	t.Helper()
	message, err := r.marshal()
	require.NoError(t, err)
	return message.Expose()
}

func TestReleasePaddingIsChecked(t *testing.T) {
	empty := marshaled(t, &Release{})
	_, err := parseRelease(secret.Copy(empty))
	require.NoError(t, err)

	dirty := append([]byte(nil), empty...)
	dirty[len(dirty)-1] = 1
	for _, message := range [][]byte{dirty, append(empty, empty...), empty[:len(empty)-1], nil} {
		_, err := parseRelease(secret.Copy(message))
		require.ErrorIs(t, err, ErrMalformed)
	}
}

// FuzzParseRelease holds that what parses marshals again to the same bytes.
func FuzzParseRelease(f *testing.F) {
	f.Add([]byte{})
	f.Add(marshaled(f, &Release{}))
	f.Add(marshaled(f, &Release{ID: [32]byte{1}, Entry: []byte("e"), Secrets: []ReleasedSecret{
		{Volume: "v", UUID: "u", Version: 1, Key: secret.Copy([]byte("k")), Recovery: secret.Copy([]byte("r")), RecoveryVersion: 1},
		{Volume: "v", UUID: "u", Version: 1, Key: secret.Copy([]byte("k")), Reencrypt: &Reencryption{Rate: 1, Lose: []LUKSSlot{{ID: 3, Mark: "5f1a03c2"}}}},
	}}))
	f.Add(marshaled(f, &Release{Secrets: []ReleasedSecret{{
		Volume: "v", UUID: "u", Version: 1, Key: secret.Copy([]byte("k")), Next: secret.Copy([]byte("n")), NextVersion: 2,
		HeaderKey: secret.New(make([]byte, HeaderKeySize)),
	}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseRelease(secret.Copy(data))
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		require.NoError(t, r.check())
		assert.Equal(t, data, marshaled(t, r))
	})
}

// FuzzParseResponse holds that what parses marshals again to the same bytes.
func FuzzParseResponse(f *testing.F) {
	seed, err := marshalResponse([32]byte{1}, []byte("sealed"))
	require.NoError(f, err)
	f.Add(seed)
	f.Add(seed[:len(seed)-1])
	f.Fuzz(func(t *testing.T, data []byte) {
		id, sealed, err := parseResponse(data)
		if err != nil {
			require.ErrorIs(t, err, ErrMalformed)
			return
		}
		again, err := marshalResponse(id, sealed)
		require.NoError(t, err)
		assert.Equal(t, data, again)
	})
}
