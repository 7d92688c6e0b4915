package audit_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/kms/audit"
)

func TestExportVerifies(t *testing.T) {
	l := newLog(t, 1, 4, 300, 2)
	r, err := audit.VerifyExport(bytes.NewReader(l.export()), l.signer.Verifier(), l.trees...)
	require.NoError(t, err)
	assert.Equal(t, audit.Report{
		Entries: 307, Heads: 4, Kept: 5, Head: l.tree(),
		First: entryN(0).Time, Last: entryN(306).Time,
	}, r)
}

func TestExportOfAnEmptyLogVerifies(t *testing.T) {
	l := newLog(t)
	var out bytes.Buffer
	x, err := audit.NewExporter(&out, l.signer.Verifier())
	require.NoError(t, err)
	r, err := audit.VerifyExport(bytes.NewReader(out.Bytes()), l.signer.Verifier())
	require.ErrorIs(t, err, audit.ErrTampered, "without a head nothing is vouched for")
	require.Equal(t, audit.Uncovered, r.Findings[0].Kind)

	require.NoError(t, x.Head(l.sign(audit.EmptyTree())))
	_, err = audit.VerifyExport(&out, l.signer.Verifier(), audit.EmptyTree())
	require.NoError(t, err)
}

func TestEveryLineOfAnExportIsJSON(t *testing.T) {
	for _, line := range newLog(t, 2, 1).lines() {
		assert.True(t, json.Valid(line), "%s", line)
	}
}

// TestExportVector compares with the bytes that docs/formats/audit.md speaks of.
func TestExportVector(t *testing.T) {
	const path = "testdata/export-vector.jsonl"
	got := newLog(t, 2, 1).export()
	if *update {
		require.NoError(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got))
}

var update = flag.Bool("update", false, "rewrite testdata/export-vector.jsonl")

func TestWhatIsNoExportOfThisLogIsAnError(t *testing.T) {
	l := newLog(t, 1)
	header := string(l.lines()[0])
	for name, text := range map[string]string{
		"not an audit export of version 1":     "",
		"does not start with":                  "hello\n",
		"line 1 does not start with":           strings.Replace(header, ":1,", ":2,", 1),
		"not an audit export of version":       strings.TrimSuffix(header, "\n"),
		"longer than":                          header + strings.Repeat("a", 1<<20),
		"reading line 1: longer than":          strings.Repeat("a", 1<<20),
		"another log or key":                   strings.Replace(header, origin, "other", 1),
		"reading line 2: longer than":          header + strings.Repeat("a", 1<<20) + "\n",
		"verifying audit export: it names ano": strings.Replace(header, "+A", "+B", 1),
	} {
		_, err := audit.VerifyExport(strings.NewReader(text), l.signer.Verifier())
		require.ErrorContains(t, err, name)
		require.NotErrorIs(t, err, audit.ErrTampered)
	}
	torn := io.MultiReader(bytes.NewReader(l.export()), iotest.ErrReader(errors.New("disk gone")))
	_, err := audit.VerifyExport(torn, l.signer.Verifier())
	require.ErrorContains(t, err, "disk gone")
}

func TestExporterReportsAFailedWrite(t *testing.T) {
	l := newLog(t, 1)
	_, err := audit.NewExporter(failingWriter{}, l.signer.Verifier())
	require.ErrorContains(t, err, "disk full")
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// TestVerifyExportUsesBoundedMemory streams 60,000 entries (30 MB).
func TestVerifyExportUsesBoundedMemory(t *testing.T) {
	l := newLog(t, 1)
	const entries = 60_000
	pipe, w := io.Pipe()
	go func() {
		out := bufio.NewWriter(w)
		x, _ := audit.NewExporter(out, l.signer.Verifier())
		for range entries { // the same entry again and again: not a real log, but every line is checked
			_ = x.Entry([]byte(`{"entry":{}}`+strings.Repeat(" ", 400)), l.leaves[0])
		}
		_ = out.Flush()
		_ = w.Close()
	}()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	peak := &peakReader{r: pipe}
	r, err := audit.VerifyExport(peak, l.signer.Verifier())
	runtime.ReadMemStats(&after)
	require.ErrorIs(t, err, audit.ErrTampered)
	assert.Equal(t, int64(entries), r.Entries)
	assert.Len(t, r.Findings, 100)
	assert.Equal(t, int64(entries+1-100), r.More, "every entry, and that no head covers them")
	assert.Less(t, peak.heap, before.HeapAlloc+3<<20)
}

// peakReader watches the heap while it is read.
type peakReader struct {
	r     io.Reader
	reads int
	heap  uint64
}

func (p *peakReader) Read(b []byte) (int, error) {
	if p.reads++; p.reads%500 == 0 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		p.heap = max(p.heap, m.HeapAlloc)
	}
	return p.r.Read(b)
}

func TestReportReadsAsALine(t *testing.T) {
	f := audit.Finding{Kind: audit.Missing, First: 3, Last: 5, Text: "not in the export"}
	assert.Equal(t, "entries 3 to 5: missing: not in the export", f.String())
	f.Last = 3
	assert.Equal(t, "entry 3: missing: not in the export", f.String())
}

// FuzzVerifyExport: without the key, nobody makes an export that verifies other
// than by cutting the genuine one off at a head.
func FuzzVerifyExport(f *testing.F) {
	l := newLog(f, 2, 1)
	genuine := entryLines(l.export())
	v := l.signer.Verifier()
	f.Add(l.export())
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := audit.VerifyExport(bytes.NewReader(b), v); err == nil {
			got := entryLines(b)
			assert.Contains(t, []int{2, 3}, len(got))
			assert.Equal(t, genuine[:len(got)], got)
		}
	})
}

func entryLines(export []byte) []string {
	var entries []string
	for line := range strings.Lines(string(export)) {
		if strings.HasPrefix(line, `{"index"`) {
			entries = append(entries, line)
		}
	}
	return entries
}

func BenchmarkVerifyExport(b *testing.B) {
	export := newLog(b, 1000).export()
	v := newSigner(b, 1).Verifier()
	for b.Loop() {
		if _, err := audit.VerifyExport(bytes.NewReader(export), v); err != nil {
			b.Fatal(err)
		}
	}
}
