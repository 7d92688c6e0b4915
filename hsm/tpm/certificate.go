package tpm

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"keywright.dev/kms/exchange"
)

const (
	// maxCertificate bounds an EK certificate in NV memory, in bytes.
	maxCertificate = 4096
	// nvChunk is read at once; each PC Client TPM allows it.
	nvChunk = 512
)

// Certificate returns the EK certificate in DER form that the manufacturer put
// into NV memory, or nil if there is none. Nothing about it is verified.
func (id *Identity) Certificate() ([]byte, error) {
	return id.device.Certificate(id.ek.Template)
}

// Certificate returns the EK certificate of a template; see
// [Identity.Certificate].
func (d *Device) Certificate(template exchange.EKTemplate) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	index := tpm2.TPMHandle(template.CertificateIndex())
	doing := fmt.Sprintf("reading the EK certificate at NV index %#x", uint32(index))
	ok, err := d.defined(index)
	if err != nil || !ok {
		return nil, explain(doing, err)
	}
	data, err := d.readNV(index)
	if errors.Is(err, tpm2.TPMRCNVUninitialized) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(doing, err)
	}
	der, err := trimDER(data)
	return der, explain(doing, err)
}

// readNV reads a whole NV index whose password is empty.
func (d *Device) readNV(index tpm2.TPMHandle) ([]byte, error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: index}.Execute(d.tpm)
	if err != nil {
		return nil, err
	}
	public, err := rsp.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	if public.DataSize > maxCertificate {
		return nil, fmt.Errorf("it has %d bytes, at most %d are read", public.DataSize, maxCertificate)
	}
	data := make([]byte, 0, public.DataSize)
	for len(data) < int(public.DataSize) {
		chunk, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index, Name: rsp.NVName, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: rsp.NVName},
			Size:       min(nvChunk, public.DataSize-uint16(len(data))),
			Offset:     uint16(len(data)),
		}.Execute(d.tpm)
		if err != nil {
			return nil, err
		}
		if len(chunk.Data.Buffer) == 0 {
			return nil, errors.New("the TPM gave no data")
		}
		data = append(data, chunk.Data.Buffer...)
	}
	return data, nil
}

// trimDER cuts off the filling that follows a certificate in a larger index.
func trimDER(data []byte) ([]byte, error) {
	var certificate asn1.RawValue
	if _, err := asn1.Unmarshal(data, &certificate); err != nil {
		return nil, fmt.Errorf("it holds no certificate: %w", err)
	}
	return certificate.FullBytes, nil
}
