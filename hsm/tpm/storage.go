package tpm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// persistentSRK is where provisioning may have left the storage root key (TCG
// TPM v2.0 Provisioning Guidance, section 7.8).
const persistentSRK tpm2.TPMHandle = 0x81000001

// storageKey is the storage root key (SRK), in the TPM.
type storageKey struct {
	handle tpm2.TPMHandle
	public tpm2.TPMTPublic
	name   []byte
}

// auth authorizes the use of the SRK, whose password is empty, in a session.
func (k storageKey) auth(session tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: tpm2.TPM2BName{Buffer: k.name}, Auth: session}
}

// salted makes a session's key one that only this SRK's TPM can know.
func (k storageKey) salted() tpm2.AuthOption { return tpm2.Salted(k.handle, k.public) }

// withSRK calls use with the SRK of the standard template: the persistent one
// where it is that, else one made for the call. Where name is not empty, the SRK
// must have it, or the error is [ErrOtherMachine].
func (d *Device) withSRK(name []byte, use func(storageKey) error) error {
	key, err := d.persistentSRK()
	if err != nil {
		return explain("reading the storage root key", err)
	}
	if key.matches(name) {
		return use(key)
	}
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{
			Handle: tpm2.TPMRHOwner, Name: tpm2.HandleName(tpm2.TPMRHOwner), Auth: tpm2.PasswordAuth(nil),
		},
		InPublic: tpm2.New2B(tpm2.ECCSRKTemplate),
	}.Execute(d.tpm)
	if err != nil {
		return explainOwner("creating the storage root key", err)
	}
	key, err = storageKeyOf(rsp.ObjectHandle, rsp.OutPublic)
	switch {
	case err != nil:
		err = explain("reading the storage root key", err)
	case !isSRK(key.public):
		err = errors.New("creating the storage root key: the TPM made another key than was asked for")
	case !key.matches(name):
		err = fmt.Errorf("%w, or it was cleared: its storage root key is not the one that sealed", ErrOtherMachine)
	default:
		err = use(key)
	}
	return errors.Join(err, d.flush(rsp.ObjectHandle))
}

// matches tells whether the key is an SRK, and that of a name where there is one.
func (k storageKey) matches(name []byte) bool {
	if len(k.name) == 0 {
		return false
	}
	return len(name) == 0 && isSRK(k.public) || bytes.Equal(k.name, name)
}

// persistentSRK returns what is at the SRK's persistent handle, or nothing.
func (d *Device) persistentSRK() (storageKey, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: persistentSRK}.Execute(d.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return storageKey{}, nil
	}
	if err != nil {
		return storageKey{}, err
	}
	return storageKeyOf(persistentSRK, rsp.OutPublic)
}

func storageKeyOf(handle tpm2.TPMHandle, area tpm2.TPM2BPublic) (storageKey, error) {
	public, err := area.Contents()
	if err != nil {
		return storageKey{}, err
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return storageKey{}, err
	}
	return storageKey{handle, *public, name.Buffer}, nil
}

// isSRK tells whether a key is one of the template, whatever its point is.
func isSRK(public tpm2.TPMTPublic) bool {
	public.Unique = tpm2.ECCSRKTemplate.Unique
	return bytes.Equal(tpm2.Marshal(public), tpm2.Marshal(tpm2.ECCSRKTemplate))
}
