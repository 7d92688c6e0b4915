package quorum

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"keywright.dev/kms/secret"
)

// encrypt returns data as an age file for one recipient. Its file key and nonce
// are the system's: age takes no source of randomness.
func encrypt(data secret.Bytes, to age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	plain, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, err
	}
	if _, err := plain.Write(data.Expose()); err != nil {
		return nil, err
	}
	if err := plain.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// decrypt returns what one of the identities reads in an age file.
func decrypt(sealed []byte, limit int, identities ...age.Identity) (secret.Bytes, error) {
	plain, err := age.Decrypt(bytes.NewReader(sealed), identities...)
	if noMatch := new(age.NoIdentityMatchError); errors.As(err, &noMatch) {
		return secret.Bytes{}, errors.New("no identity given opens it: it is encrypted to somebody else, or damaged")
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("the age file is damaged: %w", err)
	}
	data, err := secret.Read(plain, limit)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("the age file is damaged: %w", err)
	}
	return data, nil
}

func armored(sealed []byte) (string, error) {
	var out bytes.Buffer
	w := armor.NewWriter(&out)
	if _, err := w.Write(sealed); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return out.String(), nil
}

func dearmored(text string) ([]byte, error) {
	return io.ReadAll(armor.NewReader(strings.NewReader(text)))
}

// ParseIdentities reads the identities of a custodian, as age-keygen writes them.
// Its error repeats nothing of the text.
func ParseIdentities(text secret.Bytes) ([]age.Identity, error) {
	identities, err := age.ParseIdentities(bytes.NewReader(text.Expose()))
	if err != nil {
		return nil, errors.New("this is no identity file of age: want lines AGE-SECRET-KEY-1… or AGE-SECRET-KEY-PQ-1…, as age-keygen writes them; use age itself for identities under a passphrase or of a plugin")
	}
	return identities, nil
}
