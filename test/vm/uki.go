package vm

import (
	"context"
	"debug/pe"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"keywright.dev/test/process"
)

const (
	efiStub  = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
	pageSize = 0x1000
)

// UKI is a unified kernel image: systemd's stub with a kernel and what belongs
// to it as sections (https://uapi-group.org/specifications/specs/unified_kernel_image/).
type UKI struct {
	Kernel    Kernel
	Initrd    string // path
	Cmdline   string
	OSRelease string      // content of .osrel
	SignWith  *SigningKey // nil: not signed
}

// SigningKey signs boot applications.
type SigningKey struct {
	Key  string // path of a PEM private key
	Cert string // path of its PEM certificate
}

type section struct {
	name string
	file string
	size int64
}

// Write writes the image to path. Equal parts give equal bytes until signed:
// a signature has its time.
func (u UKI) Write(ctx context.Context, path string) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), "uki-")
	if err != nil {
		return fmt.Errorf("building %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	sections, err := u.sections(dir)
	if err != nil {
		return fmt.Errorf("building %s: %w", path, err)
	}
	args, err := objcopyArgs(sections)
	if err != nil {
		return fmt.Errorf("building %s: %w", path, err)
	}
	if err := process.Run(ctx, exec.CommandContext(ctx, "objcopy", append(args, efiStub, path)...)); err != nil {
		return fmt.Errorf("building %s: %w", path, err)
	}
	if u.SignWith == nil {
		return nil
	}
	return u.SignWith.sign(ctx, path)
}

// sections returns the sections in the order in which they lie in the image.
func (u UKI) sections(dir string) ([]section, error) {
	sections := []section{
		{name: ".osrel", file: filepath.Join(dir, "osrel")},
		{name: ".cmdline", file: filepath.Join(dir, "cmdline")},
		{name: ".uname", file: filepath.Join(dir, "uname")},
		{name: ".initrd", file: u.Initrd},
		// Last, since a kernel may unpack itself over what follows it.
		{name: ".linux", file: u.Kernel.Image},
	}
	for i, text := range []string{u.OSRelease, u.Cmdline, u.Kernel.Release()} {
		if err := os.WriteFile(sections[i].file, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	for i := range sections {
		info, err := os.Stat(sections[i].file)
		if err != nil {
			return nil, err
		}
		sections[i].size = info.Size()
	}
	return sections, nil
}

func objcopyArgs(sections []section) ([]string, error) {
	address, err := stubEnd(efiStub)
	if err != nil {
		return nil, err
	}
	// Else objcopy writes the present time into the image.
	args := []string{"--preserve-dates"}
	for _, s := range sections {
		args = append(args,
			"--add-section", s.name+"="+s.file,
			"--change-section-vma", fmt.Sprintf("%s=%#x", s.name, address))
		address = alignUp(address + uint64(s.size))
	}
	return args, nil
}

// stubEnd returns the first free page-aligned address after a stub's sections.
func stubEnd(path string) (uint64, error) {
	f, err := pe.Open(path)
	if err != nil {
		return 0, fmt.Errorf("reading the EFI stub %s: %w", path, err)
	}
	defer f.Close()
	header, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return 0, fmt.Errorf("reading the EFI stub %s: it is no 64-bit PE file", path)
	}
	var end uint64
	for _, s := range f.Sections {
		end = max(end, header.ImageBase+uint64(s.VirtualAddress)+uint64(s.VirtualSize))
	}
	return alignUp(end), nil
}

func alignUp(n uint64) uint64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// sign signs the boot application at path in place.
func (k SigningKey) sign(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, "sbsign", "--key", k.Key, "--cert", k.Cert, "--output", path, path)
	if err := process.Run(ctx, cmd); err != nil {
		return fmt.Errorf("signing %s: %w", path, err)
	}
	return nil
}

// The key that Debian's OVMF_VARS_4M.snakeoil.fd trusts. Everybody has it.
const (
	snakeoilKey  = "/usr/share/ovmf/PkKek-1-snakeoil.key"
	snakeoilCert = "/usr/share/ovmf/PkKek-1-snakeoil.pem"
)

// SnakeoilKey puts the key that [OVMFSecureBoot] trusts into dir, without the
// pass phrase it is published with.
func SnakeoilKey(ctx context.Context, dir string) (*SigningKey, error) {
	plain := filepath.Join(dir, "snakeoil.key")
	cmd := exec.CommandContext(ctx, "openssl", "pkey", "-in", snakeoilKey, "-passin", "pass:snakeoil", "-out", plain)
	if err := process.Run(ctx, cmd); err != nil {
		return nil, fmt.Errorf("reading OVMF's snakeoil key: %w", err)
	}
	return &SigningKey{Key: plain, Cert: snakeoilCert}, nil
}
