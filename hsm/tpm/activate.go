package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"keywright.dev/kms/exchange"
	"keywright.dev/kms/secret"
)

// maxCredential bounds each half of a credential in bytes; the largest, under
// an RSA-2048 EK, has 256.
const maxCredential = 512

// ActivateCredential decrypts what [exchange.MakeCredential] made, which proves
// to its maker that this TPM holds both EK and AK. The secret crosses the bus
// encrypted.
func (id *Identity) ActivateCredential(blob, encrypted []byte) (secret.Bytes, error) {
	if len(blob) > maxCredential || len(encrypted) > maxCredential {
		return secret.Bytes{}, fmt.Errorf("activating a credential: parts of %d and %d bytes, at most %d are allowed",
			len(blob), len(encrypted), maxCredential)
	}
	id.device.mu.Lock()
	defer id.device.mu.Unlock()
	var credential secret.Bytes
	err := id.device.withEK(id.ek.Template, func(ek exchange.EK, handle tpm2.TPMHandle) error {
		if !bytes.Equal(ek.Public, id.ek.Public) {
			return fmt.Errorf("activating a credential: %w: its endorsement key changed", ErrOtherMachine)
		}
		var err error
		credential, err = id.activate(handle, blob, encrypted)
		return err
	})
	if err != nil {
		credential.Wipe()
		return secret.Bytes{}, err
	}
	return credential, nil
}

func (id *Identity) activate(ek tpm2.TPMHandle, blob, encrypted []byte) (secret.Bytes, error) {
	session, flush, err := id.ekSession(ek)
	if err != nil {
		return secret.Bytes{}, err
	}
	rsp, err := tpm2.ActivateCredential{
		ActivateHandle: id.akAuth(),
		KeyHandle:      tpm2.AuthHandle{Handle: ek, Name: tpm2.TPM2BName{Buffer: id.ek.Name}, Auth: session},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: blob},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: encrypted},
	}.Execute(id.device.tpm)
	err = errors.Join(explain("activating a credential (was it made for this TPM's keys?)", err), flush())
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New(rsp.CertInfo.Buffer), nil
}

// ekSession starts a session that authorizes the use of the EK and encrypts the
// first parameter in both directions.
func (id *Identity) ekSession(ek tpm2.TPMHandle) (session tpm2.Session, flush func() error, err error) {
	salted, err := saltedTo(id.ek, ek)
	if err != nil {
		return nil, nil, err
	}
	encrypted := tpm2.AESEncryption(128, tpm2.EncryptInOut)
	if id.ek.Template == exchange.EKP384 {
		// The high-range templates have userWithAuth and no password.
		session, flush, err = tpm2.HMACSession(id.device.tpm, tpm2.TPMAlgSHA256, nonceSize, salted, encrypted)
		return session, flush, explain("starting a session with the TPM", err)
	}
	session, flush, err = tpm2.PolicySession(id.device.tpm, tpm2.TPMAlgSHA256, nonceSize, salted, encrypted)
	if err != nil {
		return nil, nil, explain("starting a session with the TPM", err)
	}
	_, err = tpm2.PolicySecret{
		AuthHandle:    endorsement(),
		PolicySession: session.Handle(),
		NonceTPM:      session.NonceTPM(),
	}.Execute(id.device.tpm)
	if err != nil {
		return nil, nil, errors.Join(explainEndorsement("authorizing the endorsement key", err), flush())
	}
	return session, flush, nil
}
