package luks_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/unlock/luks"
)

// goodProgress is what cryptsetup 2.6.1 wrote.
const goodProgress = `{"device":"/dev/vdb","device_bytes":"8388608","device_size":"88080384","speed":"99747556","eta_ms":"800","time_ms":"883"}`

func TestProgress(t *testing.T) {
	p, err := luks.ParseProgress([]byte(goodProgress))
	require.NoError(t, err)
	assert.Equal(t, luks.Progress{Done: 8388608, Total: 88080384, Rate: 99747556, Left: 800 * time.Millisecond, Spent: 883 * time.Millisecond}, p)
	for name, change := range map[string][2]string{
		"unknown member":   {`"time_ms"`, `"x":"1","time_ms"`},
		"missing member":   {`"speed":"99747556",`, ``},
		"duplicate member": {`"speed"`, `"device":"x","speed"`},
		"no device":        {`/dev/vdb`, ``},
		"number":           {`"883"`, `883`},
		"negative":         {`"883"`, `"-883"`},
		"not canonical":    {`"883"`, `"0883"`},
		"65 bits":          {`99747556`, `18446744073709551616`},
		"more than all":    {`8388608`, `88080385`},
		"too long a time":  {`"800"`, `"9223372036855"`},
		"text behind":      {`"883"}`, `"883"} ` + "\x00"},
		"half a line":      {`"883"}`, `"88`},
		"too long":         {`/dev/vdb`, strings.Repeat("x", 9000)},
		"null":             {`"883"`, `null`},
	} {
		require.Equal(t, 1, strings.Count(goodProgress, change[0]), name)
		_, err := luks.ParseProgress([]byte(strings.Replace(goodProgress, change[0], change[1], 1)))
		assert.Error(t, err, name)
	}
}

// FuzzProgress: what parses is within its bounds.
func FuzzProgress(f *testing.F) {
	f.Add([]byte(goodProgress))
	f.Add([]byte(`{"device":"r","device_bytes":"0","device_size":"0","speed":"0","eta_ms":"0","time_ms":"0"}`))
	f.Add([]byte(`{"device":"r","device_bytes":"1","device_size":"0"}`))
	f.Add([]byte("Finished, time 00m01s"))
	f.Fuzz(func(t *testing.T, line []byte) {
		p, err := luks.ParseProgress(line)
		if err != nil {
			assert.Zero(t, p)
			return
		}
		assert.LessOrEqual(t, p.Done, p.Total)
		assert.GreaterOrEqual(t, p.Left, time.Duration(0))
		assert.GreaterOrEqual(t, p.Spent, time.Duration(0))
	})
}
