package policy

import (
	"bytes"
	"fmt"
)

// shape measures a document before Cedar's parser sees it.
type shape struct {
	line  int
	open  int // brackets
	bytes int // of the present policy
	dots  int // since the last byte that no path such as a.b.c has
}

// checkShape refuses a document with a policy that is too long or nested too
// deep. Strings count by length only, comments not at all. Its error begins
// with the line.
func checkShape(text []byte) error {
	s := shape{line: 1}
	for i := 0; i < len(text); {
		n := tokenLength(text[i:])
		if err := s.add(text[i : i+n]); err != nil {
			return fmt.Errorf(":%d: %w", s.line, err)
		}
		i += n
	}
	return nil
}

func (s *shape) add(token []byte) error {
	s.line += bytes.Count(token, []byte("\n"))
	switch token[0] {
	case '/':
		if len(token) > 1 {
			return nil
		}
	case '(', '[', '{':
		s.open++
	case ')', ']', '}':
		s.open--
	case ';':
		s.open, s.bytes = 0, 0
	}
	s.bytes += len(token)
	s.countDots(token[0])
	switch {
	case s.dots > maxDots:
		return fmt.Errorf("a path has more than %d dots", maxDots)
	case s.open > maxDepth:
		return fmt.Errorf("brackets nest deeper than %d", maxDepth)
	case s.bytes > MaxPolicy:
		return fmt.Errorf("the policy is longer than %d bytes", MaxPolicy)
	}
	return nil
}

// maxDots bounds a path: cedar-go takes cubic time for "has a.b.c…".
const maxDots = 32

func (s *shape) countDots(c byte) {
	letter := 'a' <= c|0x20 && c|0x20 <= 'z'
	digit := '0' <= c && c <= '9'
	switch {
	case c == '.':
		s.dots++
	case !letter && !digit && c != '_' && c != ' ' && (c < '\t' || c > '\r'):
		s.dots = 0
	}
}

// tokenLength returns the length of the string, comment or single byte that
// text starts with.
func tokenLength(text []byte) int {
	switch {
	case text[0] == '"':
		return stringLength(text)
	case bytes.HasPrefix(text, []byte("//")):
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			return i
		}
		return len(text)
	default:
		return 1
	}
}

func stringLength(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}
