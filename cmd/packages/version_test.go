package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDebianVersion(t *testing.T) {
	commit := time.Unix(1_800_000_000, 0)
	for text, want := range map[string]string{
		"v1.2.0":                        "1.2.0-1",
		"v1.2.0-dirty":                  "1.2.0+dirty-1",
		"v1.2.0-rc.1":                   "1.2.0~rc.1-1",
		"v1.2.0-5-gabcdef0":             "1.2.0+5.gabcdef0-1",
		"v1.2.0-rc.1-12-gabcdef0-dirty": "1.2.0~rc.1+12.gabcdef0+dirty-1",
		"056c9ef":                       "0.0.0~git20270115080000.g056c9ef-1",
		"056c9ef1234-dirty":             "0.0.0~git20270115080000.g056c9ef1234+dirty-1",
	} {
		version, err := debianVersion(text, commit)
		require.NoError(t, err, text)
		assert.Equal(t, want, version)
	}
	for _, text := range []string{"", "unknown", "devel", "1.2.0", "v1.2", "v1.2.0 1", "v1.2.0_1", "v1.2.0-"} {
		_, err := debianVersion(text, commit)
		require.ErrorContains(t, err, "set VERSION", text)
	}
}
