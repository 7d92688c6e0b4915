package rotate

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkPlan plans over a million volumes of which all are due, which is the worst
// case, and over as many of which a few are.
func BenchmarkPlan(b *testing.B) {
	const count = 1_000_000
	p, err := Parse([]byte(`
[[rule]]
name = "restricted"
keyrings = ["prod-*"]
[[rule]]
name = "db"
groups = ["db-*"]
`))
	require.NoError(b, err)
	volumes := make([]Volume, 0, count)
	for v := range someVolumes(count) {
		volumes = append(volumes, v)
	}
	peak := NewPeak()
	state := State{Volumes: func(yield func(Volume, error) bool) {
		for i := range volumes {
			if i%4096 == 0 {
				peak.Look()
			}
			if !yield(volumes[i], nil) {
				return
			}
		}
	}}
	made := volumes[0].Created
	for _, c := range []struct {
		name string
		now  time.Time
	}{{"all due", made.AddDate(3, 0, 0)}, {"a tenth due", made.Add(338 * day)}, {"none due", made.AddDate(0, 1, 0)}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			peak = NewPeak()
			for b.Loop() {
				_, err := Make(state, p, c.now)
				require.NoError(b, err)
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/plan")
			b.ReportMetric(peak.Megabytes(), "peak-MB")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/object")
		})
	}
	b.Run("compromised", func(b *testing.B) {
		now := made.AddDate(3, 0, 0)
		incident := Incident{What: Reference{KeyringOut, "default", 1}, Since: now, Copied: true}
		state := state
		state.Keyrings = someKeyrings(made, count)
		b.ReportAllocs()
		for b.Loop() {
			_, err := Compromised(state, p, now, incident)
			require.NoError(b, err)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/object")
	})
}

// Peak is the most that the heap held beside what it held before, garbage that was not
// collected included.
type Peak struct {
	sample       []metrics.Sample
	before, most uint64
}

// NewPeak begins to measure.
func NewPeak() *Peak {
	p := &Peak{sample: []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}}
	runtime.GC()
	p.before = p.read()
	return p
}

func (p *Peak) read() uint64 {
	metrics.Read(p.sample)
	return p.sample[0].Value.Uint64()
}

// Look is called now and then meanwhile.
func (p *Peak) Look() { p.most = max(p.most, p.read()) }

// Megabytes returns the peak.
func (p *Peak) Megabytes() float64 { return float64(max(p.most, p.before)-p.before) / 1e6 }
