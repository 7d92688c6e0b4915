package serve

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"keywright.dev/cmd/keywright/config"
	"keywright.dev/kms"
	"keywright.dev/kms/attest"
	"keywright.dev/kms/exchange"
	"keywright.dev/kms/policy"
	"keywright.dev/rotate"
)

// Bounds of files that a configuration names, in bytes: hundreds of certificates,
// hundreds of thousands of machines, and more than package policy takes.
const (
	maxCertificates = 4 << 20
	maxInventory    = 32 << 20
	maxPolicy       = 1 << 20
)

// openTrust reads what vouches for endorsement keys.
func openTrust(a config.Attestation) (attest.EKTrust, error) {
	var trust attest.EKTrust
	for _, path := range a.EKRoots {
		roots, err := readCertificates(path)
		if err != nil {
			return trust, fmt.Errorf("reading attestation.ek_roots: %w", err)
		}
		trust.Roots = append(trust.Roots, roots...)
	}
	if a.EKInventory == "" {
		return trust, nil
	}
	inventory, err := readInventory(a.EKInventory)
	if err != nil {
		return trust, fmt.Errorf("reading attestation.ek_inventory: %w", err)
	}
	trust.Inventory = inventory
	return trust, nil
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	rest, err := config.ReadFile(path, maxCertificates)
	if err != nil {
		return nil, err
	}
	var certificates []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: block %d is not a certificate", path, len(certificates)+1)
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, fmt.Errorf("%s: it holds no PEM block with a certificate", path)
	}
	return certificates, nil
}

func readInventory(path string) ([]string, error) {
	text, err := config.ReadFile(path, maxInventory)
	if err != nil {
		return nil, err
	}
	var hashes []string
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		text = strings.TrimPrefix(strings.ToLower(strings.TrimSpace(text)), "sha256:")
		if text == "" {
			continue
		}
		if raw, err := hex.DecodeString(text); err != nil || len(raw) != 32 {
			return nil, fmt.Errorf("%s:%d: want an EK hash of 64 hexadecimal digits", path, n)
		}
		hashes = append(hashes, text)
	}
	return hashes, lines.Err()
}

// trustOf puts the judgement into the domain's words.
func trustOf(trust attest.EKTrust) func(exchange.EK, []byte, time.Time) (string, error) {
	return func(ek exchange.EK, certificate []byte, now time.Time) (string, error) {
		decision, err := trust.Check(ek, certificate, now)
		if err != nil {
			return "", err
		}
		if decision.Basis == attest.ByPerson {
			return kms.TrustByPerson, nil
		}
		return string(decision.Basis), nil
	}
}

// documents are what the files say that a configuration names, as long as a service
// runs.
type documents struct {
	trust    attest.EKTrust
	policy   *policy.Engine
	rotation *rotate.Policy
}

// readDocuments reads all of them, so that everything that is wrong is named at once.
func readDocuments(c config.Config) (d documents, err error) {
	var errs [3]error
	d.trust, errs[0] = openTrust(c.Attestation)
	d.policy, errs[1] = openPolicy(c.Policy)
	d.rotation, errs[2] = openRotation(c.Rotation)
	return d, errors.Join(errs[:]...)
}

// openPolicy reads the policies that decide.
func openPolicy(p config.Policy) (*policy.Engine, error) {
	var documents []policy.Document
	if p.Shipped {
		shipped, err := policy.Shipped()
		if err != nil {
			return nil, err
		}
		documents = shipped
	}
	for _, path := range p.Files {
		text, err := config.ReadFile(path, maxPolicy)
		if err != nil {
			return nil, fmt.Errorf("reading policy.files: %w", err)
		}
		documents = append(documents, policy.Document{Name: path, Text: text})
	}
	return policy.New(documents...)
}

// openExcuses reads why machines may be late.
func openExcuses(r config.Rotation, now time.Time) ([]rotate.Excuse, error) {
	if r.Excuses == "" {
		return nil, nil
	}
	text, err := config.ReadFile(r.Excuses, rotate.MaxPolicy)
	if err != nil {
		return nil, fmt.Errorf("reading rotation.excuses: %w", err)
	}
	list, err := rotate.ParseExcuses(text, now)
	if err != nil {
		return nil, fmt.Errorf("reading rotation.excuses %s: %w", r.Excuses, err)
	}
	return list, nil
}

// openRotation reads the policy of rotations.
func openRotation(r config.Rotation) (*rotate.Policy, error) {
	if r.Policy == "" {
		return rotate.Default(), nil
	}
	text, err := config.ReadFile(r.Policy, rotate.MaxPolicy)
	if err != nil {
		return nil, fmt.Errorf("reading rotation.policy: %w", err)
	}
	p, err := rotate.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("reading rotation.policy %s:\n%w", r.Policy, err)
	}
	return p, nil
}
