package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// errNoOther says that there is no token but the one that was rejected.
var errNoOther = errors.New("there is no other token")

// authenticator signs in.
type authenticator interface {
	// token returns one that is not rejected, which is empty at first.
	token(ctx context.Context, rejected secret.Bytes) (secret.Bytes, error)
}

// authenticate returns the way to sign in that the URI names, and what ends what
// it does in the background.
func (r *Root) authenticate(ctx context.Context, files files) (authenticator, func()) {
	c := r.config
	l := &login{root: r, turn: make(chan struct{}, 1)}
	switch c.auth {
	case byToken:
		k := newKeeper(ctx, r)
		return &tokenFile{c.tokenFile, files, k}, k.close
	case byAppRole:
		l.body = func() (secret.Bytes, error) { return appRoleBody(c, files) }
	case byKubernetes:
		l.body = func() (secret.Bytes, error) { return kubernetesBody(c, files) }
	default:
		l.body = func() (secret.Bytes, error) { return object(field{"name", []byte(c.role)}) }
	}
	return l, func() {}
}

// tokenFile is a token that somebody else keeps in a file: Vault Agent, or a person.
type tokenFile struct {
	name   string
	files  files
	keeper *keeper
}

func (t *tokenFile) token(ctx context.Context, rejected secret.Bytes) (secret.Bytes, error) {
	token, err := word(t.files.private(t.name))
	if err != nil {
		return secret.Bytes{}, unreadable("token-file", err)
	}
	if token.Equal(rejected) {
		token.Wipe()
		return secret.Bytes{}, errNoOther
	}
	t.keeper.keep(token)
	return token, nil
}

// unreadable says which file it is about. One that is not there may come, as
// where an agent writes it.
func unreadable(what string, err error) error {
	class := root.ErrRefused
	if errors.Is(err, fs.ErrNotExist) {
		class = root.ErrUnavailable
	}
	return &failure{class: class, text: fmt.Sprintf("reading the %s: %v", what, err)}
}

// login signs in with something else than a token, and again before the token
// that it got ends.
type login struct {
	root *Root
	body func() (secret.Bytes, error) // of the request, made anew for each

	turn    chan struct{} // held by who signs in
	current session
}

// session is what a login got.
type session struct {
	token         secret.Bytes
	renewAt, ends time.Time // zero: never
}

// serves tells whether the token is good until a time of the session.
func (s session) serves(now, until time.Time, rejected secret.Bytes) bool {
	return s.token.Len() > 0 && !s.token.Equal(rejected) && (until.IsZero() || now.Before(until))
}

func (l *login) token(ctx context.Context, rejected secret.Bytes) (secret.Bytes, error) {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return secret.Bytes{}, &failure{class: root.ErrUnavailable, cause: ctx.Err(), text: "waiting to sign in: " + ctx.Err().Error()}
	}
	now := l.root.options.Clock()
	if l.current.serves(now, l.current.renewAt, rejected) {
		return l.current.token, nil
	}
	s, err := l.signIn(ctx)
	if err != nil && l.current.serves(now, l.current.ends, rejected) {
		return l.current.token, nil // the next call tries again
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("signing in at auth/%s: %w", l.root.config.authPath, err)
	}
	l.current = s
	return s.token, nil
}

func (l *login) signIn(ctx context.Context) (session, error) {
	body, err := l.body()
	if err != nil {
		return session{}, err
	}
	sent := &outgoing{body: body}
	defer sent.end()
	began := l.root.options.Clock()
	path := "auth/" + l.root.config.authPath + "/login"
	answer, err := l.root.send(sent.in(ctx), secret.Bytes{}, request{http.MethodPut, path, body})
	if f := new(failure); errors.As(err, &f) {
		// The caller must not take it for the answer to its own request.
		f.status = 0
		return session{}, f
	}
	if err != nil {
		return session{}, err
	}
	return parseSession(answer, began)
}

func parseSession(answer secret.Bytes, began time.Time) (session, error) {
	defer answer.Wipe()
	var read struct {
		Auth struct {
			Token string `json:"client_token"`
			Lease int32  `json:"lease_duration"` // in seconds
		} `json:"auth"`
	}
	if json.Unmarshal(answer.Expose(), &read) != nil {
		return session{}, malformed("it is not in JSON")
	}
	token, err := word(secret.Copy([]byte(read.Auth.Token)), nil)
	if err != nil || read.Auth.Lease < 0 {
		return session{}, malformed("it has no token")
	}
	s := session{token: token}
	if lease := time.Duration(read.Auth.Lease) * time.Second; lease > 0 {
		s.renewAt, s.ends = began.Add(lease*2/3), began.Add(lease)
	}
	return s, nil
}

func appRoleBody(c config, files files) (secret.Bytes, error) {
	role, err := word(files.private(c.roleIDFile))
	if err != nil {
		return secret.Bytes{}, unreadable("role-id-file", err)
	}
	defer role.Wipe()
	id, err := word(files.private(c.secretIDFile))
	if err != nil {
		return secret.Bytes{}, unreadable("secret-id-file", err)
	}
	defer id.Wipe()
	return object(field{"role_id", role.Expose()}, field{"secret_id", id.Expose()})
}

func kubernetesBody(c config, files files) (secret.Bytes, error) {
	// Kubernetes lets everybody in the container read it.
	jwt, err := word(files.public(c.jwtFile))
	if err != nil {
		return secret.Bytes{}, unreadable("jwt-file", err)
	}
	defer jwt.Wipe()
	return object(field{"role", []byte(c.role)}, field{"jwt", jwt.Expose()})
}

type field struct {
	name  string
	value []byte // printable ASCII
}

// object is a JSON object of the fields that are not empty.
func object(fields ...field) (secret.Bytes, error) {
	size := len("{}")
	for _, f := range fields {
		size += len(f.name) + len(f.value) + len(`"":"",`)
	}
	text := append(make([]byte, 0, size), '{')
	for _, f := range fields {
		if len(f.value) == 0 {
			continue
		}
		if containsQuote(f.value) {
			clear(text)
			return secret.Bytes{}, refused("the %s has a quote or backslash in it, as none of Vault's has", f.name)
		}
		if len(text) > 1 {
			text = append(text, ',')
		}
		text = append(text, `"`+f.name+`":"`...)
		text = append(append(text, f.value...), '"')
	}
	return secret.New(append(text, '}')), nil
}

func containsQuote(value []byte) bool {
	for _, c := range value {
		if c == '"' || c == '\\' {
			return true
		}
	}
	return false
}
