package luks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/anatol/devmapper.go"
	"golang.org/x/sys/unix"
)

// Table is the active device-mapper table of a dm-crypt mapping, as the kernel
// states it. A key that stands in it in the clear is counted and wiped, never
// returned.
type Table struct {
	Name   string // below /dev/mapper
	UUID   string // of the mapping, such as CRYPT-LUKS2-…
	Number string // major:minor of the mapping
	Length uint64 // of the mapping, in bytes
	Cipher string // such as aes-xts-plain64
	// KeySize is in bytes. KeyDescription is empty when the key stands in the
	// table instead of the kernel keyring.
	KeySize        int
	KeyDescription string
	IVTweak        uint64
	Device         string   // major:minor of the backing device
	Offset         uint64   // on the backing device, in bytes
	SectorSize     uint32   // in bytes
	Flags          []string // sorted, without sector_size
	ReadOnly       bool
	// Rest are the targets behind the first one, of a volume under reencryption: in
	// all that is not named here they are as that one.
	Rest []Target `json:",omitempty"`

	start uint64 // of a target that is parsed
}

// Target is a part of a mapping.
type Target struct {
	Start          uint64 // on the mapping, in bytes
	KeyDescription string
	IVTweak        uint64
	Offset         uint64 // on the backing device, in bytes
}

// Options returns the options that make a mapping like this one.
func (t Table) Options() Options {
	return Options{Discards: slices.Contains(t.Flags, devmapper.CryptFlagAllowDiscards), ReadOnly: t.ReadOnly}
}

// ErrNoMapping is returned when there is no mapping of a name or number.
var ErrNoMapping = errors.New("no such mapping")

// ReadTable returns the active table of the mapping with a name. A mapping of
// any other shape than one crypt target, or up to [maxTargets] on one device, is an
// error.
func ReadTable(name string) (Table, error) {
	if err := CheckName(name); err != nil {
		return Table{}, err
	}
	info, err := devmapper.InfoByName(name)
	if err != nil {
		return Table{}, fmt.Errorf("reading mapping %s: %w", name, missing(err))
	}
	t, err := readTable(name)
	if err != nil {
		return Table{}, fmt.Errorf("reading the table of mapping %s: %w", name, missing(err))
	}
	t.Name, t.UUID = info.Name, info.UUID
	t.Number = number(info.DevNo)
	t.ReadOnly = info.Flags&unix.DM_READONLY_FLAG != 0
	return t, nil
}

// ReadTableOf returns the table of the mapping that a block device node is. A
// device that is no mapping is [ErrNoMapping].
func ReadTableOf(path string) (Table, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return Table{}, fmt.Errorf("reading the number of %s: %w", path, err)
	}
	if !isBlock(stat) {
		return Table{}, fmt.Errorf("reading the mapping of %s: not a block device", path)
	}
	info, err := devmapper.InfoByDevno(stat.Rdev)
	if err != nil {
		return Table{}, fmt.Errorf("reading the mapping of %s: %w", path, missing(err))
	}
	return ReadTable(info.Name)
}

// missing turns the kernel's answer for an unknown mapping into ErrNoMapping.
func missing(err error) error {
	if errors.Is(err, unix.ENXIO) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w (%v)", ErrNoMapping, err)
	}
	return err
}

// number formats a device number of stat(2), which struct dm_ioctl shares.
func number(dev uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
}

func isBlock(stat unix.Stat_t) bool { return stat.Mode&unix.S_IFMT == unix.S_IFBLK }

// tableSectorSize is the unit in which device-mapper counts, in bytes.
const tableSectorSize = 512

// statusSize is ample for one crypt target: its key is at most 64 bytes in hex.
const statusSize = 16 << 10

// readTable asks for the one target of a mapping (DM_TABLE_STATUS with
// DM_STATUS_TABLE_FLAG), which devmapper.go cannot.
func readTable(name string) (Table, error) {
	buffer := make([]byte, statusSize)
	defer wipe(buffer)
	request := (*unix.DmIoctl)(unsafe.Pointer(unsafe.SliceData(buffer))) //nolint:gosec // The buffer begins with the kernel's struct.
	request.Version = [3]uint32{4, 0, 0}
	request.Data_size = statusSize
	request.Data_start = unix.SizeofDmIoctl
	request.Flags = unix.DM_STATUS_TABLE_FLAG
	copy(request.Name[:len(request.Name)-1], name)
	if err := control(unix.DM_TABLE_STATUS, buffer); err != nil {
		return Table{}, err
	}
	if request.Target_count == 0 || request.Target_count > maxTargets || request.Flags&unix.DM_BUFFER_FULL_FLAG != 0 || request.Data_start > statusSize-unix.SizeofDmTargetSpec {
		return Table{}, fmt.Errorf("%d targets, want 1 to %d", request.Target_count, maxTargets)
	}
	return parseTargets(buffer[request.Data_start:], int(request.Target_count))
}

// maxTargets is what a mapping has that cryptsetup opened under reencryption: a part
// under either volume key, and one in between.
const maxTargets = 3

// parseTargets parses the targets of a mapping, each of which says how far behind the
// first one the next is.
func parseTargets(b []byte, count int) (t Table, err error) {
	at := 0
	for n := range count {
		if at < 0 || at+unix.SizeofDmTargetSpec > len(b) {
			return Table{}, errors.New("a target is outside of the answer")
		}
		next, err := parseTarget(b[at:])
		switch {
		case err != nil:
			return Table{}, err
		case n == 0 && next.start != 0:
			return Table{}, errors.New("the first target is not at the beginning")
		case n == 0:
			t = next
		default:
			if err := t.append(next); err != nil {
				return Table{}, err
			}
		}
		at = int(binary.NativeEndian.Uint32(b[at+20:]))
	}
	return t, nil
}

// append adds a target that begins where the table ends.
func (t *Table) append(next Table) error {
	same := next
	same.Length, same.KeyDescription, same.IVTweak, same.Offset = t.Length, t.KeyDescription, t.IVTweak, t.Offset
	same.start, same.Rest = t.start, t.Rest
	if !reflect.DeepEqual(*t, same) || next.start != t.Length {
		return errors.New("the targets are not parts of one volume")
	}
	t.Rest = append(t.Rest, Target{next.start, next.KeyDescription, next.IVTweak, next.Offset})
	t.Length += next.Length
	return nil
}

func control(command uint, buffer []byte) error {
	f, err := os.Open("/dev/mapper/control")
	if err != nil {
		return err
	}
	defer f.Close()
	//nolint:gosec // The kernel reads and writes within Data_size, the buffer's length.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(command), uintptr(unsafe.Pointer(unsafe.SliceData(buffer))))
	if errno != 0 {
		return os.NewSyscallError("device-mapper ioctl", errno)
	}
	return nil
}

// parseTarget parses a struct dm_target_spec and the parameters behind it.
func parseTarget(b []byte) (Table, error) {
	start, length := binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])
	kind, _, _ := bytes.Cut(b[24:unix.SizeofDmTargetSpec], []byte{0})
	if string(kind) != "crypt" || start > math.MaxInt64/tableSectorSize || length > math.MaxInt64/tableSectorSize {
		return Table{}, fmt.Errorf("target %q at sector %d, want crypt", kind, start)
	}
	parameters, _, _ := bytes.Cut(b[unix.SizeofDmTargetSpec:], []byte{0})
	t, err := parseParameters(parameters)
	t.Length, t.start = length*tableSectorSize, start*tableSectorSize
	return t, err
}

// parseParameters parses what dm-crypt states of itself:
//
//	cipher key iv_offset device offset [count flag…]
//
// where key is hex, or ":size:type:description" for a key in the keyring.
func parseParameters(parameters []byte) (Table, error) {
	fields := bytes.Fields(parameters)
	if len(fields) < 5 {
		return Table{}, fmt.Errorf("%d parameters, want at least 5", len(fields))
	}
	t := Table{Cipher: string(fields[0]), Device: string(fields[3]), SectorSize: tableSectorSize}
	var errs [4]error
	errs[0] = t.setKey(fields[1])
	t.IVTweak, errs[1] = strconv.ParseUint(string(fields[2]), 10, 64)
	t.Offset, errs[2] = strconv.ParseUint(string(fields[4]), 10, 54)
	t.Offset *= tableSectorSize
	if len(fields) > 6 {
		errs[3] = t.setFlags(fields[6:])
	}
	return t, errors.Join(errs[:]...)
}

func (t *Table) setKey(field []byte) error {
	if field[0] != ':' {
		t.KeySize = len(field) / 2
		return nil
	}
	parts := strings.SplitN(string(field), ":", 4)
	if len(parts) != 4 {
		return errors.New("malformed key reference")
	}
	t.KeyDescription = parts[2] + ":" + parts[3]
	var err error
	t.KeySize, err = strconv.Atoi(parts[1])
	return err
}

func (t *Table) setFlags(fields [][]byte) error {
	for _, field := range fields {
		size, found := strings.CutPrefix(string(field), "sector_size:")
		if !found {
			t.Flags = append(t.Flags, string(field))
			continue
		}
		n, err := strconv.ParseUint(size, 10, 32)
		if err != nil {
			return err
		}
		t.SectorSize = uint32(n)
	}
	slices.Sort(t.Flags)
	return nil
}

func wipe(b []byte) {
	clear(b)
	runtime.KeepAlive(b)
}
