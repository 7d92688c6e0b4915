// Package secret owns the one type that holds secret bytes: keys, passphrases,
// and plaintext that contains them.
//
// Invariants:
//   - A [Bytes] prints, logs and formats as a fixed placeholder, in every verb
//     and at every depth; it refuses to be marshaled.
//   - The bytes are reached through one method, [Bytes.Expose], so that a
//     search for its name finds every place that touches a secret.
//   - [Bytes.Wipe] overwrites the bytes for every copy of the handle.
//
// It refuses comparison other than in constant time and has no constructor
// from string: a string cannot be wiped.
package secret

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
)

// placeholder is all that a secret ever shows of itself.
const placeholder = "[secret]"

// ErrMarshal is returned by every marshaling method of [Bytes].
var ErrMarshal = errors.New("a secret cannot be marshaled: seal or wrap it")

// ErrTooLong is returned by [Read] when the source holds more than its limit.
var ErrTooLong = errors.New("the secret is longer than allowed")

// Bytes is a handle to secret bytes. Copies of the handle share them, so that
// wiping one wipes all. The zero value is an empty secret.
//
// A handle is not safe for use by several goroutines while one of them wipes it.
type Bytes struct {
	// A func, since fmt prints unexported fields by reflection and, for a verb
	// that does not fit, even what a pointer points at; of a func it can print
	// the address only.
	open func() *[]byte
}

// New takes ownership of b: the caller must not use b afterwards.
func New(b []byte) Bytes {
	return Bytes{func() *[]byte { return &b }}
}

// Copy returns a secret with a copy of b, which stays the caller's to wipe.
func Copy(b []byte) Bytes {
	return New(append(make([]byte, 0, len(b)), b...))
}

// Random returns n bytes read from random.
func Random(random io.Reader, n int) (Bytes, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(random, b); err != nil {
		clear(b)
		return Bytes{}, fmt.Errorf("reading %d random bytes: %w", n, err)
	}
	return New(b), nil
}

// Read reads src to its end, at most limit bytes, and leaves no copy behind.
// A longer source is [ErrTooLong].
func Read(src io.Reader, limit int) (Bytes, error) {
	buf := make([]byte, limit+1)
	n, err := io.ReadFull(src, buf)
	switch {
	case err == nil:
		clear(buf)
		return Bytes{}, ErrTooLong
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return New(buf[:n]), nil
	default:
		clear(buf)
		return Bytes{}, fmt.Errorf("reading a secret: %w", err)
	}
}

// Expose returns the bytes themselves, not a copy. The caller must neither keep
// nor change them, and must wipe what it derives from them.
func (s Bytes) Expose() []byte {
	if s.open == nil {
		return nil
	}
	return *s.open()
}

// Len returns the number of bytes; 0 once wiped.
func (s Bytes) Len() int {
	return len(s.Expose())
}

// Clone returns a secret of its own with the same bytes.
func (s Bytes) Clone() Bytes {
	return Copy(s.Expose())
}

// Equal compares in constant time for secrets of equal length.
func (s Bytes) Equal(other Bytes) bool {
	return subtle.ConstantTimeCompare(s.Expose(), other.Expose()) == 1
}

// Wipe overwrites the bytes and empties the secret. It may be called again.
func (s Bytes) Wipe() {
	if s.open == nil {
		return
	}
	held := s.open()
	data := (*held)[:cap(*held)]
	clear(data)
	// Keeps the stores alive although nothing reads them.
	runtime.KeepAlive(data)
	*held = nil
}

// String returns a placeholder.
func (s Bytes) String() string { return placeholder }

// GoString returns a placeholder.
func (s Bytes) GoString() string { return placeholder }

// Format writes a placeholder, whatever the verb.
func (s Bytes) Format(f fmt.State, _ rune) {
	// fmt.State's Write never fails.
	_, _ = io.WriteString(f, placeholder)
}

// LogValue returns a placeholder.
func (s Bytes) LogValue() slog.Value { return slog.StringValue(placeholder) }

// MarshalJSON always returns [ErrMarshal].
func (s Bytes) MarshalJSON() ([]byte, error) { return nil, ErrMarshal }

// MarshalText always returns [ErrMarshal].
func (s Bytes) MarshalText() ([]byte, error) { return nil, ErrMarshal }

// MarshalBinary always returns [ErrMarshal]; encoding/gob uses it.
func (s Bytes) MarshalBinary() ([]byte, error) { return nil, ErrMarshal }
