package vault

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"keywright.dev/kms/root"
	"keywright.dev/kms/secret"
)

// prefix begins every ciphertext; the version's number and a colon follow.
const prefix = "vault:v"

// parseCiphertext returns the version of the key that a ciphertext names. Transit
// would take a version 0 for 1, and line feeds and stray bits in base64: only
// what it writes itself is let through.
func parseCiphertext(ciphertext []byte) (version int, err error) {
	fail := func(text string) (int, error) {
		return 0, &failure{class: root.ErrDoesNotOpen, text: text}
	}
	if len(ciphertext) > root.MaxWrapped {
		return fail(fmt.Sprintf("it has %d bytes, more than any of Transit's", len(ciphertext)))
	}
	rest, found := bytes.CutPrefix(ciphertext, []byte(prefix))
	number, body, colon := bytes.Cut(rest, []byte(":"))
	if !found || !colon {
		return fail("it does not begin with " + prefix + "N:")
	}
	version, err = strconv.Atoi(string(number))
	if err != nil || version < 1 || strconv.Itoa(version) != string(number) {
		return fail("its version is no number")
	}
	decoded, err := base64.StdEncoding.Strict().AppendDecode(nil, body)
	if err != nil || base64.StdEncoding.EncodeToString(decoded) != string(body) {
		return fail("it is not in base64")
	}
	return version, nil
}

// encryptBody and decryptBody write JSON by hand, so that no copy of a key stays
// behind.
func encryptBody(key secret.Bytes, context []byte) secret.Bytes {
	encoded := secret.New(base64.StdEncoding.AppendEncode(nil, key.Expose()))
	defer encoded.Wipe()
	return body("plaintext", encoded.Expose(), context)
}

func decryptBody(ciphertext, context []byte) secret.Bytes {
	return body("ciphertext", ciphertext, context)
}

// body is {"NAME":"VALUE","associated_data":"…"}; VALUE needs no escape.
func body(name string, value, context []byte) secret.Bytes {
	const before, between, after = `{"`, `","associated_data":"`, `"}`
	size := len(before) + len(name) + len(`":"`) + len(value) + len(between) + base64.StdEncoding.EncodedLen(len(context)) + len(after)
	text := make([]byte, 0, size)
	text = append(text, before+name+`":"`...)
	text = append(text, value...)
	text = append(text, between...)
	text = base64.StdEncoding.AppendEncode(text, context)
	return secret.New(append(text, after...))
}

// parseEncrypted reads the answer to encrypt.
func parseEncrypted(answer secret.Bytes) (root.Wrapped, error) {
	defer answer.Wipe()
	var read struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	if json.Unmarshal(answer.Expose(), &read) != nil {
		return root.Wrapped{}, malformed("it is not in JSON")
	}
	ciphertext := []byte(read.Data.Ciphertext)
	version, err := parseCiphertext(ciphertext)
	if err != nil {
		return root.Wrapped{}, malformed("its ciphertext is not vault:vN:…")
	}
	return root.Wrapped{Ciphertext: ciphertext, Version: strconv.Itoa(version)}, nil
}

// parseDecrypted reads the answer to decrypt.
func parseDecrypted(answer secret.Bytes) (secret.Bytes, error) {
	defer answer.Wipe()
	var read struct {
		Data struct {
			Plaintext []byte `json:"plaintext"` // from base64
		} `json:"data"`
	}
	if json.Unmarshal(answer.Expose(), &read) != nil {
		clear(read.Data.Plaintext)
		return secret.Bytes{}, malformed("it is not in JSON, or its plaintext not in base64")
	}
	key := secret.New(read.Data.Plaintext)
	if key.Len() != root.KeySize {
		defer key.Wipe()
		return secret.Bytes{}, malformed(fmt.Sprintf("its plaintext has %d bytes, not %d", key.Len(), root.KeySize))
	}
	return key, nil
}

// keyInfo is what Transit tells of a key.
type keyInfo struct {
	Type                 string `json:"type"`
	Derived              bool   `json:"derived"`
	LatestVersion        int    `json:"latest_version"`
	MinDecryptionVersion int    `json:"min_decryption_version"`
}

func parseKey(answer secret.Bytes) (keyInfo, error) {
	defer answer.Wipe()
	var read struct {
		Data keyInfo `json:"data"`
	}
	if json.Unmarshal(answer.Expose(), &read) != nil {
		return keyInfo{}, malformed("it is not in JSON")
	}
	if read.Data.Type == "" || read.Data.LatestVersion < 1 {
		return keyInfo{}, malformed("it names no type or version of the key")
	}
	return read.Data, nil
}

// check refuses a key that does not bind associated data to what it encrypts, or
// that wants a context for derivation, which is another thing.
func (k keyInfo) check() error {
	switch {
	case !slices.Contains([]string{"aes256-gcm96", "chacha20-poly1305"}, k.Type):
		return refused("the key is of type %s; make one of aes256-gcm96 or chacha20-poly1305", printable(k.Type))
	case k.Derived:
		return refused("the key is derived; make one with derived=false")
	default:
		return nil
	}
}
