package recovery

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

// maxRecipients bounds what each new key is encrypted to: it is done while an
// enrolment is written.
const maxRecipients = 16

// Recipients are whom copies are encrypted to. The zero value is nobody.
type Recipients struct{ list []age.Recipient }

// ParseRecipients parses age's native recipients: all of them X25519 (age1…) or
// all of them post-quantum hybrid (age1pq1…), at most 16. Its error repeats none
// of the texts: one may be an identity that was put there by mistake.
func ParseRecipients(texts []string) (Recipients, error) {
	if len(texts) > maxRecipients {
		return Recipients{}, fmt.Errorf("want at most %d recipients", maxRecipients)
	}
	var r Recipients
	hybrid := 0
	for i, text := range texts {
		recipient, err := parse(text)
		if err != nil {
			return Recipients{}, fmt.Errorf("entry %d is no recipient of age: want age1… or age1pq1…, as age-keygen prints it", i+1)
		}
		if _, ok := recipient.(*age.HybridRecipient); ok {
			hybrid++
		}
		r.list = append(r.list, recipient)
	}
	if hybrid > 0 && hybrid < len(texts) {
		return Recipients{}, errors.New("want age1… alone or age1pq1… alone: beside an age1… recipient the post-quantum ones would protect nothing, and age encrypts to no such mix")
	}
	return r, nil
}

func parse(text string) (age.Recipient, error) {
	if strings.HasPrefix(text, "age1pq1") {
		return age.ParseHybridRecipient(text)
	}
	return age.ParseX25519Recipient(text)
}

// Copy encrypts a key to the recipients, in age's armor. It is empty where there
// are none.
func (r Recipients) Copy(key secret.Bytes) (string, error) {
	if len(r.list) == 0 {
		return "", nil
	}
	var out bytes.Buffer
	armored := armor.NewWriter(&out)
	plain, err := age.Encrypt(armored, r.list...)
	if err != nil {
		return "", fmt.Errorf("encrypting a recovery key with age: %w", err)
	}
	if err := writeAll(plain, key); err != nil {
		return "", err
	}
	if err := armored.Close(); err != nil {
		return "", fmt.Errorf("encrypting a recovery key with age: %w", err)
	}
	return out.String(), nil
}

func writeAll(w io.WriteCloser, key secret.Bytes) error {
	if _, err := w.Write(key.Expose()); err != nil {
		return fmt.Errorf("encrypting a recovery key with age: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("encrypting a recovery key with age: %w", err)
	}
	return nil
}
