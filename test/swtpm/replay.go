package swtpm

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-eventlog/register"
	"github.com/google/go-eventlog/tcg"
	"github.com/google/go-tpm/tpm2"
)

// Replay extends the SHA-256 digests of a recorded event log (TCG PC Client
// Platform Firmware Profile, section 10) into a TPM that was just reset, so
// that its PCRs are those of the recorded boot.
func (t *TPM) Replay(log []byte) error {
	parsed, err := tcg.ParseEventLog(log, tcg.ParseOpts{})
	if err != nil {
		return fmt.Errorf("replaying an event log: %w", err)
	}
	events := parsed.Events(register.HashSHA256)
	if len(events) == 0 {
		return errors.New("replaying an event log: it has no events")
	}
	for i, event := range events {
		if bytes.HasPrefix(event.Data, []byte("StartupLocality\x00")) {
			return fmt.Errorf("replaying event %d: a boot that began in another locality is not supported", i)
		}
		if event.Type == tcg.NoAction {
			continue
		}
		if len(event.Digest) != sha256.Size {
			return fmt.Errorf("replaying event %d: it has no SHA-256 digest", i)
		}
		if err := t.Extend(uint(event.Index), [sha256.Size]byte(event.Digest)); err != nil {
			return fmt.Errorf("replaying event %d: %w", i, err)
		}
	}
	return nil
}

// Extend extends one PCR of the SHA-256 bank.
func (t *TPM) Extend(pcr uint, digest [sha256.Size]byte) error {
	handle := tpm2.TPMHandle(pcr)
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: handle, Name: tpm2.HandleName(handle), Auth: tpm2.PasswordAuth(nil)},
		Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{
			HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:],
		}}},
	}.Execute(t)
	return err
}
