package awskms

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	single = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	multi  = "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
)

func TestParse(t *testing.T) {
	a, err := parse("awskms:///" + single)
	require.NoError(t, err)
	assert.Equal(t, single, a.key.String())
	assert.Equal(t, "awskms:"+single, a.key.name())
	assert.Equal(t, "eu-central-1", a.region)

	a, err = parse("awskms:///" + multi + "?region=us-gov-east-1&profile=key%20wright&endpoint=https%3A%2F%2F[::1]:8443/")
	require.NoError(t, err)
	assert.Equal(t, "us-gov-east-1", a.region)
	assert.Equal(t, "key wright", a.profile)
	assert.Equal(t, "https://[::1]:8443/", a.endpoint)
	assert.Equal(t, "awskms:arn:aws-us-gov:kms::111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab", a.key.name())
	assert.Equal(t, strings.Replace(multi, "west", "east", 1), a.key.in(a.region).String())
}

func TestParseRefuses(t *testing.T) {
	at := "awskms:///" + single
	for uri, why := range map[string]string{
		"":                                 "awskms:///",
		"vault://host/transit/key":         "awskms:///",
		"awskms:" + single:                 "awskms:///",
		"awskms://host/" + single:          "nothing stands between",
		"awskms://AKIA:hunter2@/" + single: "nothing stands between",
		"awskms:///alias/keywright":        "alias",
		"awskms:///" + "arn:aws:kms:eu-central-1:111122223333:alias/keywright": "alias",
		"awskms:///1234abcd-12ab-34cd-56ef-1234567890ab":                       "bare key id",
		"awskms:///" + strings.ToUpper(single):                                 "by its ARN",
		at + "0":                                                               "by its ARN",
		at + "#x":                                                              "by its ARN",
		at + "?secret_access_key=hunter2":                                      "never from the URI",
		at + "?hunter2":                                                        "could be a secret",
		at + "?hunter2=1":                                                      "could be a secret",
		at + "?region=%zz":                                                     "not key=value",
		at + "?region=eu-central-1;x=1":                                        "not key=value",
		at + "?region=":                                                        "no value for",
		at + "?region=eu-central-1.evil":                                       "looks like",
		at + "?region=eu-west-1":                                               "multi-Region",
		at + "?region=eu-central-1&region=eu-central-1":                        "2 times",
		at + "?profile=":                                                       "no value for",
		at + "?profile=a%0ab":                                                  "section",
		at + "?endpoint=":                                                      "no value for",
		at + "?endpoint=kms.example.com":                                       "no URL",
		at + "?endpoint=https://:8443":                                         "no URL",
		at + "?endpoint=https://u:hunter2@host":                                "more than",
		at + "?endpoint=https://host/path":                                     "more than",
		at + "?endpoint=https://host?hunter2":                                  "more than",
		at + "?endpoint=http://kms.example.com":                                "not https",
		at + "?endpoint=http://127.0.0.1.evil.com":                             "not https",
		at + "?endpoint=ftp://127.0.0.1":                                       "not https",
		at + "?profile=" + strings.Repeat("a", maxURI):                         "at most",
	} {
		_, err := parse(uri)
		require.ErrorContains(t, err, why, uri)
		assert.NotContains(t, err.Error(), "hunter2")
	}
}

func TestLoopbackMayBePlain(t *testing.T) {
	for _, host := range []string{"127.0.0.1:4566", "127.9.9.9", "[::1]:80", "localhost"} {
		_, err := parse("awskms:///" + single + "?endpoint=http://" + host)
		require.NoError(t, err, host)
	}
}

func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, uri string) {
		a, err := parse(uri)
		if err != nil {
			return
		}
		again, err := parse(a.uri())
		require.NoError(t, err)
		require.Equal(t, a, again)
		require.NotContains(t, a.endpoint, "@")
		require.True(t, a.key.multiRegion() || a.region == a.key.region)
		key, err := parseARN(a.key.in(a.region).String())
		require.NoError(t, err)
		require.Equal(t, a.key.name(), key.name())
	})
}

// uri writes an address as parse reads it.
func (a address) uri() string {
	query := url.Values{"region": {a.region}}
	if a.endpoint != "" {
		query.Set("endpoint", a.endpoint)
	}
	if a.profile != "" {
		query.Set("profile", a.profile)
	}
	return "awskms:///" + a.key.String() + "?" + query.Encode()
}
