package kms

import (
	"bytes"
	"crypto/sha256"

	"keywright.dev/kms/attest"
	"keywright.dev/kms/claims"
	"keywright.dev/kms/exchange"
)

// verified is a statement that its machine signed for the challenge at hand, and
// the boot it was made in.
type verified struct {
	ek        exchange.EK
	ak        exchange.AK
	raw       []byte
	statement *exchange.Statement
	// recipient is the statement's, where a secret comes back.
	recipient exchange.RecipientKey
	boot      attest.Boot
	// binding is SHA-256(EK Name ‖ AK Name) of the keys that verified.
	binding [32]byte
	// refusal says what is wrong with evidence that is the machine's own and
	// fresh; it is recorded against the machine.
	refusal *Refusal
}

// keysOf parses the keys of a machine's row. That they are rows is harmless:
// the wrapping of its secrets binds what they say.
func keysOf(m *Machine) (exchange.EK, exchange.AK, *Refusal) {
	ek, err := exchange.CheckEK(m.EK)
	if err != nil || ek.MachineID() != m.ID {
		return exchange.EK{}, exchange.AK{}, refuse(ReasonKeys, "the stored EK is not the one that names this machine")
	}
	ak, err := exchange.CheckAK(m.AK)
	if err != nil {
		return exchange.EK{}, exchange.AK{}, refuse(ReasonKeys, "the stored AK is not of the AK template")
	}
	return ek, ak, nil
}

// verify checks the quote and only then looks at what it covers. A refusal
// that it returns comes before fresh evidence of the machine; one about such
// evidence stands in the result.
func (s *Service) verify(purpose exchange.Purpose, a *Attested, ek exchange.EK, ak exchange.AK) (*verified, *Refusal) {
	pcrs, err := exchange.ParsePCRValues(a.Evidence.PCRs)
	if err != nil {
		return nil, refuse(ReasonQuote, "the PCR values are not those of the selection")
	}
	quote := attest.Quote{Attested: a.Evidence.Quote, Signature: a.Evidence.Signature, PCRs: pcrs}
	quoted, err := attest.CheckQuote(attest.AK{Name: ak.Name, Key: ak.Key}, quote, exchange.ExtraData(purpose, a.Statement))
	if err != nil {
		return nil, refuseEvidence(ReasonQuote, err)
	}
	statement, refusal := freshStatement(purpose, a)
	if refusal != nil {
		return nil, refusal
	}
	v := &verified{ek: ek, ak: ak, raw: a.Statement, statement: statement, binding: bindingOf(ek, ak)}
	v.boot.Counters = quoted.Counters()
	v.refusal = s.readSigned(v, a, quoted)
	return v, nil
}

// freshStatement parses a signed statement and holds it against what stands
// beside it. A signature lasts for ever, so that anybody who saw a request can
// send it again beside another challenge: only the challenge inside tells that
// the machine itself asks now.
func freshStatement(purpose exchange.Purpose, a *Attested) (*exchange.Statement, *Refusal) {
	statement, err := exchange.ParseStatement(a.Statement)
	switch {
	case err != nil:
		return nil, refuse(ReasonMalformed, "the statement cannot be parsed")
	case statement.Purpose != purpose:
		return nil, refuse(ReasonMalformed, "the statement is for another step")
	case statement.Machine != a.Machine:
		return nil, refuse(ReasonMalformed, "the machine in the statement is not the one beside it")
	case !bytes.Equal(statement.Challenge[:], a.Challenge):
		return nil, refuse(ReasonChallenge, "the challenge in the statement is not the one beside it")
	default:
		return statement, nil
	}
}

// readSigned judges the statement and appraises the boot.
func (s *Service) readSigned(v *verified, a *Attested, quoted attest.Quoted) *Refusal {
	if refusal := s.checkStatement(v.statement); refusal != nil {
		return refusal
	}
	var err error
	if v.statement.Purpose.HasAnswer() {
		if v.recipient, err = exchange.ParseRecipientKey(v.statement.Recipient); err != nil {
			return refuse(ReasonMalformed, "the recipient key in the statement is not one")
		}
	}
	boot, err := s.appraiser.Appraise(quoted, a.Evidence.EventLog)
	if err != nil {
		return refuseEvidence(ReasonEventLog, err)
	}
	v.boot = boot
	if refusal := checkSize(boot.Measurement); refusal != nil {
		return refusal
	}
	return checkSize(boot.Platform)
}

// maxClaims bounds the claims of a boot that are kept, in bytes: a virtual
// machine's take 2 to 30 KB.
const maxClaims = 64 << 10

func checkSize(set claims.Set) *Refusal {
	if n := len(set.Marshal()); n > maxClaims {
		return refuse(ReasonEventLog, "the claims of the boot take %d bytes, at most %d are kept", n, maxClaims)
	}
	return nil
}

// checkStatement holds a statement against this service and its challenges.
func (s *Service) checkStatement(statement *exchange.Statement) *Refusal {
	switch {
	case statement.Selection != exchange.SelectionBitmap():
		return refuse(ReasonMalformed, "the PCR selection in the statement is not the one of the challenge")
	case s.Identities.find(statement.ServiceKey) == nil:
		return refuse(ReasonServiceKey, "the guest pins another service key")
	case statement.Purpose == exchange.PurposeKey:
		return nil // about no volume
	case len(statement.Volumes) == 0:
		return refuse(ReasonVolume, "the statement names no volume")
	default:
		return nil
	}
}

func bindingOf(ek exchange.EK, ak exchange.AK) [32]byte {
	h := sha256.New()
	h.Write(ek.Name)
	h.Write(ak.Name)
	return [32]byte(h.Sum(nil))
}
