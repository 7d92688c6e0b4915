package local

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
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
	options, err := parseOptions(u.RawQuery, keys)
	return Location{u.Path, options}, err
}

func parseOptions(query string, known []string) (map[string]string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("what follows its question mark is not key=value&key=value")
	}
	options := make(map[string]string, len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch list := values[key]; {
		case !slices.Contains(known, key):
			return nil, fmt.Errorf("it has an unknown key %.40q: known are %s", key, strings.Join(known, ", "))
		case len(list) > 1:
			return nil, fmt.Errorf("it has %q %d times", key, len(list))
		case list[0] == "":
			return nil, fmt.Errorf("its %q is empty", key)
		default:
			options[key] = list[0]
		}
	}
	return options, nil
}
