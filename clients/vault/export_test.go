package vault

import "net/url"

// uri writes what parse read.
func (c *config) uri() string {
	query := url.Values{"auth": {c.auth}}
	for key, value := range map[string]string{
		"namespace": c.namespace, "name": c.name, "role": c.role, "auth-path": c.authPath, "server-name": c.serverName,
		"ca-file": c.caFile, "token-file": c.tokenFile, "role-id-file": c.roleIDFile, "secret-id-file": c.secretIDFile,
		"jwt-file": c.jwtFile, "cert-file": c.certFile, "key-file": c.keyFile,
	} {
		if value != "" && (key != "auth-path" || c.auth != byToken) {
			query.Set(key, value)
		}
	}
	if c.plain {
		query.Set("tls", tlsOffOverNetwork)
	}
	return "vault://" + c.host + "/" + c.mount + "/" + c.key + "?" + query.Encode()
}
