package awskms

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"keywright.dev/kms/root/local"
)

const (
	scheme = "awskms:"
	maxURI = 2048
	// example ends the errors about a URI.
	example = "want awskms:///arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab?region=eu-central-1"
)

var (
	arnForm     = regexp.MustCompile(`^arn:(aws[a-z-]{0,16}):kms:([a-z]{2}(?:-[a-z0-9]{1,16}){1,4}):([0-9]{12}):key/(mrk-[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
	aliasForm   = regexp.MustCompile(`^(arn:.*:)?alias/`)
	regionForm  = regexp.MustCompile(`^[a-z]{2}(-[a-z0-9]{1,16}){1,4}$`)
	profileForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 _.@+/-]{0,127}$`)
)

// keyARN names a key.
type keyARN struct{ partition, region, account, id string }

// multiRegion tells whether other regions can have the same key.
func (k keyARN) multiRegion() bool { return strings.HasPrefix(k.id, "mrk-") }

// in names the same key in another region.
func (k keyARN) in(region string) keyARN {
	k.region = region
	return k
}

// String returns the ARN.
func (k keyARN) String() string {
	return strings.Join([]string{"arn", k.partition, "kms", k.region, k.account, "key/" + k.id}, ":")
}

// name is the same wherever the key is asked. A multi-Region key has its id in
// every region of its account.
func (k keyARN) name() string {
	if k.multiRegion() {
		k.region = ""
	}
	return scheme + k.String()
}

// address is what a URI says.
type address struct {
	key      keyARN
	region   string
	endpoint string // empty for the region's public one
	profile  string // empty for the default chain
}

// parse reads a URI. Its errors quote nothing of it that could be a credential.
func parse(uri string) (address, error) {
	if len(uri) > maxURI {
		return address{}, fmt.Errorf("the URI has %d bytes, at most %d are read", len(uri), maxURI)
	}
	rest, ok := strings.CutPrefix(uri, scheme+"///")
	if !ok {
		return address{}, errors.New("the URI does not begin with awskms:/// and an ARN, and nothing stands between the slashes: " + example)
	}
	arn, query, _ := strings.Cut(rest, "?")
	key, err := parseARN(arn)
	if err != nil {
		return address{}, err
	}
	a := address{key: key, region: key.region}
	values, err := local.ParseQuery(query)
	if err != nil {
		return address{}, fmt.Errorf("reading the URI: %w: %s", err, example)
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := a.set(name, values[name]); err != nil {
			return address{}, err
		}
	}
	if a.region != key.region && !key.multiRegion() {
		return address{}, fmt.Errorf("region %s does not have the key, which is of %s alone: "+
			"leave region out, or use a multi-Region key, whose id begins with mrk-", a.region, key.region)
	}
	return a, nil
}

func parseARN(arn string) (keyARN, error) {
	if aliasForm.MatchString(arn) {
		return keyARN{}, errors.New("the URI names an alias, which somebody can let mean another key: " +
			"use the key's ARN, as aws kms describe-key shows it; " + example)
	}
	parts := arnForm.FindStringSubmatch(arn)
	if parts == nil {
		return keyARN{}, errors.New("the URI does not name a key by its ARN (a bare key id is not enough): " + example)
	}
	return keyARN{parts[1], parts[2], parts[3], parts[4]}, nil
}

func (a *address) set(name, value string) error {
	switch name {
	case "region":
		a.region = value
		return check(regionForm.MatchString(value), "the URI's region is none: it looks like eu-central-1")
	case "profile":
		a.profile = value
		return check(profileForm.MatchString(value), "the URI's profile is none: it is the name of a section of ~/.aws/config")
	case "endpoint":
		a.endpoint = value
		return checkEndpoint(value)
	default:
		return fmt.Errorf("the URI's query has %s, and only region, endpoint and profile are known; "+
			"credentials come from a profile or the environment, never from the URI", local.ShowKey(name))
	}
}

func check(ok bool, message string) error {
	if ok {
		return nil
	}
	return errors.New(message)
}

// checkEndpoint refuses to send keys in the clear, other than to this machine.
func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return errors.New("the URI's endpoint is no URL: it looks like https://vpce-0123.kms.eu-central-1.vpce.amazonaws.com")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(endpoint, "?#") || strings.Trim(u.Path, "/") != "" {
		return errors.New("the URI's endpoint has more than scheme, host and port: it looks like https://kms.example.com:8443")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return errors.New("the URI's endpoint is not https, over which keys are sent; http is for this machine alone")
	}
	return nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.IsLoopback())
}
