package tpm

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"keywright.dev/kms/secret"
)

// ErrPCRs means that PCRs do not have the values which they had at the sealing.
var ErrPCRs = errors.New("this boot is not the one that it was sealed to")

// Seal has the TPM encrypt data for itself, to be read while the PCRs of the
// SHA-256 bank have the values that they have now; none: at any time. It reads
// the data back once.
func (d *Device) Seal(data secret.Bytes, pcrs []uint) (Sealed, error) {
	if data.Len() == 0 || data.Len() > MaxSealed {
		return Sealed{}, fmt.Errorf("sealing %d bytes: 1 to %d are allowed", data.Len(), MaxSealed)
	}
	if err := checkPCRs(pcrs); err != nil {
		return Sealed{}, fmt.Errorf("sealing to PCRs: %w", err)
	}
	sealed, err := d.seal(data, pcrs)
	if err != nil {
		return Sealed{}, err
	}
	got, err := d.Unseal(sealed)
	if err != nil {
		return Sealed{}, fmt.Errorf("reading back what was sealed: %w", err)
	}
	defer got.Wipe()
	if !got.Equal(data) {
		return Sealed{}, errors.New("reading back what was sealed: the TPM gave something else")
	}
	return sealed, nil
}

func (d *Device) seal(data secret.Bytes, pcrs []uint) (sealed Sealed, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err = d.withSRK(nil, func(srk storageKey) error {
		policy, err := d.currentPolicy(srk, pcrs)
		if err != nil {
			return err
		}
		rsp, err := d.create(srk, data, policy)
		if err != nil {
			return explain("sealing", err)
		}
		sealed = Sealed{
			Parent: bytes.Clone(srk.name), PCRs: slices.Clone(pcrs),
			Public: bytes.Clone(rsp.OutPublic.Bytes()), Private: rsp.OutPrivate.Buffer,
		}
		_, err = sealed.Name()
		return err
	})
	return sealed, err
}

// create runs TPM2_Create (TPM 2.0 part 3, section 12.1) in a session of its own.
func (d *Device) create(srk storageKey, data secret.Bytes, policy []byte) (*tpm2.CreateResponse, error) {
	session, flush, err := tpm2.HMACSession(d.tpm, tpm2.TPMAlgSHA256, nonceSize,
		srk.salted(), tpm2.AESEncryption(128, tpm2.EncryptIn))
	if err != nil {
		return nil, err
	}
	rsp, err := tpm2.Create{
		ParentHandle: srk.auth(session),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: data.Expose()}),
		}},
		InPublic: tpm2.New2B(sealedTemplate(policy)),
	}.Execute(d.tpm)
	return rsp, errors.Join(err, flush())
}

// currentPolicy returns the digest of the policy that PCRs stay as they are; nil
// for no PCRs. The values are read in a session, for an interposer's values would
// seal to a boot of its choice.
func (d *Device) currentPolicy(srk storageKey, pcrs []uint) ([]byte, error) {
	if len(pcrs) == 0 {
		return nil, nil
	}
	session, flush, err := tpm2.HMACSession(d.tpm, tpm2.TPMAlgSHA256, nonceSize, srk.salted(), tpm2.Audit())
	if err != nil {
		return nil, explain("starting a session with the TPM", err)
	}
	values, _, err := d.readBatch(pcrs, session)
	if err == nil && len(values) != len(pcrs) {
		err = fmt.Errorf("the TPM gave %d of %d PCRs", len(values), len(pcrs))
	}
	if err := errors.Join(err, flush()); err != nil {
		return nil, explain("reading PCRs", err)
	}
	digest := sha256.New()
	for _, value := range values {
		digest.Write(value[:])
	}
	policy, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	err = tpm2.PolicyPCR{Pcrs: selection(pcrs), PcrDigest: tpm2.TPM2BDigest{Buffer: digest.Sum(nil)}}.Update(policy)
	return policy.Hash().Digest, err
}

// Unseal returns what [Device.Seal] sealed. It fails with [ErrOtherMachine],
// [ErrPCRs], [ErrMalformed], or with the TPM's own code.
func (d *Device) Unseal(s Sealed) (secret.Bytes, error) {
	name, err := s.Name()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("unsealing: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var data secret.Bytes
	err = d.withSRK(s.Parent, func(srk storageKey) error {
		handle, err := d.load(srk, s)
		if err != nil {
			return err
		}
		object := tpm2.AuthHandle{Handle: handle, Name: tpm2.TPM2BName{Buffer: name}}
		data, err = d.unseal(srk, object, s.PCRs)
		return errors.Join(err, d.flush(handle))
	})
	if err != nil {
		data.Wipe()
		return secret.Bytes{}, fmt.Errorf("unsealing: %w", err)
	}
	return data, nil
}

// load puts the object into the TPM. That the handle is that of the object shows
// when it is used: the command's HMAC covers the Name that we know.
func (d *Device) load(srk storageKey, s Sealed) (tpm2.TPMHandle, error) {
	rsp, err := tpm2.Load{
		ParentHandle: srk.auth(tpm2.PasswordAuth(nil)),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: s.Private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](s.Public),
	}.Execute(d.tpm)
	if err == nil {
		return rsp.ObjectHandle, nil
	}
	var refusal tpm2.TPMFmt1Error
	if errors.As(err, &refusal) {
		if parameter, _ := refusal.Parameter(); parameter {
			return 0, fmt.Errorf("loading the sealed object: %w: it was altered: %w", ErrMalformed, err)
		}
	}
	return 0, explain("loading the sealed object", err)
}

// unseal begins anew where a PCR was extended between policy and use, whichever
// it was.
func (d *Device) unseal(srk storageKey, object tpm2.AuthHandle, pcrs []uint) (data secret.Bytes, err error) {
	for range quoteAttempts {
		data, err = d.unsealOnce(srk, object, pcrs)
		if !errors.Is(err, tpm2.TPMRCPCRChanged) {
			break
		}
	}
	if errors.Is(err, tpm2.TPMRCPolicyFail) {
		return data, fmt.Errorf("%w: PCRs %v have other values: %w", ErrPCRs, pcrs, err)
	}
	return data, explain("reading the sealed object", err)
}

func (d *Device) unsealOnce(srk storageKey, object tpm2.AuthHandle, pcrs []uint) (secret.Bytes, error) {
	start := tpm2.HMACSession
	if len(pcrs) > 0 {
		start = tpm2.PolicySession
	}
	session, flush, err := start(d.tpm, tpm2.TPMAlgSHA256, nonceSize,
		srk.salted(), tpm2.AESEncryption(128, tpm2.EncryptOut))
	if err != nil {
		return secret.Bytes{}, err
	}
	if len(pcrs) > 0 {
		// Without an expected digest: what counts is the policy of the object.
		_, err = tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: selection(pcrs)}.Execute(d.tpm)
	}
	var rsp *tpm2.UnsealResponse
	if err == nil {
		object.Auth = session
		rsp, err = tpm2.Unseal{ItemHandle: object}.Execute(d.tpm)
	}
	if err := errors.Join(err, flush()); err != nil {
		if rsp != nil {
			clear(rsp.OutData.Buffer)
		}
		return secret.Bytes{}, err
	}
	return secret.New(rsp.OutData.Buffer), nil
}
