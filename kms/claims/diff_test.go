package claims_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/claims"
)

func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestDiffNamesTheExactFact(t *testing.T) {
	for name, c := range map[string]struct {
		was, is []string
		want    []claims.Difference
	}{
		"one value": {
			[]string{"a 1", "b 2"}, []string{"a 1", "b 3"},
			[]claims.Difference{{Name: "b", Was: "2", Is: "3"}},
		},
		"new claim": {
			[]string{"a 1"}, []string{"a 1", "unexplained 2 aa"},
			[]claims.Difference{{Name: "unexplained", Is: "2 aa"}},
		},
		"claim gone": {
			[]string{"a 1", "b 2"}, []string{"a 1"},
			[]claims.Difference{{Name: "b", Was: "2"}},
		},
		"inserted into a list": {
			[]string{"a 1", "a 2", "a 3"}, []string{"a 1", "a x", "a 2", "a 3"},
			[]claims.Difference{{Name: "a", Is: "x"}},
		},
		"removed and changed in a list": {
			[]string{"a 1", "a 2", "a 3", "a 4"}, []string{"a x", "a 2", "a 4"},
			[]claims.Difference{{Name: "a", Was: "1", Is: "x"}, {Name: "a", Was: "3"}},
		},
		"exchanged in a list": {
			[]string{"a 1", "a 2"}, []string{"a 2", "a 1"},
			[]claims.Difference{{Name: "a", Was: "1", Is: "2"}, {Name: "a", Was: "2", Is: "1"}},
		},
		"order between names": {
			[]string{"a 1", "b 2"}, []string{"b 2", "a 1"},
			[]claims.Difference{{Name: "order", Was: "1: a 1", Is: "1: b 2"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, claims.Diff(set(t, claims.State, c.was...), set(t, claims.State, c.is...)))
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("keywright claims v1 measurement\nsecureboot.state enabled\nunexplained 2 aa\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := claims.Parse(data)
		if err != nil {
			require.ErrorIs(t, err, claims.ErrMalformed)
			return
		}
		require.Equal(t, data, s.Marshal())
	})
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte("a 1\na 2\nb 3\n"), []byte("a 2\nb 3\na 1\n"))
	f.Fuzz(func(t *testing.T, one, other []byte) {
		was, err1 := claims.Parse(append([]byte("keywright claims v1 state\n"), one...))
		is, err2 := claims.Parse(append([]byte("keywright claims v1 state\n"), other...))
		if err1 != nil || err2 != nil {
			return
		}
		require.Empty(t, claims.Diff(was, was))
		require.Equal(t, was.Digest() == is.Digest(), len(claims.Diff(was, is)) == 0)
		require.Len(t, claims.Diff(is, was), len(claims.Diff(was, is)))
	})
}
