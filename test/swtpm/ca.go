package swtpm

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// CA is a manufacturer of software TPMs: the certificate authority that signs
// their EK certificates.
type CA struct {
	dir string
}

// NewCA prepares a CA in a directory that exists. Its keys are made with the
// first TPM; a directory that holds them already goes on with them.
func NewCA(dir string) (*CA, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	ca := &CA{dir}
	files := map[string]string{
		"localca.conf": "statedir = " + dir + "\nsigningkey = " + ca.path("signkey.pem") +
			"\nissuercert = " + ca.path("issuercert.pem") + "\ncertserial = " + ca.path("certserial") + "\n",
		"localca.options": "--platform-manufacturer Example\n--platform-version 1\n--platform-model VM\n",
		"swtpm_setup.conf": "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = " +
			ca.path("localca.conf") + "\ncreate_certs_tool_options = " + ca.path("localca.options") + "\n",
	}
	for name, text := range files {
		if err := os.WriteFile(ca.path(name), []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("configuring a TPM manufacturer: %w", err)
		}
	}
	return ca, nil
}

// Manufacture makes a TPM in a directory: its seeds, a SHA-256 PCR bank alone,
// and EK certificates for RSA-2048 and ECC NIST P-384 in NV memory. Start it
// with [Start].
func (ca *CA) Manufacture(state, name string) error {
	state, err := filepath.Abs(state)
	if err != nil {
		return err
	}
	setup := exec.Command("swtpm_setup", "--tpm2", "--tpm-state", state, "--overwrite",
		"--config", ca.path("swtpm_setup.conf"), "--vmid", name,
		"--create-ek-cert", "--create-platform-cert", "--pcr-banks", "sha256")
	if out, err := setup.CombinedOutput(); err != nil {
		return fmt.Errorf("manufacturing a TPM with swtpm_setup: %w: %s", err, out)
	}
	return nil
}

// Root returns the CA's self-signed certificate. It fails before the first TPM.
func (ca *CA) Root() (*x509.Certificate, error) {
	return ca.certificate("swtpm-localca-rootca-cert.pem")
}

// Intermediate returns the certificate of the key that signs EK certificates.
// It fails before the first TPM.
func (ca *CA) Intermediate() (*x509.Certificate, error) {
	return ca.certificate("issuercert.pem")
}

func (ca *CA) certificate(name string) (*x509.Certificate, error) {
	text, err := os.ReadFile(ca.path(name))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New(ca.path(name) + " holds no certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func (ca *CA) path(name string) string {
	return filepath.Join(ca.dir, name)
}
