package tpm

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"keywright.dev/kms/exchange"
)

// Device is a TPM.
type Device struct {
	mu    sync.Mutex
	tpm   transport.TPM
	close func() error
}

// Open opens a TPM device, usually [DefaultPath].
func Open(path string) (*Device, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	return &Device{tpm: patient{f, time.Sleep}, close: f.Close}, nil
}

// New returns a device behind a transport, which stays the caller's to close.
func New(t transport.TPM) *Device {
	return &Device{tpm: patient{t, time.Sleep}, close: func() error { return nil }}
}

// Close closes what [Open] opened. Close each [Identity] first.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.close()
}

// ChooseTemplate returns the EK template to enrol this machine with: in the
// order of [exchange.EKTemplates], the first that the TPM supports and holds an
// EK certificate for; if there is none, the first that it supports. Remember
// the answer: another is another machine.
func (d *Device) ChooseTemplate() (exchange.EKTemplate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var supported []exchange.EKTemplate
	for _, t := range exchange.EKTemplates() {
		ok, err := d.supports(t)
		if err != nil {
			return "", explain("asking the TPM for its algorithms", err)
		}
		if ok {
			supported = append(supported, t)
		}
	}
	if len(supported) == 0 {
		return "", fmt.Errorf("choosing an EK template: the TPM supports none of %q", exchange.EKTemplates())
	}
	for _, t := range supported {
		ok, err := d.defined(tpm2.TPMHandle(t.CertificateIndex()))
		if err != nil {
			return "", explain("asking the TPM for its EK certificates", err)
		}
		if ok {
			return t, nil
		}
	}
	return supported[0], nil
}

// PCR15 returns the value of PCR 15 in the SHA-256 bank: 32 zero bytes until
// this boot's exchange has ended. [Identity.PCR15] cannot be lied to.
func (d *Device) PCR15() ([32]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.readPCR15(nil)
}

// ExtendPCR15 extends PCR 15 in the SHA-256 bank without a session, for the
// machine whose TPM gives no [Identity]: an interposer could swallow it.
func (d *Device) ExtendPCR15(event [32]byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.extendPCR15(event, tpm2.PasswordAuth(nil))
}

// supports asks for the key's parameters and for the hash of its Name.
func (d *Device) supports(t exchange.EKTemplate) (bool, error) {
	public, err := t.Template()
	if err != nil {
		return false, err
	}
	hmac := tpm2.TPMTKeyedHashScheme{
		Scheme:  tpm2.TPMAlgHMAC,
		Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{HashAlg: public.NameAlg}),
	}
	for _, parms := range []tpm2.TPMTPublicParms{
		{Type: public.Type, Parameters: public.Parameters},
		{Type: tpm2.TPMAlgKeyedHash, Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: hmac})},
	} {
		_, err := tpm2.TestParms{Parameters: parms}.Execute(d.tpm)
		var refusal tpm2.TPMFmt1Error
		if errors.As(err, &refusal) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// defined tells whether an NV index exists.
func (d *Device) defined(index tpm2.TPMHandle) (bool, error) {
	rsp, err := tpm2.GetCapability{
		Capability: tpm2.TPMCapHandles, Property: uint32(index), PropertyCount: 1,
	}.Execute(d.tpm)
	if err != nil {
		return false, err
	}
	if rsp.CapabilityData.Capability != tpm2.TPMCapHandles {
		return false, errors.New("the TPM gave another capability than was asked for")
	}
	handles, err := rsp.CapabilityData.Data.Handles()
	if err != nil {
		return false, err
	}
	return len(handles.Handle) > 0 && handles.Handle[0] == index, nil
}

// flush removes a transient object or a session from the TPM.
func (d *Device) flush(handle tpm2.TPMHandle) error {
	_, err := tpm2.FlushContext{FlushHandle: handle}.Execute(d.tpm)
	return explain(fmt.Sprintf("flushing handle %#x from the TPM", uint32(handle)), err)
}
