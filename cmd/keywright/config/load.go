package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/BurntSushi/toml"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Load reads a configuration file over the defaults and checks it. Its error
// lists, a line each, everything that is wrong.
func Load(path string) (Config, error) {
	text, err := ReadFile(path, maxFile)
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration: %w", err)
	}
	c, err := Parse(text)
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration %s:\n%w", path, err)
	}
	return c, nil
}

// Parse is [Load] for a file's text.
func Parse(text []byte) (Config, error) {
	var sections map[string]any
	meta, err := toml.Decode(string(text), &sections)
	if err != nil {
		return Config{}, syntaxError(err)
	}
	if err := unknownKeys(string(text), meta.Keys()); err != nil {
		return Config{}, err
	}
	if errs := wrongTypes(sections); len(errs) > 0 {
		return Config{}, errors.Join(located(string(text), errors.Join(errs...))...)
	}
	c := Default()
	if _, err := toml.Decode(string(text), &c); err != nil {
		return Config{}, syntaxError(err)
	}
	if err := c.Check(); err != nil {
		return Config{}, errors.Join(located(string(text), err)...)
	}
	return c, nil
}

// ReadFile reads a regular file of at most limit bytes. What is not one, such as
// a pipe or a device, would be waited for, or never end.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(text)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return text, err
}

// syntaxError says where it is without repeating the line.
func syntaxError(err error) error {
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("line %d: %s", parse.Position.Line, parse.Message)
	}
	return err
}

// Duration is a time, written as 10s, 500ms or 1m30s.
type Duration time.Duration

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil || parsed <= 0 {
		return errors.New("want a time such as 10s")
	}
	*d = Duration(parsed)
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Size is a number of bytes, written as 512KiB, 96MiB, 1GiB or a plain number.
type Size int64

type unit struct {
	suffix string
	bytes  int64
}

func units() []unit { return []unit{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Size) UnmarshalText(text []byte) error {
	number, factor := string(text), int64(1)
	for _, u := range units() {
		if rest, ok := strings.CutSuffix(number, u.suffix); ok {
			number, factor = rest, u.bytes
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<50)/factor {
		return errors.New("want a size such as 96MiB")
	}
	*s = Size(n * factor)
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (s Size) MarshalText() ([]byte, error) {
	for _, u := range units() {
		if s > 0 && int64(s)%u.bytes == 0 {
			return fmt.Appendf(nil, "%d%s", int64(s)/u.bytes, u.suffix), nil
		}
	}
	return strconv.AppendInt(nil, int64(s), 10), nil
}
