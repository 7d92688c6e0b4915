package claims

import "fmt"

const (
	// MaxName bounds a claim's name, in bytes.
	MaxName = 48
	// MaxValue bounds a claim's value, in bytes: twice the longest kernel
	// command line of x86.
	MaxValue = 4096
)

// Claim is one fact.
type Claim struct {
	// Name is lower-case words of letters, digits and inner hyphens, joined by
	// dots, such as "tpm.reset-count"; 1 to [MaxName] bytes.
	Name string
	// Value is 1 to [MaxValue] printable ASCII characters without a space at
	// either end. Digests are 64 lower-case hexadecimal digits.
	Value string
}

// String returns the claim's canonical line, without the line feed.
func (c Claim) String() string { return c.Name + " " + c.Value }

func (c Claim) check() error {
	if !validName(c.Name) {
		return fmt.Errorf("claim name %.64q is not lower-case words joined by dots, at most %d bytes", c.Name, MaxName)
	}
	if !ValidValue(c.Value) {
		return fmt.Errorf("claim %s: its value is not 1 to %d printable ASCII characters without a space at either end", c.Name, MaxValue)
	}
	return nil
}

func validName(name string) bool {
	if len(name) > MaxName {
		return false
	}
	wordStart := true
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c && c <= 'z'
		inner := '0' <= c && c <= '9' || (c == '-' || c == '.') && name[i-min(i, 1)] != '-'
		if !letter && (wordStart || !inner) {
			return false
		}
		wordStart = c == '.'
	}
	return !wordStart && name[len(name)-1] != '-'
}

// ValidValue tells whether text can be a claim's value.
func ValidValue(text string) bool {
	if len(text) == 0 || len(text) > MaxValue || text[0] == ' ' || text[len(text)-1] == ' ' {
		return false
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}
