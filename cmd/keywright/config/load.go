package config

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Load reads a configuration file over the defaults and checks it. Its error
// lists, a line each, everything that is wrong.
func Load(path string) (Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration: %w", err)
	}
	if info.Size() > maxFile {
		return Config{}, fmt.Errorf("reading configuration %s: it has more than %d bytes", path, maxFile)
	}
	text, err := os.ReadFile(path)
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
	c := Default()
	meta, err := toml.Decode(string(text), &c)
	if err != nil {
		return Config{}, syntaxError(err)
	}
	// The decoder takes keys in any letter case; here there is one.
	if err := unknownKeys(string(text), meta.Keys()); err != nil {
		return Config{}, err
	}
	return c, c.Check()
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
