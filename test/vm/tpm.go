package vm

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"

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

// stateFile is the permanent state in swtpm's folder.
const stateFile = "tpm2-00.permall"

// EKPublic returns the RSA-2048 EK as a TPMT_PUBLIC (TPM 2.0 Part 2 §12.2.4),
// made by the default template of the TCG EK Credential Profile. It is read
// from a copy: the TPM may be powered on, and its counters do not move.
func (t *TPM) EKPublic() ([]byte, error) {
	dir, err := os.MkdirTemp("", "keywright-ek-")
	if err != nil {
		return nil, fmt.Errorf("reading the EK of %s: %w", t.name, err)
	}
	defer os.RemoveAll(dir)
	copied, err := t.Clone(dir, t.name)
	if err != nil {
		return nil, err
	}
	device, err := copied.PowerOn()
	if err != nil {
		return nil, err
	}
	defer device.Close()
	ek, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHEndorsement,
		InPublic:      tpm2.New2B(tpm2.RSAEKTemplate),
	}.Execute(device)
	if err != nil {
		return nil, fmt.Errorf("reading the EK of %s: %w", t.name, err)
	}
	return ek.OutPublic.Bytes(), nil
}

// EKName returns the TPM Name of [TPM.EKPublic]: the algorithm id of SHA-256
// (00 0b) and the hash, 34 bytes (TPM 2.0 Part 1 §16).
func (t *TPM) EKName() ([]byte, error) {
	public, err := t.EKPublic()
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(public)
	return append([]byte{0x00, 0x0b}, hash[:]...), nil
}
