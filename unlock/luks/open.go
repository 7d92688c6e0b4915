package luks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/anatol/devmapper.go"
	"golang.org/x/sys/unix"

	"keywright.dev/kms/secret"
)

// ErrBusy is returned when the device or the name is in use.
var ErrBusy = errors.New("in use")

// Options are what crypttab may say about a volume.
type Options struct {
	Discards bool // pass discards on; tells a thief which blocks are unused
	ReadOnly bool
}

// Mapping is an opened volume.
type Mapping struct {
	Path  string // of the device node, /dev/mapper/NAME
	Table Table  // as read back from the kernel
}

// ErrLeftOpen is returned where a mapping that failed could not be removed
// either.
var ErrLeftOpen = errors.New("the mapping could not be removed")

// Ready tells whether the volume could be opened as /dev/mapper/NAME now: there
// is device-mapper, and the device and the name are free; else it is [ErrBusy].
// A mapping of the same name and volume that has no active table, which a client
// that was killed in the middle left behind, is removed. One that has is in use:
// [ReadTable] and [Volume.Check] say whether it is this volume.
func (v *Volume) Ready(ctx context.Context, name string) error {
	if err := v.makeReady(ctx, name); err != nil {
		return fmt.Errorf("opening volume %s as %s: %w", v.header.UUID, name, err)
	}
	return nil
}

func (v *Volume) makeReady(ctx context.Context, name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if _, err := v.deviceNumber(); err != nil {
		return err
	}
	info, err := devmapper.InfoByName(name)
	switch {
	case errors.Is(err, unix.ENXIO):
	case err != nil:
		return fmt.Errorf("asking device-mapper, which dm_mod brings: %w", err)
	case info.UUID == mappingUUID(v.header.UUID, name) && info.Flags&unix.DM_ACTIVE_PRESENT_FLAG == 0:
		// No data has gone through it. A table that was loaded into it but not
		// activated would keep the device busy.
		if err := Close(ctx, name); err != nil {
			return err
		}
	default:
		return fmt.Errorf("name %s: %w", name, ErrBusy)
	}
	_, err = v.backingDevice()
	return err
}

// UnsealAny returns the volume key that key opens in the first of the keyslots.
// An error of one does not keep the next from being tried; a key that opens none
// is [ErrWrongKey].
func (v *Volume) UnsealAny(ctx context.Context, slots []int, key secret.Bytes) (secret.Bytes, error) {
	var errs []error
	for _, slot := range slots {
		if err := ctx.Err(); err != nil {
			return secret.Bytes{}, err
		}
		volumeKey, err := v.Unseal(slot, key)
		if err == nil {
			return volumeKey, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return secret.Bytes{}, errors.New("no keyslot was named")
	}
	return secret.Bytes{}, errors.Join(errs...)
}

// Open opens the volume as /dev/mapper/NAME with its volume key, from
// [Volume.UnsealAny]. The mapping's name, UUID and table equal those that
// cryptsetup makes. The volume must come from [ReadDevice] of a block device,
// whose file is still open: the mapping stands on that file's device, whatever
// its path names now.
//
// What is not [Volume.Ready] is not opened. On any error nothing stays open, or
// it is [ErrLeftOpen] too.
func (v *Volume) Open(ctx context.Context, volumeKey secret.Bytes, name string, options Options) (*Mapping, error) {
	if err := v.Ready(ctx, name); err != nil {
		return nil, err
	}
	device, err := v.backingDevice()
	if err != nil {
		return nil, fmt.Errorf("opening volume %s: %w", v.header.UUID, err)
	}
	m, err := v.activate(ctx, volumeKey, v.expected(device, name, volumeKey.Len(), options))
	if err != nil {
		return nil, fmt.Errorf("opening volume %s as %s: %w", v.header.UUID, name, err)
	}
	return m, nil
}

// backingDevice returns the device's number after making sure, as cryptsetup
// does, that nothing else uses the device.
func (v *Volume) backingDevice() (string, error) {
	device, err := v.deviceNumber()
	if err != nil {
		return "", err
	}
	f := v.header.device
	exclusive, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDONLY|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return "", fmt.Errorf("device %s: %w", f.Name(), ErrBusy)
	}
	if err != nil {
		return "", fmt.Errorf("opening %s for exclusive use: %w", f.Name(), err)
	}
	return device, exclusive.Close()
}

// deviceNumber returns major:minor of the file that the header came from.
func (v *Volume) deviceNumber() (string, error) {
	f := v.header.device
	if f == nil {
		return "", errors.New("the header was not read from a device")
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return "", fmt.Errorf("reading the number of %s: %w", f.Name(), err)
	}
	if !isBlock(stat) {
		return "", fmt.Errorf("%s is not a block device", f.Name())
	}
	return number(stat.Rdev), nil
}

// expected returns the table that the validated header asks for.
func (v *Volume) expected(device, name string, keySize int, options Options) Table {
	flags := make(map[string]bool)
	for _, flag := range v.header.metadata.Config.Flags {
		flags[persistentFlags()[flag]] = true
	}
	if options.Discards {
		flags[devmapper.CryptFlagAllowDiscards] = true
	}
	return Table{
		Name: name, UUID: mappingUUID(v.header.UUID, name),
		Length: v.length, Cipher: v.segment.Encryption, KeySize: keySize,
		KeyDescription: fmt.Sprintf("%s:cryptsetup:%s-d%d", logonKey, v.header.UUID, v.digestID),
		IVTweak:        uint64(*v.segment.IVTweak), Device: device, Offset: uint64(v.segment.Offset),
		SectorSize: v.segment.SectorSize, ReadOnly: options.ReadOnly,
		Flags: slices.Sorted(maps.Keys(flags)),
	}
}

// activate creates the mapping, reads its table back and sees to its node. What
// it created it removes again if anything fails.
func (v *Volume) activate(ctx context.Context, volumeKey secret.Bytes, want Table) (_ *Mapping, err error) {
	if err := devmapper.Create(want.Name, want.UUID); err != nil {
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("name %s: %w", want.Name, ErrBusy)
		}
		return nil, fmt.Errorf("creating the mapping: %w", err)
	}
	defer func() {
		if err != nil {
			// ctx may be the reason why we are here.
			err = errors.Join(err, Discard(context.WithoutCancel(ctx), want.Name))
		}
	}()
	if err := load(volumeKey, want); err != nil {
		return nil, err
	}
	if err := devmapper.Resume(want.Name); err != nil {
		return nil, fmt.Errorf("activating the table: %w", err)
	}
	got, err := ReadTable(want.Name)
	if err != nil {
		return nil, err
	}
	if err := want.same(got); err != nil {
		return nil, err
	}
	path, err := awaitNode(ctx, got)
	if err != nil {
		return nil, err
	}
	return &Mapping{Path: path, Table: got}, nil
}

// Discard removes a mapping that is not as it should be, if it is there. An
// error is [ErrLeftOpen].
func Discard(ctx context.Context, name string) error {
	if err := Close(ctx, name); err != nil && !errors.Is(err, ErrNoMapping) {
		return fmt.Errorf("%w: %w", ErrLeftOpen, err)
	}
	return nil
}

func load(volumeKey secret.Bytes, want Table) error {
	_, description, _ := strings.Cut(want.KeyDescription, ":")
	table := devmapper.CryptTable{
		Length: want.Length, Encryption: want.Cipher, IVTweak: want.IVTweak,
		KeyID:         fmt.Sprintf(":%d:%s", want.KeySize, want.KeyDescription),
		BackendDevice: want.Device, BackendOffset: want.Offset,
		SectorSize: uint64(want.SectorSize), Flags: want.Flags,
	}
	var flags uint32
	if want.ReadOnly {
		flags = devmapper.ReadOnlyFlag
	}
	return withLogonKey(description, volumeKey, func() error {
		if err := devmapper.Load(want.Name, flags, table); err != nil {
			return fmt.Errorf("loading the table: %w", err)
		}
		return nil
	})
}

// Check demands that a mapping is this volume on the device that its header was
// read from: UUID, device, cipher, offset, length and sector size as validated.
// It is what says, before control leaves the initramfs, that a root device is
// ours. How the key was handed over, discards and read-only are not judged, so
// that a mapping made by cryptsetup passes too.
func (v *Volume) Check(t Table) error {
	device, err := v.deviceNumber()
	if err != nil {
		return fmt.Errorf("checking mapping %s: %w", t.Name, err)
	}
	slots := v.digests[v.digestID].Keyslots
	if len(slots) == 0 {
		return fmt.Errorf("checking mapping %s: the header has no keyslot that states a key size", t.Name)
	}
	want := v.expected(device, t.Name, int(v.keyslots[slots[0]].KeySize), Options{ReadOnly: t.ReadOnly})
	want.KeyDescription, want.Flags = t.KeyDescription, t.Flags
	return want.same(t)
}

// same names the first difference between what was asked for and what is.
func (t Table) same(got Table) error {
	for _, field := range []struct {
		name      string
		want, got any
	}{
		{"name", t.Name, got.Name},
		{"UUID", t.UUID, got.UUID},
		{"backing device", t.Device, got.Device},
		{"offset", t.Offset, got.Offset},
		{"length", t.Length, got.Length},
		{"cipher", t.Cipher, got.Cipher},
		{"key size", t.KeySize, got.KeySize},
		{"key", t.KeyDescription, got.KeyDescription},
		{"IV tweak", t.IVTweak, got.IVTweak},
		{"sector size", t.SectorSize, got.SectorSize},
		{"read-only", t.ReadOnly, got.ReadOnly},
		{"flags", strings.Join(t.Flags, " "), strings.Join(got.Flags, " ")},
		{"number of targets", 1 + len(t.Rest), 1 + len(got.Rest)},
	} {
		if field.want != field.got {
			return fmt.Errorf("mapping %s is not what its header says: %s is %v, want %v", got.Name, field.name, field.got, field.want)
		}
	}
	return nil
}

// nameForm leaves out what libdevmapper would mangle, and what would not fit
// into a mapping's UUID beside our part of it.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9#+\-.:=@_]{1,80}$`)

// CheckName says what is wrong with the name of a mapping.
func CheckName(name string) error {
	if !nameForm.MatchString(name) || name == "." || name == ".." || name == "control" {
		return fmt.Errorf("mapping name %q is not 1 to 80 of the characters A-Z a-z 0-9 # + - . : = @ _", name)
	}
	return nil
}

// mappingUUID is cryptsetup's dm_prepare_uuid.
func mappingUUID(uuid, name string) string {
	return "CRYPT-LUKS2-" + strings.ReplaceAll(uuid, "-", "") + "-" + name
}
