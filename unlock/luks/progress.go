package luks

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Progress is how far a reencryption has come.
type Progress struct {
	Done, Total uint64 // bytes
	Rate        uint64 // bytes a second, on average
	// Left is an estimate.
	Left, Spent time.Duration
}

// maxProgress bounds a line of progress, whose one text is the device's path.
const maxProgress = 8 << 10

// progressForm is a line of cryptsetup's --progress-json.
type progressForm struct {
	Device string   `json:"device"`
	Done   *decimal `json:"device_bytes"`
	Total  *decimal `json:"device_size"`
	Rate   *decimal `json:"speed"`
	Left   *decimal `json:"eta_ms"`
	Spent  *decimal `json:"time_ms"`
}

// ParseProgress parses one line that cryptsetup writes with --progress-json. It
// refuses unknown, missing and duplicate members, more done than there is, and
// times that are longer than a Duration.
func ParseProgress(line []byte) (Progress, error) {
	var f progressForm
	err := errors.Join(checkLength(line), checkSyntax(line))
	if err == nil {
		err = strictly(line, &f)
	}
	if err == nil {
		err = f.check()
	}
	if err != nil {
		return Progress{}, fmt.Errorf("parsing the progress of a reencryption: %w", err)
	}
	return Progress{
		Done: uint64(*f.Done), Total: uint64(*f.Total), Rate: uint64(*f.Rate),
		Left: milliseconds(*f.Left), Spent: milliseconds(*f.Spent),
	}, nil
}

func checkLength(line []byte) error {
	if len(line) > maxProgress {
		return fmt.Errorf("%d bytes are more than %d", len(line), maxProgress)
	}
	return nil
}

func (f *progressForm) check() error {
	const longest = math.MaxInt64 / uint64(time.Millisecond)
	switch {
	case f.Device == "" || f.Done == nil || f.Total == nil || f.Rate == nil || f.Left == nil || f.Spent == nil:
		return errors.New("a member is missing")
	case *f.Done > *f.Total:
		return fmt.Errorf("%d of %d bytes are done", *f.Done, *f.Total)
	case uint64(*f.Left) > longest || uint64(*f.Spent) > longest:
		return errors.New("a time is too long")
	}
	return nil
}

func milliseconds(n decimal) time.Duration { return time.Duration(n) * time.Millisecond }
