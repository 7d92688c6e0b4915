package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSummary(t *testing.T) {
	var text strings.Builder
	text.WriteString("goos: linux\nBenchmarkOther-2 \t 10 \t 3 ns/op\n")
	for _, target := range targets() {
		text.WriteString(target.benchmark + "-2 \t 10 \t 3 ns/op \t 2.0 " + target.metric + "\n")
	}
	measured, err := parse(strings.NewReader(text.String()))
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, printTable(&out, measured))
	assert.Contains(t, out.String(), "  2.50     2.00               ok  evidence of 45 KB, log seen before")
	assert.Contains(t, out.String(), "  1.30     2.00   missed by 54 %  release / bare composite")

	delete(measured, key{"BenchmarkQuote/rsa-2048", "ratio"})
	assert.ErrorContains(t, printTable(&out, measured), "not measured: BenchmarkQuote/rsa-2048 ratio")
}

// TestNamesThatEndInANumber reads what Go prints with one processor.
func TestNamesThatEndInANumber(t *testing.T) {
	measured, err := parse(strings.NewReader("BenchmarkQuote/rsa-2048 \t 10 \t 1.5 ratio\nBenchmarkA-16 \t 10 \t 2 ratio\n"))
	require.NoError(t, err)
	assert.InDelta(t, 1.5, measured[key{"BenchmarkQuote/rsa-2048", "ratio"}], 0)
	assert.InDelta(t, 2, measured[key{"BenchmarkA", "ratio"}], 0)
}

func TestNoFigure(t *testing.T) {
	_, err := parse(strings.NewReader("BenchmarkA-2 10 x ns/op\n"))
	assert.ErrorContains(t, err, `"x" is no figure`)
	assert.ErrorContains(t, run(nil, new(bytes.Buffer)), "usage")
}
