package local

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxURI bounds a URI, in bytes.
const maxURI = 8 << 10

// Location is where a URI leads.
type Location struct {
	// Path is absolute and clean; empty where the URI has none.
	Path string
	// Options are the query: each key once, no value empty.
	Options map[string]string
}

// ParseURI reads scheme:///path?key=value. It refuses another scheme, a host, a
// path that is not absolute and clean, and keys that are not among those given.
func ParseURI(uri, scheme string, keys ...string) (Location, error) {
	if len(uri) > maxURI {
		return Location{}, fmt.Errorf("it has %d bytes, at most %d are allowed", len(uri), maxURI)
	}
	u, err := url.Parse(uri)
	if err != nil {
		// The library's error quotes the URI.
		return Location{}, errors.New("it is not a URI")
	}
	switch {
	case u.Scheme != scheme:
		return Location{}, fmt.Errorf("its scheme is %.20q, not %q", u.Scheme, scheme)
	case u.Host != "" || u.User != nil:
		return Location{}, errors.New("it names a host: the path stands behind three slashes")
	case u.Opaque != "" || u.Path != "" && (!path.IsAbs(u.Path) || path.Clean(u.Path) != u.Path || strings.ContainsRune(u.Path, 0)):
		return Location{}, errors.New("its path is not an absolute one in its shortest form")
	case u.Fragment != "" || strings.Contains(uri, "#"):
		return Location{}, errors.New("it has a fragment (#…)")
	}
	options, err := ParseQuery(u.RawQuery)
	for _, key := range slices.Sorted(maps.Keys(options)) {
		if !slices.Contains(keys, key) {
			return Location{}, fmt.Errorf("it has an unknown key %s: known are %s", ShowKey(key), strings.Join(keys, ", "))
		}
	}
	return Location{u.Path, options}, err
}

// ParseQuery reads key=value&key=value, each key once and with a value.
func ParseQuery(query string) (map[string]string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("what follows its question mark is not key=value&key=value")
	}
	options := make(map[string]string, len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch list := values[key]; {
		case len(list) > 1:
			return nil, fmt.Errorf("it has %s %d times", ShowKey(key), len(list))
		case list[0] == "":
			return nil, fmt.Errorf("it has no value for %s", ShowKey(key))
		default:
			options[key] = list[0]
		}
	}
	return options, nil
}

// ShowKey quotes a key of a query unless it looks like a value in the wrong place.
func ShowKey(key string) string {
	if regexp.MustCompile(`^[a-z][a-z_-]{0,23}$`).MatchString(key) {
		return strconv.Quote(key)
	}
	return "a key that is not shown, since it could be a secret"
}
