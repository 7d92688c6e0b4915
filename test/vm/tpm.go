package vm

import (
	"fmt"
	"os"
	"path/filepath"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/exchange"
	"keywright.dev/test/swtpm"
)

// TPM is the state of a software TPM 2.0 (swtpm) with EK certificates, while it
// is powered off. It is powered on by a [Machine] that has it, or by
// [TPM.PowerOn]; by one of them at a time.
type TPM struct {
	name  string
	state string // folder of swtpm's state
	ca    string // folder of the CA that issued the EK certificates
}

// NewTPM makes a TPM in dir/name with an RSA-2048 and an ECC P-384 EK, each
// with a certificate at its NV index of the TCG EK Credential Profile. All TPMs
// of one dir have certificates of one CA, at dir/ca.
func NewTPM(dir, name string) (*TPM, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("making the TPM %s: %w", name, err)
	}
	t := &TPM{name: name, state: filepath.Join(dir, name), ca: filepath.Join(dir, "ca")}
	for _, folder := range []string{t.state, t.ca} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("making the TPM %s: %w", name, err)
		}
	}
	ca, err := swtpm.NewCA(t.ca)
	if err != nil {
		return nil, fmt.Errorf("making the TPM %s: %w", name, err)
	}
	if err := ca.Manufacture(t.state, name); err != nil {
		return nil, fmt.Errorf("making the TPM %s: %w: run test/setup", name, err)
	}
	return t, nil
}

// PowerOn powers the TPM on for this process, with TPM2_Startup(CLEAR) as
// firmware does; its resetCount rises.
func (t *TPM) PowerOn() (*swtpm.TPM, error) {
	device, err := swtpm.Start(t.state)
	if err != nil {
		return nil, fmt.Errorf("powering on the TPM %s: %w", t.name, err)
	}
	return device, nil
}

// Name returns the name the TPM was made with.
func (t *TPM) Name() string { return t.name }

// CACertificates returns the paths of the PEM certificates that the EK
// certificates chain to: the issuer, then the self-signed root.
func (t *TPM) CACertificates() []string {
	return []string{
		filepath.Join(t.ca, "issuercert.pem"),
		filepath.Join(t.ca, "swtpm-localca-rootca-cert.pem"),
	}
}

// Clone copies the TPM's state as it is now to dir/name: the same keys, the
// same counters, as who holds a copy of a hypervisor's files has it. The
// original may be powered on.
func (t *TPM) Clone(dir, name string) (*TPM, error) {
	state, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return nil, fmt.Errorf("cloning the TPM %s: %w", t.name, err)
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("cloning the TPM %s: %w", t.name, err)
	}
	// swtpm replaces this file whole, so that a copy is never half old.
	content, err := os.ReadFile(filepath.Join(t.state, stateFile))
	if err != nil {
		return nil, fmt.Errorf("cloning the TPM %s: %w", t.name, err)
	}
	if err := os.WriteFile(filepath.Join(state, stateFile), content, 0o600); err != nil {
		return nil, fmt.Errorf("cloning the TPM %s: %w", t.name, err)
	}
	return &TPM{name: name, state: state, ca: t.ca}, nil
}

// Elsewhere makes a place for the TPM on another host, in dir: without any state,
// which comes with what [Run.Save] wrote of the machine.
func (t *TPM) Elsewhere(dir string) (*TPM, error) {
	state, err := filepath.Abs(filepath.Join(dir, t.name))
	if err != nil {
		return nil, fmt.Errorf("making a place for the TPM %s: %w", t.name, err)
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("making a place for the TPM %s: %w", t.name, err)
	}
	return &TPM{name: t.name, state: state, ca: t.ca}, nil
}

// stateFile is the permanent state in swtpm's folder.
const stateFile = "tpm2-00.permall"

// EK returns the endorsement key that a guest enrols with, as who administers
// the hypervisor reads it: of the template that tpm.Device.ChooseTemplate
// chooses. It is read from a copy, so that the TPM may be powered on and its
// counters do not move.
func (t *TPM) EK() (exchange.EK, error) {
	dir, err := os.MkdirTemp("", "keywright-ek-")
	if err != nil {
		return exchange.EK{}, fmt.Errorf("reading the EK of %s: %w", t.name, err)
	}
	defer os.RemoveAll(dir)
	copied, err := t.Clone(dir, t.name)
	if err != nil {
		return exchange.EK{}, err
	}
	powered, err := copied.PowerOn()
	if err != nil {
		return exchange.EK{}, err
	}
	defer powered.Close()
	ek, err := chosenEK(tpm.New(powered))
	if err != nil {
		return exchange.EK{}, fmt.Errorf("reading the EK of %s: %w", t.name, err)
	}
	return ek, nil
}

func chosenEK(device *tpm.Device) (exchange.EK, error) {
	template, err := device.ChooseTemplate()
	if err != nil {
		return exchange.EK{}, err
	}
	identity, err := device.Identity(template, "")
	if err != nil {
		return exchange.EK{}, err
	}
	return identity.EK(), identity.Close()
}
