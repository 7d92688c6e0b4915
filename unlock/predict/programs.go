package predict

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"

	"keywright.dev/kms/claims"
	"keywright.dev/kms/eventlog"
)

const (
	applicationPCR = 4
	// bootApplication is EV_EFI_BOOT_SERVICES_APPLICATION.
	bootApplication = 0x80000003
)

// programs names the EFI programs that will run before a kernel, in their order:
// those that this boot's log names, as their files are now.
func (g GRUB) programs(events []eventlog.Event) ([]claims.Claim, error) {
	var list []claims.Claim
	for _, e := range events {
		if e.PCR != applicationPCR || e.Type != bootApplication {
			continue
		}
		path, err := imagePath(e.Data)
		if err != nil {
			return nil, fmt.Errorf("reading the event log of this boot: program %d: %w", len(list)+1, err)
		}
		if path == "" {
			break // a kernel, which GRUB has in memory
		}
		program, err := g.program(path)
		if err != nil {
			return nil, err
		}
		list = append(list, program)
	}
	if len(list) == 0 {
		return nil, errors.New("this boot's event log does not name the files of shim and GRUB")
	}
	return list, nil
}

// program names a program by its Authenticode digest.
func (g GRUB) program(path string) (claims.Claim, error) {
	return g.once(claims.BootApplication, path, func(f File) (digest [sha256.Size]byte, err error) {
		img, err := parsePE(f, f.Size())
		if err != nil {
			return digest, err
		}
		return img.authenticode()
	})
}

// imageLocation is the part of a UEFI_IMAGE_LOAD_EVENT before its device path
// (TCG PC Client Platform Firmware Profile, section 10.2.3): three addresses and
// the path's length, of 8 bytes each.
const imageLocation = 4 * 8

var errDevicePath = errors.New("its device path is cut off")

// imagePath returns the path of the file that an event says it loaded, with
// slashes; empty where it names none.
func imagePath(event []byte) (string, error) {
	if len(event) < imageLocation {
		return "", errDevicePath
	}
	nodes := event[imageLocation:]
	if binary.LittleEndian.Uint64(event[imageLocation-8:]) != uint64(len(nodes)) {
		return "", errDevicePath
	}
	const (
		header   = 4
		media    = 4
		filePath = 4
		end      = 0x7f
	)
	var path strings.Builder
	for len(nodes) > 0 {
		if len(nodes) < header {
			return "", errDevicePath
		}
		size := int(binary.LittleEndian.Uint16(nodes[2:]))
		if size < header || size > len(nodes) {
			return "", errDevicePath
		}
		switch kind := nodes[0]; {
		case kind == end:
			return path.String(), nil
		case kind == media && nodes[1] == filePath:
			path.WriteString(slashed(nodes[header:size]))
		}
		nodes = nodes[size:]
	}
	return path.String(), nil
}

// slashed reads the UTF-16 of a path in a device path (UEFI, section 10.3.5.4).
func slashed(raw []byte) string {
	var units []uint16
	for ; len(raw) >= 2; raw = raw[2:] {
		unit := binary.LittleEndian.Uint16(raw)
		if unit == 0 {
			break
		}
		units = append(units, unit)
	}
	return strings.ReplaceAll(string(utf16.Decode(units)), `\`, "/")
}
