package vault

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"keywright.dev/kms/root/local"
)

// The ways to sign in.
const (
	byToken      = "token"
	byAppRole    = "approle"
	byKubernetes = "kubernetes"
	byCert       = "cert"
)

const (
	scheme      = "vault"
	defaultPort = "8200"
	// serviceAccount is where Kubernetes puts a pod's token.
	serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/token"

	maxURI  = 4096
	maxPath = 512

	tlsOff            = "off"
	tlsOffOverNetwork = "off-over-network"
)

// example is what a right URI looks like.
const example = "vault://vault.example:8200/transit/keywright?auth=approle&role-id-file=/etc/keywright/role-id&secret-id-file=/etc/keywright/secret-id"

// config is what a URI says.
type config struct {
	host      string // with port, in lower case
	plain     bool   // HTTP without TLS
	namespace string
	mount     string
	key       string
	name      string // instead of host in the root's name

	auth     string
	authPath string // where the method is mounted
	role     string

	caFile, serverName                           string
	tokenFile, roleIDFile, secretIDFile, jwtFile string
	certFile, keyFile                            string
}

// keysOf returns the query keys that each way to sign in knows, beside common.
func keysOf(auth string) (required, optional []string) {
	switch auth {
	case byToken:
		return []string{"token-file"}, nil
	case byAppRole:
		return []string{"role-id-file", "secret-id-file"}, []string{"auth-path"}
	case byKubernetes:
		return []string{"role"}, []string{"jwt-file", "auth-path"}
	case byCert:
		return []string{"cert-file", "key-file"}, []string{"role", "auth-path"}
	default:
		return nil, nil
	}
}

func common() []string {
	return []string{"auth", "namespace", "name", "ca-file", "server-name", "tls", "cert-file", "key-file"}
}

// parse reads a URI. Its errors quote no value: somebody may have put a secret there.
func parse(uri string) (config, error) {
	c, err := parseParts(uri)
	if err != nil {
		return config{}, fmt.Errorf("%w; a right one looks like %s", err, example)
	}
	return c, nil
}

func parseParts(uri string) (config, error) {
	if len(uri) > maxURI {
		return config{}, fmt.Errorf("it is longer than %d bytes", maxURI)
	}
	u, err := url.Parse(uri)
	switch {
	case err != nil:
		return config{}, errors.New("it is not a URI")
	case u.Scheme != scheme || u.Opaque != "":
		return config{}, errors.New("it does not begin with vault://")
	case u.User != nil:
		return config{}, errors.New("it has a user or password before the host; credentials are in files that it names")
	case u.Fragment != "" || strings.Contains(uri, "#"):
		return config{}, errors.New("it has a fragment (#…)")
	}
	var c config
	if err := c.setHost(u); err != nil {
		return config{}, err
	}
	if err := c.setPath(u); err != nil {
		return config{}, err
	}
	values, err := local.ParseQuery(u.RawQuery)
	if err != nil {
		return config{}, err
	}
	return c, c.setQuery(values)
}

func (c *config) setHost(u *url.URL) error {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" {
		port = defaultPort
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 || strconv.FormatUint(number, 10) != port {
		return errors.New("its port is no number from 1 to 65535")
	}
	address, err := netip.ParseAddr(host)
	switch {
	case err == nil && address.Zone() == "":
		c.host = netip.AddrPortFrom(address.Unmap(), uint16(number)).String()
	case hostName().MatchString(host) && len(host) <= 253:
		c.host = host + ":" + port
	default:
		return errors.New("it has no host, or one that is neither a name nor an address")
	}
	return nil
}

func hostName() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9_]([a-z0-9_.-]*[a-z0-9])?$`) }

// segment is one part of a path, as Transit's key names are; neither dots alone
// nor what would have to be escaped.
func segment() *regexp.Regexp { return regexp.MustCompile(`^\w([\w.-]*\w)?$`) }

func isPath(path string) bool {
	valid := segment()
	return len(path) <= maxPath && !slices.ContainsFunc(strings.Split(path, "/"), func(s string) bool { return !valid.MatchString(s) })
}

func (c *config) setPath(u *url.URL) error {
	path, _ := strings.CutPrefix(u.EscapedPath(), "/")
	cut := strings.LastIndexByte(path, '/')
	if cut < 1 || !isPath(path) {
		return errors.New("its path is not /MOUNT/KEY, of letters, digits and . _ - between the slashes")
	}
	c.mount, c.key = path[:cut], path[cut+1:]
	return nil
}

// holdsSecret is for keys whose value would be a secret.
func holdsSecret(key string) bool {
	return slices.Contains([]string{"token", "secret-id", "secret_id", "jwt", "password", "pin", "key", "role-id", "role_id"}, key)
}

func (c *config) setQuery(values map[string]string) error {
	c.auth = values["auth"]
	required, optional := keysOf(c.auth)
	if required == nil {
		return errors.New("its auth is not one of token, approle, kubernetes, cert")
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch {
		case holdsSecret(key):
			return fmt.Errorf("it has a credential in it (%s); credentials are in files that it names", key)
		case !slices.Contains(slices.Concat(common(), required, optional), key):
			return fmt.Errorf("its query has %s, which is not known with auth=%s", local.ShowKey(key), c.auth)
		}
	}
	for _, key := range required {
		if values[key] == "" {
			return fmt.Errorf("its query has no %s, which auth=%s needs", key, c.auth)
		}
	}
	setters := c.setters()
	for _, key := range slices.Sorted(maps.Keys(setters)) {
		if value := values[key]; value != "" {
			if err := setters[key](value); err != nil {
				return fmt.Errorf("its %s %w", key, err)
			}
		}
	}
	c.setDefaults()
	return c.checkTogether()
}

func (c *config) setDefaults() {
	if c.auth == byKubernetes && c.jwtFile == "" {
		c.jwtFile = serviceAccount
	}
	if c.authPath == "" {
		c.authPath = c.auth
	}
}

func (c *config) checkTogether() error {
	switch {
	case (c.certFile == "") != (c.keyFile == ""):
		return errors.New("it names only one of cert-file and key-file")
	case c.plain && (c.caFile != "" || c.certFile != "" || c.serverName != ""):
		return errors.New("it has tls=off beside files or names for TLS")
	}
	return nil
}

func (c *config) setters() map[string]func(string) error {
	file := func(to *string) func(string) error {
		return func(value string) error { return setFile(to, value) }
	}
	path := func(to *string) func(string) error {
		return func(value string) error {
			*to = strings.Trim(value, "/")
			if !isPath(*to) {
				return errors.New("is not a path of letters, digits and . _ - between slashes")
			}
			return nil
		}
	}
	return map[string]func(string) error{
		"namespace":      path(&c.namespace),
		"auth-path":      path(&c.authPath),
		"role":           path(&c.role),
		"name":           c.setName,
		"tls":            c.setTLS,
		"server-name":    c.setServerName,
		"ca-file":        file(&c.caFile),
		"token-file":     file(&c.tokenFile),
		"role-id-file":   file(&c.roleIDFile),
		"secret-id-file": file(&c.secretIDFile),
		"jwt-file":       file(&c.jwtFile),
		"cert-file":      file(&c.certFile),
		"key-file":       file(&c.keyFile),
	}
}

func setFile(to *string, value string) error {
	if strings.ContainsRune(value, 0) || filepath.Clean(value) != value ||
		!filepath.IsAbs(value) && (strings.Contains(value, "/") || value == "." || value == "..") {
		return errors.New("is neither an absolute path nor the name of a credential")
	}
	*to = value
	return nil
}

func (c *config) setName(value string) error {
	if !regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`).MatchString(value) {
		return errors.New("is not of 1 to 63 lower-case letters, digits and dashes")
	}
	c.name = value
	return nil
}

func (c *config) setServerName(value string) error {
	if !hostName().MatchString(value) {
		return errors.New("is no host name in lower case")
	}
	c.serverName = value
	return nil
}

func (c *config) setTLS(value string) error {
	switch {
	case value == tlsOff && !c.isLoopback():
		return fmt.Errorf("=off is for loopback addresses; over a network keys would be readable to it (tls=%s asks for that)", tlsOffOverNetwork)
	case value != tlsOff && value != tlsOffOverNetwork:
		return errors.New("is not off; leave it out for TLS")
	}
	c.plain = true
	return nil
}

func (c *config) isLoopback() bool {
	if address, err := netip.ParseAddrPort(c.host); err == nil {
		return address.Addr().IsLoopback()
	}
	return strings.HasPrefix(c.host, "localhost:")
}

func (c *config) address() string {
	if c.plain {
		return "http://" + c.host
	}
	return "https://" + c.host
}

// stableName names the key. In Vault a namespace is the beginning of a path, so
// that how the two are told apart in the URI does not count. A host has a port
// and a name has no colon.
func (c *config) stableName() string {
	at := c.host
	if c.name != "" {
		at = c.name
	}
	if c.namespace != "" {
		at += "/" + c.namespace
	}
	return scheme + ":" + at + "/" + c.mount + "/" + c.key
}

// path is that of an operation on the key, such as transit/encrypt/KEY.
func (c *config) path(operation string) string {
	return c.mount + "/" + operation + "/" + c.key
}
