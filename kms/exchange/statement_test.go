package exchange_test

import (
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/exchange"
)

//go:embed testdata/statements.json
var statementsJSON []byte

// statementVector is an encoded statement and what must become of it.
type statementVector struct {
	Name  string
	Class string // ok or malformed
	Hex   string
	// ExtraData is what a quote over it carries, hex, for class ok.
	ExtraData string
}

func statementVectors(t testing.TB) []statementVector {
	t.Helper()
	var vs []statementVector
	require.NoError(t, json.Unmarshal(statementsJSON, &vs))
	require.NotEmpty(t, vs)
	return vs
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	data, err := hex.DecodeString(text)
	require.NoError(t, err)
	return data
}

func fullStatement() *exchange.Statement {
	return &exchange.Statement{
		Purpose: exchange.PurposeBoot, Challenge: [32]byte{1, 2, 3}, Machine: strings.Repeat("ab", 32),
		ServiceKey: [32]byte{4}, Recipient: []byte("recipient"),
		Volumes: []exchange.Volume{
			{ID: "v1", UUID: "0e0d1d5c-0000-4000-8000-000000000001", Identity: [32]byte{5}},
			{UUID: "0e0d1d5c-0000-4000-8000-000000000002", Resume: [16]byte{6}},
		},
		Selection: [3]byte{0xff, 0xfb, 0}, Details: []byte(`{"a":1}`),
	}
}

func TestStatementVectors(t *testing.T) {
	for _, v := range statementVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			data := unhex(t, v.Hex)
			s, err := exchange.ParseStatement(data)
			if v.Class == "malformed" {
				require.ErrorIs(t, err, exchange.ErrMalformed)
				return
			}
			require.NoError(t, err)
			again, err := s.Marshal()
			require.NoError(t, err)
			assert.Equal(t, v.Hex, hex.EncodeToString(again))
			extra := exchange.ExtraData(s.Purpose, data)
			assert.Equal(t, v.ExtraData, hex.EncodeToString(extra[:]))
		})
	}
}

func TestStatementSurvivesItsEncoding(t *testing.T) {
	want := fullStatement()
	data, err := want.Marshal()
	require.NoError(t, err)
	got, err := exchange.ParseStatement(data)
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

func TestStatementCutOrExtendedIsMalformed(t *testing.T) {
	data, err := fullStatement().Marshal()
	require.NoError(t, err)
	for i := range data {
		_, err := exchange.ParseStatement(data[:i])
		require.ErrorIs(t, err, exchange.ErrMalformed, "cut at %d", i)
	}
	_, err = exchange.ParseStatement(append(data, 0))
	require.ErrorIs(t, err, exchange.ErrMalformed)
}

func TestStatementBounds(t *testing.T) {
	for want, change := range map[string]func(*exchange.Statement){
		"65 volumes": func(s *exchange.Statement) { s.Volumes = make([]exchange.Volume, 65) },
		"at most":    func(s *exchange.Statement) { s.Details = make([]byte, exchange.MaxStatement) },
		"encoding":   func(s *exchange.Statement) { s.Machine = strings.Repeat("a", 256) },
	} {
		s := fullStatement()
		change(s)
		_, err := s.Marshal()
		require.ErrorContains(t, err, want)
	}
	_, err := exchange.ParseStatement(make([]byte, exchange.MaxStatement+1))
	require.ErrorIs(t, err, exchange.ErrMalformed)
}

// TestExtraDataSeparatesPurposes: a quote made for one step proves nothing in another.
func TestExtraDataSeparatesPurposes(t *testing.T) {
	seen := map[[32]byte]bool{}
	for _, p := range []exchange.Purpose{exchange.PurposeBoot, exchange.PurposeEnroll, exchange.PurposeCommit, exchange.PurposeStage} {
		seen[exchange.ExtraData(p, []byte("s"))] = true
	}
	assert.Len(t, seen, 4)
}

// FuzzParseStatement holds that what parses marshals again to the same bytes.
func FuzzParseStatement(f *testing.F) {
	for _, v := range statementVectors(f) {
		f.Add(unhex(f, v.Hex))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := exchange.ParseStatement(data)
		if err != nil {
			require.ErrorIs(t, err, exchange.ErrMalformed)
			return
		}
		again, err := s.Marshal()
		require.NoError(t, err)
		assert.Equal(t, data, again)
	})
}
