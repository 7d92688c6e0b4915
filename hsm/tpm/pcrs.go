package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"keywright.dev/kms/exchange"
)

const releasePCR = 15

// errTornRead means that a PCR was extended while PCRs were being read.
var errTornRead = errors.New("PCRs changed while they were read")

// PCR15 returns the value of PCR 15 in the SHA-256 bank: 32 zero bytes until
// this boot's exchange has ended.
func (id *Identity) PCR15() ([32]byte, error) {
	id.device.mu.Lock()
	defer id.device.mu.Unlock()
	return id.device.readPCR15(id.session)
}

// ExtendPCR15 extends PCR 15 in the SHA-256 bank with [exchange.ReleaseEvent]
// or [exchange.NoReleaseEvent]. Success is the TPM's own word, for the session
// covers the answer. If it fails the machine must be reset: PCR 15 may still be
// zero.
func (id *Identity) ExtendPCR15(event [32]byte) error {
	id.device.mu.Lock()
	defer id.device.mu.Unlock()
	return id.device.extendPCR15(event, id.session)
}

func (d *Device) extendPCR15(event [32]byte, auth tpm2.Session) error {
	handle := tpm2.TPMHandle(releasePCR)
	_, err := tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: handle, Name: tpm2.HandleName(handle), Auth: auth},
		Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{
			HashAlg: tpm2.TPMAlgSHA256, Digest: event[:],
		}}},
	}.Execute(d.tpm)
	return explain("extending PCR 15", err)
}

func (d *Device) readPCR15(audit tpm2.Session) ([32]byte, error) {
	values, _, err := d.readBatch([]uint{releasePCR}, audit)
	if err != nil {
		return [32]byte{}, explain("reading PCR 15", err)
	}
	return values[0], nil
}

// readQuoted reads all PCRs that a quote covers, again if one of them was
// extended meanwhile.
func (d *Device) readQuoted(audit tpm2.Session) (exchange.PCRValues, error) {
	for range quoteAttempts {
		values, err := d.readOnce(audit)
		if !errors.Is(err, errTornRead) {
			return values, err
		}
	}
	return exchange.PCRValues{}, errTornRead
}

// readOnce reads in as many commands as it takes. The update counter tells
// whether all of them saw the same PCRs.
func (d *Device) readOnce(audit tpm2.Session) (exchange.PCRValues, error) {
	var values exchange.PCRValues
	var counter uint32
	left := exchange.Selection()
	for first := true; len(left) > 0; first = false {
		batch, update, err := d.readBatch(left, audit)
		if err != nil {
			return values, err
		}
		if !first && update != counter {
			return values, errTornRead
		}
		counter = update
		for i, value := range batch {
			values.Set(left[i], value)
		}
		left = left[len(batch):]
	}
	return values, nil
}

// readBatch reads the first of the PCRs, as many as the TPM gives at once, and
// the PCR update counter (TPM2_PCR_Read, TPM 2.0 part 3, section 22.4).
func (d *Device) readBatch(pcrs []uint, audit tpm2.Session) ([][32]byte, uint32, error) {
	var sessions []tpm2.Session
	if audit != nil {
		sessions = append(sessions, audit)
	}
	rsp, err := tpm2.PCRRead{PCRSelectionIn: selection(pcrs)}.Execute(d.tpm, sessions...)
	if err != nil {
		return nil, 0, err
	}
	digests := rsp.PCRValues.Digests
	if len(digests) == 0 {
		return nil, 0, errors.New("the TPM has no SHA-256 PCR bank; enable it in the firmware's settings")
	}
	pcrs = pcrs[:min(len(pcrs), len(digests))]
	if len(digests) != len(pcrs) || !covers(rsp.PCRSelectionOut, pcrs) {
		return nil, 0, errors.New("the TPM gave other PCRs than were asked for")
	}
	values := make([][32]byte, len(pcrs))
	for i, pcr := range pcrs {
		digest := digests[i].Buffer
		if len(digest) != len(values[i]) {
			return nil, 0, fmt.Errorf("the TPM gave %d bytes for PCR %d", len(digest), pcr)
		}
		values[i] = [32]byte(digest)
	}
	return values, rsp.PCRUpdateCounter, nil
}

func selection(pcrs []uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash:      tpm2.TPMAlgSHA256,
		PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...),
	}}}
}

// covers tells whether a selection is exactly the PCRs of the SHA-256 bank.
func covers(got tpm2.TPMLPCRSelection, pcrs []uint) bool {
	return string(tpm2.Marshal(got)) == string(tpm2.Marshal(selection(pcrs)))
}
