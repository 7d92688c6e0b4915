package predict

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"keywright.dev/kms/claims"
)

const (
	// maxMagic bounds the section that names the stub.
	maxMagic    = 256
	magicPrefix = "#### LoaderInfo: systemd-stub "
	// maxLine bounds the section of the command line.
	maxLine = 64 << 10
	// oldestStub is the first systemd-stub that measures sections in an order
	// of their own.
	oldestStub = 252
)

// UKI returns what follows from a unified kernel image of size bytes: claims of
// kind [claims.Files], of which a boot's measurement will have those that are
// not about files alone. The error names the file's fault or the claim that it
// leaves open.
func UKI(file io.ReaderAt, size int64) (claims.Set, error) {
	list, err := ukiClaims(file, size)
	if err != nil {
		return claims.Set{}, fmt.Errorf("predicting the boot of a unified kernel image: %w", err)
	}
	return claims.New(claims.Files, list)
}

func ukiClaims(file io.ReaderAt, size int64) ([]claims.Claim, error) {
	img, err := parsePE(file, size)
	if err != nil {
		return nil, err
	}
	u, err := newUKI(img)
	if err != nil {
		return nil, err
	}
	var list []claims.Claim
	for _, step := range []func() ([]claims.Claim, error){u.images, u.measuredSections, u.commandLine, u.initrd} {
		more, err := step()
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// uki is an image with its sections by name, without the dot.
type uki struct {
	img      *image
	sections map[string]section
	stub     int // major version of systemd-stub
}

func newUKI(img *image) (*uki, error) {
	u := &uki{img: img, sections: make(map[string]section)}
	for _, s := range img.sections {
		name := strings.TrimPrefix(s.name, ".")
		if _, twice := u.sections[name]; twice {
			return nil, fmt.Errorf("it has more than one section %q", s.name)
		}
		u.sections[name] = s
	}
	if !u.has("linux") {
		return nil, errors.New("it has no section .linux")
	}
	if u.has("profile") {
		return nil, errors.New("it has several profiles, and only a boot shows which is chosen")
	}
	var err error
	u.stub, err = u.stubVersion()
	return u, err
}

// has tells whether systemd-stub finds a section: an empty one it does not.
func (u *uki) has(name string) bool { return u.sections[name].virtualSize > 0 }

// stubVersion reads the version that systemd-stub carries in a section, such as
// "#### LoaderInfo: systemd-stub 252.39-1~deb12u2 ####".
func (u *uki) stubVersion() (int, error) {
	magic, err := u.img.content(u.sections["sdmagic"], maxMagic)
	if err != nil {
		return 0, err
	}
	_, version, ok := bytes.Cut(magic, []byte(magicPrefix))
	digits := 0
	for digits < len(version) && '0' <= version[digits] && version[digits] <= '9' {
		digits++
	}
	major, err := strconv.Atoi(string(version[:digits]))
	if !ok || err != nil || major < oldestStub {
		return 0, fmt.Errorf("its stub is not systemd-stub %d or later", oldestStub)
	}
	return major, nil
}

// images names the two programs that firmware loads, and tells whether the
// outer one is signed.
func (u *uki) images() ([]claims.Claim, error) {
	outer, err := u.img.authenticode()
	if err != nil {
		return nil, err
	}
	linux := u.sections["linux"]
	if err := linux.check(maxImage); err != nil {
		return nil, err
	}
	size := int64(linux.virtualSize)
	kernel, err := parsePE(io.NewSectionReader(u.img.file, int64(linux.rawOffset), size), size)
	if err != nil {
		return nil, fmt.Errorf("its kernel in section .linux: %w", err)
	}
	inner, err := kernel.authenticode()
	if err != nil {
		return nil, err
	}
	return []claims.Claim{
		{Name: claims.BootApplication, Value: hex.EncodeToString(outer[:])},
		{Name: claims.KernelImage, Value: hex.EncodeToString(inner[:])},
		{Name: claims.ImageSignature, Value: u.img.signature()},
	}, nil
}

// measuredSections names the sections in the order in which the stub measures
// them.
func (u *uki) measuredSections() ([]claims.Claim, error) {
	var list []claims.Claim
	for _, name := range claims.UKISections() {
		if !u.has(name) || u.stub < measuredSince(name) {
			continue
		}
		sum, err := u.img.digest(u.sections[name])
		if err != nil {
			return nil, err
		}
		list = append(list, claims.Claim{Name: claims.UKIPrefix + name, Value: hex.EncodeToString(sum[:])})
	}
	return list, nil
}

// measuredSince returns the version of systemd-stub that began to measure a
// section.
func measuredSince(name string) int {
	switch name {
	case "uname", "sbat":
		return 254
	case "ucode":
		return 256
	case "profile", "dtbauto", "hwids":
		return 257
	case "efifw":
		return 258
	default:
		return oldestStub
	}
}

// commandLine tells what the kernel will receive. Stubs differ in what they
// make of control characters and of white space at the ends, so a line that has
// any is refused.
func (u *uki) commandLine() ([]claims.Claim, error) {
	if !u.has("cmdline") {
		return nil, nil
	}
	content, err := u.img.content(u.sections["cmdline"], maxLine)
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(content, []byte{0})
	if !claims.ValidValue(string(line)) {
		return nil, fmt.Errorf("%s cannot be told: the command line in section .cmdline is empty, longer than %d bytes, begins or ends with white space (a line feed counts) or has characters other than printable ASCII", claims.KernelCommandLine, claims.MaxValue)
	}
	return []claims.Claim{
		{Name: claims.KernelCommandLine, Value: claims.CommandLineDigest(string(line))},
		{Name: claims.CommandLineText, Value: string(line)},
	}, nil
}

// initrd tells what the kernel will receive where that is the section alone.
// What the stub would put beside it, it makes up while it runs.
func (u *uki) initrd() ([]claims.Claim, error) {
	added := u.has("pcrsig") || u.has("pcrpkey") || u.stub >= 256 && u.has("ucode") || u.stub >= 257 && u.has("osrel")
	if added || !u.has("initrd") {
		return nil, nil
	}
	sum, err := u.img.digest(u.sections["initrd"])
	if err != nil {
		return nil, err
	}
	return []claims.Claim{{Name: claims.KernelInitrd, Value: hex.EncodeToString(sum[:])}}, nil
}
