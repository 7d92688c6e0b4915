package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
)

// valueError is a value that cannot be meant.
type valueError struct {
	key  string // such as server.data
	text string
}

func (e *valueError) Error() string { return e.key + ": " + e.text }

func bad(key, format string, args ...any) error {
	return &valueError{key, fmt.Sprintf(format, args...)}
}

// located puts the lines in front of a joined list of errors about values, where
// they can be found.
func located(text string, err error) []error {
	switch e := err.(type) { //nolint:errorlint // the list itself is walked, nothing in it is looked for
	case interface{ Unwrap() []error }:
		var list []error
		for _, one := range e.Unwrap() {
			list = append(list, located(text, one)...)
		}
		return list
	case *valueError:
		if line := lineOf(text, strings.Split(e.key, ".")); line > 0 {
			return []error{fmt.Errorf("line %d: %w", line, err)}
		}
	}
	return []error{err}
}

// wrongTypes refuses the values of a file that are of another type than their
// key's, in words of the file.
func wrongTypes(sections map[string]any) []error {
	var errs []error
	t := reflect.TypeFor[Config]()
	for i := range t.NumField() {
		name := t.Field(i).Tag.Get("toml")
		value, present := sections[name]
		if !present {
			continue
		}
		keys, ok := value.(map[string]any)
		if !ok {
			errs = append(errs, bad(name, "want a section: [%s] on a line of its own", name))
			continue
		}
		errs = append(errs, wrongTypesIn(name, t.Field(i).Type, keys)...)
	}
	return errs
}

func wrongTypesIn(section string, t reflect.Type, keys map[string]any) []error {
	var errs []error
	for i := range t.NumField() {
		name := t.Field(i).Tag.Get("toml")
		if value, present := keys[name]; present {
			if want := wanted(t.Field(i).Type, value); want != "" {
				errs = append(errs, bad(section+"."+name, "want %s", want))
			}
		}
	}
	return errs
}

// wanted says what a key's value should be; nothing where it is.
func wanted(t reflect.Type, value any) string {
	if parsed, ok := reflect.New(t).Interface().(encoding.TextUnmarshaler); ok {
		err := parsed.UnmarshalText(fmt.Append(nil, value))
		if err != nil {
			return strings.TrimPrefix(err.Error(), "want ")
		}
		return ""
	}
	switch t.Kind() {
	case reflect.String:
		return unless[string](value, `a text in quotes`)
	case reflect.Bool:
		return unless[bool](value, "true or false")
	case reflect.Int:
		return unless[int64](value, "a whole number")
	case reflect.Float64:
		if _, whole := value.(int64); whole {
			return ""
		}
		return unless[float64](value, "a number")
	default:
		return notTexts(value)
	}
}

func unless[T any](value any, want string) string {
	if _, ok := value.(T); ok {
		return ""
	}
	return want
}

func notTexts(value any) string {
	const want = `a list of texts, such as ["a", "b"]`
	list, ok := value.([]any)
	if !ok {
		return want
	}
	for _, item := range list {
		if _, ok := item.(string); !ok {
			return want
		}
	}
	return ""
}
