package sealed

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"keywright.dev/hsm/tpm"
	"keywright.dev/kms/root/local"
)

const (
	// header is the first line of a file.
	header  = "keywright-tpm-v1"
	maxFile = 2048

	nameLabel = "keywright/root-tpm-name/v1\x00"
	nameSize  = 16
	noPCRs    = "-"
)

// render returns the one form that parse reads.
func render(s tpm.Sealed) string {
	return local.AddDigest(strings.Join([]string{
		header,
		"srk " + hex.EncodeToString(s.Parent),
		"pcrs " + renderPCRs(s.PCRs),
		"public " + base64.StdEncoding.EncodeToString(s.Public),
		"private " + base64.StdEncoding.EncodeToString(s.Private),
	}, "\n") + "\n")
}

func parse(text string) (tpm.Sealed, error) {
	first, _, _ := strings.Cut(text, "\n")
	if first != header {
		return tpm.Sealed{}, errors.New("it is no key sealed to a TPM: want a first line " + header)
	}
	body, whole := local.CutDigest(text)
	if !whole {
		return tpm.Sealed{}, errors.New("it is cut or damaged: its last line is not the digest of those before; bring back a copy")
	}
	s, err := parseBody(strings.Split(body, "\n"))
	if err != nil {
		return tpm.Sealed{}, err
	}
	if _, err := s.Name(); err != nil {
		return tpm.Sealed{}, err
	}
	if render(s) != text {
		return tpm.Sealed{}, errors.New("it is not in the form in which such files are written")
	}
	return s, nil
}

func parseBody(lines []string) (tpm.Sealed, error) {
	names := []string{header, "srk ", "pcrs ", "public ", "private ", ""}
	if len(lines) != len(names) {
		return tpm.Sealed{}, fmt.Errorf("it has %d lines, not %d", len(lines), len(names))
	}
	values := make([]string, len(names))
	for i, name := range names {
		value, ok := strings.CutPrefix(lines[i], name)
		if !ok {
			return tpm.Sealed{}, fmt.Errorf("its line %d is not %q", i+1, name)
		}
		values[i] = value
	}
	parent, parentErr := hex.DecodeString(values[1])
	pcrs, pcrErr := parsePCRs(values[2])
	public, publicErr := base64.StdEncoding.Strict().DecodeString(values[3])
	private, privateErr := base64.StdEncoding.Strict().DecodeString(values[4])
	if err := errors.Join(parentErr, pcrErr, publicErr, privateErr); err != nil {
		return tpm.Sealed{}, fmt.Errorf("one of its lines cannot be read: %w", err)
	}
	return tpm.Sealed{Parent: parent, PCRs: pcrs, Public: public, Private: private}, nil
}

// renderPCRs writes 4,7, or a hyphen for none.
func renderPCRs(pcrs []uint) string {
	if len(pcrs) == 0 {
		return noPCRs
	}
	list := make([]string, len(pcrs))
	for i, pcr := range pcrs {
		list[i] = strconv.FormatUint(uint64(pcr), 10)
	}
	return strings.Join(list, ",")
}

// parsePCRs reads what renderPCRs writes.
func parsePCRs(text string) ([]uint, error) {
	if text == noPCRs {
		return nil, nil
	}
	list := strings.Split(text, ",")
	if len(list) > tpm.MaxSealedPCRs {
		return nil, fmt.Errorf("%d PCRs, at most %d are allowed", len(list), tpm.MaxSealedPCRs)
	}
	pcrs := make([]uint, len(list))
	for i, digits := range list {
		n, err := strconv.ParseUint(digits, 10, 8)
		if err != nil || n > 23 || i > 0 && uint(n) <= pcrs[i-1] {
			return nil, errors.New("PCRs are numbers from 0 to 23 in ascending order, with commas")
		}
		pcrs[i] = uint(n)
	}
	return pcrs, nil
}

// nameOf names a root by its sealed object, whose Name covers a digest of the key.
func nameOf(s tpm.Sealed) (string, error) {
	name, err := s.Name()
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256(append([]byte(nameLabel), name...))
	return "tpm:" + hex.EncodeToString(digest[:nameSize]), nil
}
