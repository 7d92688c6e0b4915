package unlock

import (
	"encoding/hex"
	"fmt"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/api"
	"keywright.dev/kms/exchange"
	"keywright.dev/unlock/luks"
)

// Attester is what evidence comes from; [*tpm.Identity] is one.
type Attester interface {
	EK() exchange.EK
	// Collect quotes the PCRs over extraData and reads the event log.
	Collect(extraData [32]byte, eventLog string) (tpm.Evidence, error)
}

// ReleasePCR is PCR 15; [*tpm.Identity] and [*tpm.Device] have it.
type ReleasePCR interface {
	PCR15() ([32]byte, error)
	ExtendPCR15(event [32]byte) error
}

// attest puts the challenge into the statement, quotes over it, and returns
// what is sent. The statement's bytes are what the answer's signature covers.
func attest(t Attester, eventLog string, challenge api.Challenge, s exchange.Statement) (api.Attested, error) {
	if len(challenge.Challenge) != len(s.Challenge) {
		return api.Attested{}, fail(CodeUntrusted, fmt.Errorf("the challenge has %d bytes, want %d", len(challenge.Challenge), len(s.Challenge)))
	}
	selection := exchange.SelectionBitmap()
	if string(challenge.Selection) != string(selection[:]) {
		return api.Attested{}, fail(CodeUntrusted, fmt.Errorf("the service asks for PCR selection %x, this program quotes %x", challenge.Selection, selection))
	}
	s.Challenge, s.Selection, s.Machine = [32]byte(challenge.Challenge), selection, t.EK().MachineID()
	statement, err := s.Marshal()
	if err != nil {
		return api.Attested{}, err
	}
	evidence, err := t.Collect(exchange.ExtraData(s.Purpose, statement), eventLog)
	if err != nil {
		return api.Attested{}, fail(CodeTPM, err)
	}
	return api.Attested{
		Machine: s.Machine, Challenge: challenge.Challenge, Token: challenge.Token, Statement: statement,
		Evidence: api.Evidence{
			Quote: evidence.Attest, Signature: evidence.Signature, PCRs: evidence.PCRs.Marshal(), EventLog: evidence.EventLog,
		},
	}, nil
}

// open verifies the service's signature and only then decrypts.
func open(pin [32]byte, recipient *exchange.Recipient, statement []byte, sealed api.Sealed) (*exchange.Release, error) {
	err := exchange.VerifyResponse([][32]byte{pin}, sealed.ServiceKey, statement, sealed.Response, sealed.Signature)
	if err != nil {
		return nil, err
	}
	return recipient.OpenRelease(statement, sealed.Response)
}

// report returns what a header holds beside its identity.
func report(id string, v *luks.Volume) (exchange.VolumeReport, error) {
	digest, err := hex.DecodeString(v.VolumeKeyDigest())
	if err != nil {
		return exchange.VolumeReport{}, fmt.Errorf("reading the digest of a volume key: %w", err)
	}
	inventory := v.Inventory()
	r := exchange.VolumeReport{
		ID: id, VolumeKeyDigest: digest, Sequence: inventory.SequenceID, Size: v.Length(),
		Slots: []exchange.LUKSSlot{}, Tokens: []exchange.LUKSToken{},
	}
	for _, s := range inventory.Keyslots {
		r.Slots = append(r.Slots, exchange.LUKSSlot{ID: s.ID, KDF: s.KDF, Priority: s.Priority, Mark: s.Mark})
	}
	for _, t := range inventory.Tokens {
		r.Tokens = append(r.Tokens, exchange.LUKSToken{ID: t.ID, Type: t.Type, Slots: t.Keyslots, Volume: t.Volume, Purpose: string(t.Purpose), Version: t.Secret, Announced: t.Announced})
	}
	return r, nil
}
