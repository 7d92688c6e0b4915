package rotate

import "errors"

// The types of a policy file's values say what they want in words of the file.

// quoted is a text.
type quoted string

// UnmarshalTOML implements [toml.Unmarshaler].
func (q *quoted) UnmarshalTOML(value any) error {
	text, ok := value.(string)
	if !ok {
		return errors.New("want a text in quotes")
	}
	*q = quoted(text)
	return nil
}

// whole is a whole number.
type whole int

// UnmarshalTOML implements [toml.Unmarshaler].
func (w *whole) UnmarshalTOML(value any) error {
	n, ok := value.(int64)
	if !ok {
		return errors.New("want a whole number")
	}
	*w = whole(n)
	return nil
}

// count is a whole number from 1, or never, which is 0.
type count int

// UnmarshalTOML implements [toml.Unmarshaler].
func (c *count) UnmarshalTOML(value any) error {
	switch n := value.(type) {
	case int64:
		*c = count(n)
		if n == 0 {
			*c = -1
		}
		return nil
	case string:
		*c = 0
		if n == "never" {
			return nil
		}
	}
	return errors.New(`want a whole number, or "never"`)
}

// names are a list of texts; an empty one is not nil.
type names []string

// UnmarshalTOML implements [toml.Unmarshaler].
func (n *names) UnmarshalTOML(value any) error {
	wrong := errors.New(`want a list of names, such as ["a", "b"]`)
	list, ok := value.([]any)
	if !ok {
		return wrong
	}
	*n = names{}
	for _, entry := range list {
		text, ok := entry.(string)
		if !ok {
			return wrong
		}
		*n = append(*n, text)
	}
	return nil
}
