package exchange

import (
	"fmt"

	"github.com/go-json-experiment/json"
)

// RekeyStatus is how far a rekey has come.
type RekeyStatus string

// The states.
const (
	// RekeyOpen is that of an order whose failure was reported: it goes on.
	RekeyOpen RekeyStatus = "open"
	// RekeyCommitted lets the guest remove the keyslot of the version before: boots
	// are released the new one.
	RekeyCommitted RekeyStatus = "committed"
	// RekeyFinished ends it.
	RekeyFinished RekeyStatus = "finished"
	// RekeyRekeyed ends the rekey that a reencryption begins with.
	RekeyRekeyed RekeyStatus = "rekeyed"
	// RekeyReady lets the guest take away the keyslots that a reencryption loses, that
	// of the recovery key before among them, and begin it.
	RekeyReady RekeyStatus = "ready"
	// RekeyReencrypting lets it change the data: boots open the header as it is now.
	RekeyReencrypting RekeyStatus = "reencrypting"
)

// RekeyAnswer is what the service answers to a report about a rekey, under its
// signature over statement and answer.
type RekeyAnswer struct {
	Version uint32      `json:"version"`
	Status  RekeyStatus `json:"status"`
}

// MarshalRekeyAnswer encodes an answer.
func MarshalRekeyAnswer(a RekeyAnswer) ([]byte, error) {
	out, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encoding the answer about a rekey: %w", err)
	}
	return out, nil
}

// ParseRekeyAnswer decodes what [MarshalRekeyAnswer] encoded, whose signature was
// verified ([VerifyResponse]). Its error is [ErrMalformed].
func ParseRekeyAnswer(data []byte) (RekeyAnswer, error) {
	var a RekeyAnswer
	if err := json.Unmarshal(data, &a, json.RejectUnknownMembers(true)); err != nil {
		return RekeyAnswer{}, fmt.Errorf("%w answer about a rekey: not its JSON object", ErrMalformed)
	}
	switch a.Status {
	case RekeyOpen, RekeyCommitted, RekeyFinished, RekeyRekeyed, RekeyReady, RekeyReencrypting:
		return a, nil
	default:
		return RekeyAnswer{}, fmt.Errorf("%w answer about a rekey: unknown status", ErrMalformed)
	}
}
