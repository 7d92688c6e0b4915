package awskms_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"keywright.dev/test/awskms"
)

const region = "eu-central-1"

// caller is somebody who signs requests with the SDK's signer, and can spoil them.
type caller struct {
	server *awskms.Server
	awskms.Credentials
	region, service string
	at              time.Time
	change          func(*http.Request) // after signing
	body            []byte              // sent instead of what was signed
}

func start(t *testing.T) caller {
	s := awskms.Start(t)
	return caller{server: s, Credentials: s.AddUser(t), region: region, service: "kms", at: time.Now()}
}

type answer struct {
	awskms.Answer
	Type    string `json:"__type"`
	Message string `json:"message"`
	status  int
}

func (c caller) request(t *testing.T, operation string, in any) *http.Request {
	t.Helper()
	text, err := json.Marshal(in)
	require.NoError(t, err)
	sent := text
	if c.body != nil {
		sent = c.body
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.server.URL+"/", bytes.NewReader(sent))
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "TrentService."+operation)
	sum := sha256.Sum256(text)
	err = v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
	}, r, hex.EncodeToString(sum[:]), c.service, c.region, c.at)
	require.NoError(t, err)
	if c.change != nil {
		c.change(r)
	}
	return r
}

func (c caller) call(t *testing.T, operation string, in any) (a answer) {
	t.Helper()
	response, err := http.DefaultClient.Do(c.request(t, operation, in))
	require.NoError(t, err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &a))
	a.status = response.StatusCode
	return a
}

type in map[string]any

func encryption(arn string) in {
	return in{"KeyId": arn, "Plaintext": []byte("plaintext"), "EncryptionContext": map[string]string{"a": "1", "b": "2"}}
}

func decryption(arn string, blob []byte) in {
	return in{"KeyId": arn, "CiphertextBlob": blob, "EncryptionContext": map[string]string{"b": "2", "a": "1"}}
}

func TestOpensWhatItEncrypted(t *testing.T) {
	c := start(t)
	arn := c.server.AddKey(t, region, false)
	encrypted := c.call(t, "Encrypt", encryption(arn))
	require.Equal(t, http.StatusOK, encrypted.status, encrypted.Message)
	assert.Equal(t, arn, encrypted.KeyID)
	assert.NotContains(t, string(encrypted.CiphertextBlob), "plaintext")
	decrypted := c.call(t, "Decrypt", decryption(arn, encrypted.CiphertextBlob))
	assert.Equal(t, "plaintext", string(decrypted.Plaintext))
	assert.Equal(t, arn, decrypted.KeyID)
}

// Each refusal has its one reason: the request is right in all else.
func TestRefusesWhoDidNotSign(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*caller)
		kind  string
	}{
		"nobody":              {func(c *caller) { c.change = drop("Authorization") }, "MissingAuthenticationTokenException"},
		"another form":        {func(c *caller) { c.change = set("Authorization", "Basic eDp5") }, "IncompleteSignatureException"},
		"unknown key":         {func(c *caller) { c.AccessKeyID = "AKIA0" }, "UnrecognizedClientException"},
		"another token":       {func(c *caller) { c.SessionToken = "0" }, "UnrecognizedClientException"},
		"no token":            {func(c *caller) { c.SessionToken = "" }, "UnrecognizedClientException"},
		"ended session":       {func(c *caller) { c.server.Expire(c.Credentials) }, "ExpiredTokenException"},
		"wrong secret key":    {func(c *caller) { c.SecretAccessKey += "0" }, "InvalidSignatureException"},
		"altered body":        {func(c *caller) { c.body = []byte(`{"KeyId":"x"}`) }, "InvalidSignatureException"},
		"altered target":      {func(c *caller) { c.change = set("X-Amz-Target", "TrentService.Decrypt") }, "InvalidSignatureException"},
		"altered date":        {func(c *caller) { c.change = set("X-Amz-Date", c.at.Add(time.Minute).UTC().Format("20060102T150405Z")) }, "InvalidSignatureException"},
		"altered path":        {func(c *caller) { c.change = func(r *http.Request) { r.URL.Path = "/other" } }, "InvalidSignatureException"},
		"altered query":       {func(c *caller) { c.change = func(r *http.Request) { r.URL.RawQuery = "a=b" } }, "InvalidSignatureException"},
		"altered host":        {func(c *caller) { c.change = func(r *http.Request) { r.Host = "kms.example.com" } }, "InvalidSignatureException"},
		"stale date":          {func(c *caller) { c.at = c.at.Add(-6 * time.Minute) }, "InvalidSignatureException"},
		"date to come":        {func(c *caller) { c.at = c.at.Add(6 * time.Minute) }, "InvalidSignatureException"},
		"for another service": {func(c *caller) { c.service = "s3" }, "InvalidSignatureException"},
	} {
		t.Run(name, func(t *testing.T) {
			caller := start(t)
			arn := caller.server.AddKey(t, region, false)
			require.Equal(t, http.StatusOK, caller.call(t, "Encrypt", encryption(arn)).status)
			c.spoil(&caller)
			refused := caller.call(t, "Encrypt", encryption(arn))
			assert.Equal(t, http.StatusBadRequest, refused.status)
			assert.Equal(t, c.kind, refused.Type)
			assert.Empty(t, refused.CiphertextBlob)
		})
	}
}

func drop(name string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Del(name) }
}

func set(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func TestRefusesTheWrongRequest(t *testing.T) {
	c := start(t)
	arn, other := c.server.AddKey(t, region, false), c.server.AddKey(t, region, false)
	blob := c.call(t, "Encrypt", encryption(arn)).CiphertextBlob
	altered := bytes.Clone(blob)
	altered[len(altered)-1] ^= 1
	context := decryption(arn, blob)
	context["EncryptionContext"] = map[string]string{"a": "1"}
	elsewhere := c
	elsewhere.region = "us-west-2"
	for name, got := range map[string]struct {
		answer answer
		kind   string
	}{
		"other context":     {c.call(t, "Decrypt", context), "InvalidCiphertextException"},
		"altered":           {c.call(t, "Decrypt", decryption(arn, altered)), "InvalidCiphertextException"},
		"cut off":           {c.call(t, "Decrypt", decryption(arn, blob[:7])), "InvalidCiphertextException"},
		"other key":         {c.call(t, "Decrypt", decryption(other, blob)), "IncorrectKeyException"},
		"unknown key":       {c.call(t, "Decrypt", decryption(arn+"0", blob)), "NotFoundException"},
		"bare id":           {c.call(t, "Decrypt", decryption(arn[len(arn)-36:], blob)), "NotFoundException"},
		"other region":      {elsewhere.call(t, "Decrypt", decryption(arn, blob)), "NotFoundException"},
		"no ciphertext":     {c.call(t, "Decrypt", decryption(arn, nil)), "ValidationException"},
		"large plaintext":   {c.call(t, "Encrypt", in{"KeyId": arn, "Plaintext": make([]byte, 4097)}), "ValidationException"},
		"unknown field":     {c.call(t, "Encrypt", in{"KeyID_": arn}), "SerializationException"},
		"unknown operation": {c.call(t, "ScheduleKeyDeletion", in{}), "UnknownOperationException"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, http.StatusBadRequest, got.answer.status)
			assert.Equal(t, got.kind, got.answer.Type)
			assert.Empty(t, got.answer.Plaintext)
		})
	}
}

func TestKeyStates(t *testing.T) {
	c := start(t)
	arn := c.server.AddKey(t, region, false)
	for state, kind := range map[awskms.State]string{
		awskms.Enabled: "", awskms.Disabled: "DisabledException",
		awskms.PendingDeletion: "KMSInvalidStateException", awskms.PendingImport: "KMSInvalidStateException",
	} {
		c.server.SetState(arn, state)
		assert.Equal(t, kind, c.call(t, "Encrypt", encryption(arn)).Type)
	}
}

func TestPolicies(t *testing.T) {
	c := start(t)
	arn, other := c.server.AddKey(t, region, false), c.server.AddKey(t, region, false)
	allow := func(s awskms.Statement) string {
		c.server.Allow(c.Credentials, awskms.Policy{Statement: []awskms.Statement{s}})
		return c.call(t, "Encrypt", encryption(arn)).Type
	}
	const denied = "AccessDeniedException"
	actions, keys := []string{"kms:Encrypt"}, []string{arn}
	assert.Empty(t, allow(awskms.Statement{Effect: "Allow", Action: actions, Resource: keys}))
	assert.Empty(t, allow(awskms.Statement{Effect: "Allow", Action: []string{"kms:En*"}, Resource: []string{"arn:aws:kms:*:key/*"}}))
	assert.Equal(t, denied, allow(awskms.Statement{Effect: "Deny", Action: actions, Resource: keys}))
	assert.Equal(t, denied, allow(awskms.Statement{Effect: "Allow", Action: []string{"kms:Decrypt"}, Resource: keys}))
	assert.Equal(t, denied, allow(awskms.Statement{Effect: "Allow", Action: actions, Resource: []string{other}}))
	for _, condition := range []struct{ operator, key, value, want string }{
		{"StringEquals", "kms:EncryptionContext:a", "1", ""},
		{"StringLike", "kms:EncryptionContext:a", "*", ""},
		{"StringEquals", "kms:EncryptionContext:a", "*", denied},
		{"StringEquals", "kms:EncryptionContext:c", "1", denied},
		{"StringEquals", "kms:ViaService", "1", denied},
		{"NumericEquals", "kms:EncryptionContext:a", "1", denied},
	} {
		when := map[string]map[string]string{condition.operator: {condition.key: condition.value}}
		got := allow(awskms.Statement{Effect: "Allow", Action: actions, Resource: keys, Condition: when})
		assert.Equal(t, condition.want, got, condition)
	}
	c.server.Allow(c.Credentials, awskms.Nothing())
	assert.Equal(t, denied, c.call(t, "Encrypt", encryption(arn)).Type)
}

func TestReplicasShareAKey(t *testing.T) {
	c := start(t)
	arn := c.server.AddKey(t, region, true)
	blob := c.call(t, "Encrypt", encryption(arn)).CiphertextBlob
	c.region = "us-west-2"
	replica := c.server.Replicate(arn, c.region)
	c.server.Rotate(t, arn)
	decrypted := c.call(t, "Decrypt", decryption(replica, blob))
	assert.Equal(t, "plaintext", string(decrypted.Plaintext))
	assert.Equal(t, replica, decrypted.KeyID)
}
