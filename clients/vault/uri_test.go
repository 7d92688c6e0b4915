package vault

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRightURIs(t *testing.T) {
	for uri, want := range map[string]config{
		"vault://vault.example/transit/keywright?auth=token&token-file=/run/token": {
			host: "vault.example:8200", mount: "transit", key: "keywright", auth: "token", authPath: "token", tokenFile: "/run/token",
		},
		"vault://VAULT.example:443/team/a/transit/k?auth=approle&role-id-file=role-id&secret-id-file=/s&namespace=ns/prod/&ca-file=/ca.pem&auth-path=team/approle": {
			host: "vault.example:443", mount: "team/a/transit", key: "k", namespace: "ns/prod", caFile: "/ca.pem",
			auth: "approle", authPath: "team/approle", roleIDFile: "role-id", secretIDFile: "/s",
		},
		"vault://[2001:DB8::1]/transit/k?auth=kubernetes&role=keywright&name=main": {
			host: "[2001:db8::1]:8200", mount: "transit", key: "k", name: "main",
			auth: "kubernetes", authPath: "kubernetes", role: "keywright", jwtFile: serviceAccount,
		},
		"vault://10.0.0.1/transit/k?auth=cert&cert-file=/c&key-file=/k&server-name=vault.example&role=web": {
			host: "10.0.0.1:8200", mount: "transit", key: "k", serverName: "vault.example",
			auth: "cert", authPath: "cert", role: "web", certFile: "/c", keyFile: "/k",
		},
		"vault://127.0.0.1:8100/transit/k?auth=token&token-file=/t&tls=off": {
			host: "127.0.0.1:8100", plain: true, mount: "transit", key: "k", auth: "token", authPath: "token", tokenFile: "/t",
		},
		"vault://vault:8200/transit/k?auth=token&token-file=/t&tls=off-over-network": {
			host: "vault:8200", plain: true, mount: "transit", key: "k", auth: "token", authPath: "token", tokenFile: "/t",
		},
	} {
		t.Run(uri, func(t *testing.T) {
			got, err := parse(uri)
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
	_, err := parse(example)
	require.NoError(t, err)
}

func TestWrongURIs(t *testing.T) {
	const token = "?auth=token&token-file=/t"
	for uri, why := range map[string]string{
		"":                                                            "does not begin with vault://",
		"https://vault:8200/transit/k":                                "does not begin with vault://",
		"vault:vault:8200/transit/k":                                  "does not begin with vault://",
		"vault://%zz/transit/k":                                       "not a URI",
		"vault:///transit/k" + token:                                  "no host",
		"vault://va ult/transit/k":                                    "not a URI",
		"vault://[::1%25eth0]/transit/k":                              "no host",
		"vault://a:0/transit/k":                                       "its port",
		"vault://a:65536/transit/k":                                   "its port",
		"vault://a:08200/transit/k":                                   "its port",
		"vault://a/transit" + token:                                   "not /MOUNT/KEY",
		"vault://a/transit/" + token:                                  "not /MOUNT/KEY",
		"vault://a//k" + token:                                        "not /MOUNT/KEY",
		"vault://a/x/../k" + token:                                    "not /MOUNT/KEY",
		"vault://a/x/%2e%2e/k" + token:                                "not /MOUNT/KEY",
		"vault://a/x/y%2fk" + token:                                   "not /MOUNT/KEY",
		"vault://a/transit/k":                                         "its auth is not one of",
		"vault://a/transit/k?auth=ldap":                               "its auth is not one of",
		"vault://a/transit/k?auth=token":                              "no token-file, which auth=token needs",
		"vault://a/transit/k?auth=%zz":                                "not key=value",
		"vault://a/transit/k?auth=cert":                               "no cert-file",
		"vault://a/t/k?auth=kubernetes":                               "no role",
		"vault://a/t/k?auth=approle":                                  "no role-id-file",
		"vault://a/t/k" + token + "#x":                                "fragment",
		"vault://a/t/k" + token + "&rol=x":                            `"rol", which is not known with auth=token`,
		"vault://a/t/k" + token + "&role=x":                           `"role", which is not known with auth=token`,
		"vault://a/t/k" + token + "&auth=token":                       `"auth" 2 times`,
		"vault://a/t/k" + token + "&name=":                            `no value for "name"`,
		"vault://a/t/k" + token + "&name=Main":                        "its name is not",
		"vault://a/t/k" + token + "&name=a:1":                         "its name is not",
		"vault://a/t/k" + token + "&tls=off":                          "for loopback addresses",
		"vault://a/t/k" + token + "&tls=no":                           "its tls is not off",
		"vault://127.0.0.1/t/k" + token + "&tls=off&ca-file=/c":       "tls=off beside",
		"vault://a/t/k" + token + "&ca-file=../ca":                    "neither an absolute path nor the name of a credential",
		"vault://a/t/k" + token + "&ca-file=/a/../ca":                 "neither an absolute path nor the name of a credential",
		"vault://a/t/k" + token + "&cert-file=/c":                     "only one of cert-file and key-file",
		"vault://a/t/k" + token + "&namespace=a//b":                   "its namespace is not a path",
		"vault://a/t/k" + token + "&server-name=/":                    "its server-name is no host name",
		"vault://a/t/k" + token + "&x=" + strings.Repeat("a", maxURI): "longer than",
	} {
		t.Run(uri[:min(len(uri), 80)], func(t *testing.T) {
			_, err := parse(uri)
			require.ErrorContains(t, err, why)
			assert.ErrorContains(t, err, example)
		})
	}
}

func TestSecretsInAURIAreRefusedAndNotRepeated(t *testing.T) {
	const hidden = "hvs.CAESIJ3x"
	for _, uri := range []string{
		"vault://" + hidden + "@a/transit/k?auth=token&token-file=/t",
		"vault://u:" + hidden + "@a/transit/k?auth=token&token-file=/t",
		"vault://a/transit/k?auth=token&token=" + hidden,
		"vault://a/transit/k?auth=approle&role-id-file=/r&secret-id=" + hidden,
		"vault://a/transit/k?auth=approle&role-id-file=/r&secret_id=" + hidden,
		"vault://a/transit/k?auth=kubernetes&role=r&jwt=" + hidden,
		"vault://a/transit/k?auth=" + hidden,
		"vault://a/transit/k?auth=token&token-file=/t&" + hidden + "=1",
		"vault://a/transit/k?auth=token&token-file=/t&" + hidden,
		"vault://a/transit/k?auth=token&token-file=/t&name=" + hidden,
		"vault://a/transit/k?auth=token&token-file=/t#" + hidden,
		"vault://a:" + hidden + "/transit/k",
		"vault://a/transit/k?auth=token&token-file=" + hidden + "%zz",
	} {
		_, err := parse(uri)
		require.Error(t, err, uri)
		assert.ErrorContains(t, err, example)
		assert.NotContains(t, err.Error(), hidden)
	}
}

func name(t *testing.T, uri string) string {
	t.Helper()
	c, err := parse(uri + "?auth=token&token-file=/t")
	require.NoError(t, err)
	return c.stableName()
}

func TestOneKeyHasOneName(t *testing.T) {
	of := func(uri string) string {
		c, err := parse(uri)
		require.NoError(t, err)
		return c.stableName()
	}
	const token = "&auth=token&token-file=/t"
	assert.Equal(t, "vault:a:8200/transit/k", of("vault://A/transit/k?"+token[1:]))
	assert.Equal(t, name(t, "vault://a:8200/transit/k"), of("vault://a/transit/k?auth=kubernetes&role=x&ca-file=/ca"))
	// In Vault, a namespace is the beginning of a path.
	assert.Equal(t, name(t, "vault://a/ns/team/transit/k"), of("vault://a/team/transit/k?namespace=ns"+token))
	assert.Equal(t, of("vault://a/transit/k?name=main"+token), of("vault://10.0.0.1:443/transit/k?name=main"+token))

	names := map[string]bool{}
	for _, uri := range []string{
		"vault://a/transit/k?", "vault://a:443/transit/k?", "vault://b/transit/k?", "vault://a/transit/K?", "vault://a/transit/x/k?",
		"vault://a/transit/k?namespace=n&", "vault://a/transit/k?name=a&", "vault://[::1]/transit/k?",
	} {
		names[of(uri+token[1:])] = true
	}
	assert.Len(t, names, 8)
}

func FuzzURI(f *testing.F) {
	for _, seed := range []string{
		example,
		"vault://127.0.0.1:8100/transit/k?auth=token&token-file=t&tls=off",
		"vault://[2001:db8::1]/a/b/c?auth=kubernetes&role=r&namespace=n/m&name=main",
		"vault://h/t/k?auth=cert&cert-file=/c&key-file=/k&server-name=s&auth-path=x/y",
		"vault://u:p@h/t/k?auth=token&token=x#y",
		"vault://h/t/../k?auth=token&auth=token&%zz",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		c, err := parse(uri)
		if err != nil {
			assert.Zero(t, c)
			return
		}
		assert.Regexp(t, `^vault:[a-z0-9_.:\[\]-]+(/[\w.-]+){2,}$`, c.stableName())
		assert.NotContains(t, "/"+c.path("encrypt")+"/", "/../")
		again, err := parse(c.uri())
		require.NoError(t, err, c.uri())
		assert.Equal(t, c, again)
	})
}
