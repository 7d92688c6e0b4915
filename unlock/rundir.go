package unlock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"

	"keywright.dev/unlock/luks"
)

// DefaultRunDir is where a boot keeps what must not outlive it.
const DefaultRunDir = "/run/keywright"

const (
	receiptFile = "receipt"
	openedFile  = "opened.json"
	enrollLock  = "enroll.lock"
	maxOpened   = 256 << 10

	// RepinFile is written where the service has other keys than are pinned.
	RepinFile = "repin"
)

// RunDir is a directory in memory that the initramfs hands on to the system.
// Its files are their owner's alone.
type RunDir string

// Opened is a mapping that a boot opens with a released key.
type Opened struct {
	Volume string `json:"volume"` // id
	UUID   string `json:"uuid"`
	Root   bool   `json:"root"`
	// Table has nothing but the name from before the mapping is made until it is
	// checked.
	Table luks.Table `json:"table"`
}

// Receipt keeps the signed audit entry of the release.
func (d RunDir) Receipt(entry []byte) error { return d.write(receiptFile, entry) }

// Repin has the system's unit take over the service's keys: it watches this file.
func (d RunDir) Repin() error { return d.write(RepinFile, nil) }

// Opened keeps which mappings are this boot's, in the place of what it kept.
func (d RunDir) Opened(mappings []Opened) error {
	text, err := json.Marshal(mappings)
	if err != nil {
		return fmt.Errorf("keeping what was opened: %w", err)
	}
	return d.write(openedFile, text)
}

// ReadOpened returns which mappings this boot opened: none where it opened none,
// nil where it was released no keys.
func (d RunDir) ReadOpened() ([]Opened, error) {
	text, err := readBounded(filepath.Join(string(d), openedFile), maxOpened)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was opened: %w", err)
	}
	var mappings []Opened
	if err := json.Unmarshal(text, &mappings); err != nil {
		return nil, fmt.Errorf("reading what was opened: %w", err)
	}
	return mappings, nil
}

func (d RunDir) path(name string) string { return filepath.Join(string(d), name) }

func (d RunDir) write(name string, data []byte) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	return writeDurably(filepath.Join(string(d), name), data, 0o600)
}
