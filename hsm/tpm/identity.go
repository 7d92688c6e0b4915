package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"keywright.dev/kms/exchange"
)

// nonceSize is the length in bytes of a session's nonces.
const nonceSize = 32

// Identity is a machine's EK and AK in its TPM, with a session that only the
// EK's TPM can hold.
type Identity struct {
	device *Device
	ek     exchange.EK
	ak     exchange.AK

	akHandle tpm2.TPMHandle
	// session authorizes and audits. Its key was sent encrypted to the EK, so
	// the HMAC of a response proves that it comes from this TPM unaltered.
	session tpm2.Session
	release []func() error
}

// primary is a primary object in the TPM.
type primary struct {
	handle tpm2.TPMHandle
	public []byte // TPMT_PUBLIC
}

// Identity makes the EK of a template and our AK in the TPM; both come out the
// same at every boot. Where machine is not empty, the EK must be that
// machine's, or the error is [ErrOtherMachine]. Close the result.
func (d *Device) Identity(template exchange.EKTemplate, machine string) (*Identity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := &Identity{device: d}
	if err := id.load(template, machine); err != nil {
		return nil, errors.Join(err, id.unload())
	}
	return id, nil
}

// EK returns the endorsement key.
func (id *Identity) EK() exchange.EK { return id.ek }

// AK returns the attestation key.
func (id *Identity) AK() exchange.AK { return id.ak }

// Close removes what the identity holds in the TPM. It may be called again.
func (id *Identity) Close() error {
	id.device.mu.Lock()
	defer id.device.mu.Unlock()
	return id.unload()
}

// load leaves the AK and a session in the TPM. The EK goes: a resource manager
// would swap it in and out with every command.
func (id *Identity) load(template exchange.EKTemplate, machine string) error {
	var err error
	err = id.device.withEK(template, func(ek exchange.EK, handle tpm2.TPMHandle) error {
		if found := ek.MachineID(); machine != "" && machine != found {
			return fmt.Errorf("%w: it is %s, not %s", ErrOtherMachine, found, machine)
		}
		id.ek = ek
		return id.startSession(handle)
	})
	if err != nil {
		return err
	}
	public, err := exchange.AKTemplate()
	if err != nil {
		return err
	}
	ak, err := id.device.createPrimary(public)
	if err != nil {
		return explainEndorsement("creating the attestation key", err)
	}
	id.akHandle = ak.handle
	id.release = append(id.release, func() error { return id.device.flush(ak.handle) })
	id.ak, err = exchange.CheckAK(ak.public)
	return err
}

func (id *Identity) startSession(ek tpm2.TPMHandle) error {
	salted, err := saltedTo(id.ek, ek)
	if err != nil {
		return err
	}
	session, flush, err := tpm2.HMACSession(id.device.tpm, tpm2.TPMAlgSHA256, nonceSize, salted, tpm2.Audit())
	if err != nil {
		return explain("starting a session with the TPM", err)
	}
	id.session = session
	id.release = append(id.release, flush)
	return nil
}

func (id *Identity) unload() error {
	var errs []error
	for _, release := range id.release {
		errs = append(errs, release())
	}
	id.release = nil
	return errors.Join(errs...)
}

// akAuth authorizes the use of the AK through the session.
func (id *Identity) akAuth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: id.akHandle, Name: tpm2.TPM2BName{Buffer: id.ak.Name}, Auth: id.session}
}

// withEK creates the EK, checks it, calls use and removes the EK.
func (d *Device) withEK(template exchange.EKTemplate, use func(exchange.EK, tpm2.TPMHandle) error) error {
	public, err := template.Template()
	if err != nil {
		return err
	}
	created, err := d.createPrimary(public)
	if err != nil {
		return explainEndorsement("creating the endorsement key "+string(template), err)
	}
	ek, err := exchange.CheckEK(created.public)
	if err == nil && ek.Template != template {
		err = fmt.Errorf("creating the endorsement key %s: the TPM made one of %s", template, ek.Template)
	}
	if err == nil {
		err = use(ek, created.handle)
	}
	return errors.Join(err, d.flush(created.handle))
}

// createPrimary creates a primary object in the endorsement hierarchy.
func (d *Device) createPrimary(template tpm2.TPMTPublic) (primary, error) {
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: endorsement(),
		InPublic:      tpm2.New2B(template),
	}.Execute(d.tpm)
	if err != nil {
		return primary{}, err
	}
	return primary{rsp.ObjectHandle, bytes.Clone(rsp.OutPublic.Bytes())}, nil
}

// endorsement authorizes with the endorsement hierarchy, whose password is
// empty on the machines we serve.
func endorsement() tpm2.AuthHandle {
	return tpm2.AuthHandle{
		Handle: tpm2.TPMRHEndorsement,
		Name:   tpm2.HandleName(tpm2.TPMRHEndorsement),
		Auth:   tpm2.PasswordAuth(nil),
	}
}

// saltedTo makes a session's key one that only the EK's TPM can know.
func saltedTo(ek exchange.EK, handle tpm2.TPMHandle) (tpm2.AuthOption, error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](ek.Public)
	if err != nil {
		return nil, fmt.Errorf("reading the endorsement key: %w", err)
	}
	return tpm2.Salted(handle, *public), nil
}
