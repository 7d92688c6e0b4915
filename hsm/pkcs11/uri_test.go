package pkcs11

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const query = "?module-path=/usr/lib/m.so&pin-source=file:/etc/pin"

func TestParse(t *testing.T) {
	full := address{
		token: "The Software PKCS#11 Softtoken", manufacturer: "Snake Oil, Inc.", model: "1.0", serial: "0123",
		object: "clé", id: []byte{0, 0xff, 'a'}, module: "/usr/lib/m.so", pin: "/etc/p n",
	}
	for uri, want := range map[string]address{
		"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;serial=0123;object=cl%c3%A9;type=secret-key;id=%00%FFa" +
			"?pin-source=file:///etc/p%20n&module-path=/usr/lib/m.so": full,
		"pkcs11:serial=1;id=%01" + query:                                        {serial: "1", id: []byte{1}, module: "/usr/lib/m.so", pin: "/etc/pin"},
		"pkcs11:object=k;token=t" + query:                                       {token: "t", object: "k", module: "/usr/lib/m.so", pin: "/etc/pin"},
		"pkcs11:token=t;object=k?pin-source=/etc/pin&module-path=/usr/lib/m.so": {token: "t", object: "k", module: "/usr/lib/m.so", pin: "/etc/pin"},
	} {
		got, err := parse(uri)
		require.NoError(t, err, uri)
		assert.Equal(t, want, got, uri)
		again, err := parse(got.String())
		require.NoError(t, err, got.String())
		assert.Equal(t, want, again)
	}
}

func TestParseRefuses(t *testing.T) {
	const key = "pkcs11:serial=1;id=%01"
	for uri, says := range map[string]string{
		"":                                                   "begins with pkcs11:",
		"PKCS11:serial=1;id=%01" + query:                     "begins with pkcs11:",
		"pkcs11:" + strings.Repeat("a", 9000):                "longer than 8192",
		"pkcs11:":                                            "give serial",
		"pkcs11:serial=1" + query:                            "give id",
		"pkcs11:id=%01" + query:                              "give serial",
		key:                                                  "module-path",
		key + "?module-path=/m.so":                           "pin-source",
		key + "?pin-source=file:/p":                          "module-path",
		key + ";" + query:                                    "without name and =",
		key + ";=1" + query:                                  "without name and =",
		key + ";id=%02" + query:                              `"id" twice`,
		key + ";object=" + query:                             "is empty",
		key + ";object=a%" + query:                           "middle",
		key + ";object=a%0" + query:                          "middle",
		key + ";object=a%zz" + query:                         "two hex digits",
		key + ";object=a b" + query:                          "%20",
		key + ";object=a/b" + query:                          "%2F",
		key + ";object=a%00" + query:                         "printable",
		key + ";object=%ff" + query:                          "printable",
		key + ";object=" + strings.Repeat("a", 257):          "longer than 256",
		"pkcs11:serial=1;id=" + strings.Repeat("a", 129):     "longer than 128",
		key + ";type=private" + query:                        "secret-key",
		key + ";slot-id=327" + query:                         "slot-id",
		key + ";library-version=3" + query:                   "library-version",
		key + ";x-vend=1" + query:                            "none of a vendor",
		key + ";pin-source=file:/p" + query:                  "question mark",
		key + query + "&x-vend=1":                            "none of a vendor",
		key + query + "&object=k":                            "no attribute",
		key + query + "&module-name=m":                       "module-path",
		key + "?module-path=m.so":                            "absolute",
		key + "?module-path=/usr/../m.so":                    "absolute",
		key + "?module-path=/m.so&pin-source=|/bin/pin":      "program",
		key + "?module-path=/m.so&pin-source=file://host/p":  "absolute",
		key + "?module-path=/m.so&pin-source=https://host/p": "absolute",
		key + "?module-path=/m.so&pin-source=file:p":         "absolute",
		key + "?module-path=/m.so&pin-source=file:/p#x":      "%23",
	} {
		_, err := parse(uri)
		require.ErrorContains(t, err, says, uri)
	}
}

func TestPINInTheURIIsRefusedAndNotShown(t *testing.T) {
	for _, uri := range []string{
		"pkcs11:serial=1;id=%01" + query + "&pin-value=geheim",
		"pkcs11:serial=1;id=%01;pin-value=geheim" + query,
		"pkcs11:serial=1;id=%01?pin-value=geheim",
		"pkcs11:serial=1;id=%01;x-pin=geheim" + query,
		"pkcs11:serial=1;id=%01?module-path=/m&pin-source=geheim",
	} {
		_, err := parse(uri)
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "geheim")
	}
	_, err := parse("pkcs11:serial=1;id=%01" + query + "&pin-value=geheim")
	require.ErrorContains(t, err, "secret in a configuration")
}

func TestNameIsOfTokenAndKeyAlone(t *testing.T) {
	one, err := parse("pkcs11:token=a;serial=S%201;object=k;id=%01a" + query)
	require.NoError(t, err)
	other, err := parse("pkcs11:id=%01%61;serial=S%201?pin-source=/other&module-path=/other.so")
	require.NoError(t, err)
	name, whole := one.name()
	assert.True(t, whole)
	assert.Equal(t, "pkcs11:serial=S%201;id=%01%61", name)
	again, _ := other.name()
	assert.Equal(t, name, again)
	short, err := parse("pkcs11:token=a;serial=1;object=k" + query)
	require.NoError(t, err)
	_, whole = short.name()
	assert.False(t, whole)
}

func FuzzParse(f *testing.F) {
	for _, uri := range []string{
		// The examples of RFC 7512, section 3, and what makes a root of them.
		"pkcs11:", "pkcs11:object=my-pubkey;type=public", "pkcs11:object=my-key;type=private?pin-source=file:/etc/token",
		"pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;manufacturer=Snake%20Oil,%20Inc.;model=1.0;object=my-certificate;type=cert;" +
			"id=%69%95%3E%5C%F4%BD%EC%91;serial=?pin-source=file:/etc/token_pin",
		"pkcs11:object=my-sign-key;type=private?module-name=mypkcs11", "pkcs11:object=my-sign-key;type=private?module-path=/mnt/libmypkcs11.so.1",
		"pkcs11:token=Software%20PKCS%2311%20softtoken;manufacturer=Snake%20Oil,%20Inc.?pin-value=the-pin", "pkcs11:slot-description=Sun%20Metaslot",
		"pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token%20Library;library-version=1.23",
		"pkcs11:token=My%20token%25%20created%20by%20Joe;library-version=3;id=%01%02%03%Ba%dd%Ca%fe%04%05%06",
		"pkcs11:token=A%20name%20with%20a%20substring%20%25%3B;object=my-certificate;type=cert",
		"pkcs11:token=Name%20with%20a%20small%20A%20with%20acute:%20%C3%A1;object=my-certificate;type=cert",
		"pkcs11:token=my-token;object=my-certificate;type=cert;vendor-aaa=value-a?pin-source=file:/etc/token_pin&vendor-bbb=value-b",
		"pkcs11:token=a;object=b" + query, "pkcs11:serial=1;id=%69%95;type=secret-key?pin-source=file:///p%20n&module-path=/m.so",
	} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		a, err := parse(uri)
		if err != nil {
			assert.Less(t, len(err.Error()), 512)
			return
		}
		again, err := parse(a.String())
		require.NoError(t, err)
		require.Equal(t, a, again)
		require.Equal(t, a.String(), again.String())
		name, _ := a.name()
		again.module, again.pin, again.token = "/x", "/y", "z"
		same, _ := again.name()
		require.Equal(t, name, same)
	})
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, wrappedSize))
	f.Add(join(make([]byte, ivSize), make([]byte, sealedSize)))
	f.Add(append(join(make([]byte, ivSize), make([]byte, sealedSize)), 0))
	f.Fuzz(func(t *testing.T, ciphertext []byte) {
		iv, sealed, err := split(ciphertext)
		if err == nil {
			require.Equal(t, ciphertext, join(iv, sealed))
		}
	})
}
