package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"keywright.dev/kms/exchange"
)

// quoteAttempts bounds how often PCRs are read again because something extended
// one between reading and quoting.
const quoteAttempts = 5

// Quote is a signed statement of the TPM about its PCRs.
type Quote struct {
	Attest    []byte             // TPMS_ATTEST
	Signature []byte             // TPMT_SIGNATURE by the AK
	PCRs      exchange.PCRValues // the values that Attest covers
}

// Evidence is all that a boot is judged by.
type Evidence struct {
	Quote
	EventLog []byte // TCG PC Client event log
}

// Collect quotes the PCRs and reads the event log, usually [DefaultEventLog].
// A missing log is an error that wraps fs.ErrNotExist; use [Identity.Quote]
// where none is needed.
func (id *Identity) Collect(extraData [32]byte, eventLog string) (Evidence, error) {
	log, err := ReadEventLog(eventLog)
	if err != nil {
		return Evidence{}, err
	}
	quote, err := id.Quote(extraData)
	if err != nil {
		return Evidence{}, err
	}
	return Evidence{quote, log}, nil
}

// Quote has the AK sign extraData and the PCRs of [exchange.Selection]
// (TPM2_Quote, TPM 2.0 part 3, section 18.4). The values it returns are those
// that were signed.
func (id *Identity) Quote(extraData [32]byte) (Quote, error) {
	id.device.mu.Lock()
	defer id.device.mu.Unlock()
	for range quoteAttempts {
		values, err := id.device.readQuoted(id.session)
		if err != nil {
			return Quote{}, explain("reading PCRs", err)
		}
		quote, digest, err := id.quote(extraData)
		if err != nil {
			return Quote{}, explain("quoting PCRs", err)
		}
		if digest == values.CompositeDigest() {
			quote.PCRs = values
			return quote, nil
		}
	}
	return Quote{}, fmt.Errorf("quoting PCRs: they changed during each of %d attempts", quoteAttempts)
}

// quote returns a quote without its PCR values, and the digest it holds of them.
func (id *Identity) quote(extraData [32]byte) (Quote, [32]byte, error) {
	rsp, err := tpm2.Quote{
		SignHandle:     id.akAuth(),
		QualifyingData: tpm2.TPM2BData{Buffer: extraData[:]},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      exchange.SelectionList(),
	}.Execute(id.device.tpm)
	if err != nil {
		return Quote{}, [32]byte{}, err
	}
	attest, err := rsp.Quoted.Contents()
	if err != nil {
		return Quote{}, [32]byte{}, err
	}
	info, err := attest.Attested.Quote()
	if err != nil {
		return Quote{}, [32]byte{}, err
	}
	if len(info.PCRDigest.Buffer) != 32 {
		return Quote{}, [32]byte{}, errors.New("the TPM quoted no SHA-256 digest")
	}
	return Quote{
		Attest:    bytes.Clone(rsp.Quoted.Bytes()),
		Signature: tpm2.Marshal(rsp.Signature),
	}, [32]byte(info.PCRDigest.Buffer), nil
}
